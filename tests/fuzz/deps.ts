export { default as process } from "node:process";
export { gzipSync } from "node:zlib";
