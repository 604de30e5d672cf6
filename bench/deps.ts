/** What the bench takes from Node's library. */
export { default as process } from "node:process";
export { parseArgs } from "node:util";
