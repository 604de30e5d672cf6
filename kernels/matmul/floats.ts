import type { Format } from "../wgsl.ts";

/** Format of decoded weights beside operands in `format`: work in 16 bits gets f16, in f32 nothing is rounded. */
export function floatsOf(format: Format): Format {
  return format === "f32" ? "f32" : "f16";
}
