/** The built-in modules that this folder uses, in one place so that they can be exchanged. */
export { stderr, stdin } from "node:process";
export { createInterface } from "node:readline";
