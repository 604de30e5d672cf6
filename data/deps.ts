/** The built-in modules that this folder uses, in one place so that they can be exchanged. */
export { createHash, type Hash } from "node:crypto";
export { pipeline, Readable } from "node:stream";
export { brotliDecompressSync, createGunzip, gunzipSync, zstdDecompressSync } from "node:zlib";
