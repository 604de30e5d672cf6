/** The built-in modules that the tools use, in one place so that they can be exchanged. */
export { parseArgs } from "node:util";
