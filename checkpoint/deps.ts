/** The built-in modules that this folder uses, in one place so that they can be exchanged. */
export { createHash } from "node:crypto";
export { statfsSync } from "node:fs";
export { basename, dirname, join, relative, resolve, sep } from "node:path";
export { pathToFileURL } from "node:url";
