/** Libraries that rooms share nothing of. */
export { deserialize, serialize } from "node:v8";
