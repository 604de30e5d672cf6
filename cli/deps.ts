/** What the command line takes of Node's own modules. */
export { statfsSync } from "node:fs";
