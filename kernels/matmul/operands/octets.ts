/** WGSL by which tiles on matrix units read their operands: octets (eight elements) along the depth. */
import type { Format } from "../../wgsl.ts";
import linesAWgsl from "./lines_a_matrix.wgsl" with { type: "text" };
import linesBWgsl from "./lines_b_matrix.wgsl" with { type: "text" };
import octetsWgsl from "./octets_matrix.wgsl" with { type: "text" };
import quadsWgsl from "./quads_matrix.wgsl" with { type: "text" };
import turned16Wgsl from "./turned_16_matrix.wgsl" with { type: "text" };
import turnedF32Wgsl from "./turned_f32_matrix.wgsl" with { type: "text" };

/** Where an operand lies. */
export interface Lines {
  readonly format: Format;
  /** Whether its lines in memory are the depth, else its rows or columns. */
  readonly isTurned: boolean;
  /** Elements from one line to the next, and before the first that takes part. */
  readonly width: number;
  readonly first: number;
}

/** Pieces that read operand A or a dense operand B. */
export function octetPieces(operand: "a" | "b", { format, isTurned, width, first }: Lines): string[] {
  const isWhole = width % 8 === 0 && first % 8 === 0;
  const text = isTurned
    ? format === "f32" ? turnedF32Wgsl : turned16Wgsl
    : isWhole && format !== "f32"
    ? octetsWgsl
    : quadsWgsl;
  const named = text
    .replaceAll("binding_of_operand", operand === "a" ? "0" : "2")
    // Names, not the word in comments.
    .replaceAll(/\boperand(?=[_[:])/g, operand)
    .replaceAll("Operand", operand.toUpperCase())
    .replaceAll("OPERAND", operand.toUpperCase());
  return operand === "a" ? [linesAWgsl, named] : [linesBWgsl, named, "fn b_begin(thread: u32) {}"];
}
