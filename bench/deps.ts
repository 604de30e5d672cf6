/** The built-in modules that the bench uses, in one place so that they can be exchanged. */
export { default as process } from "node:process";
export { parseArgs } from "node:util";
