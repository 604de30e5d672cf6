/** What tests take from the runtime's own modules. */
export { inspect, isDeepStrictEqual } from "node:util";
