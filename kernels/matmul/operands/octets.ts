/** WGSL by which tiles on matrix units read their operands: octets (eight elements) along the depth. */
import type { Elements, Layout, Pieces } from "../../weight.ts";
import innerLinesWgsl from "./inner_lines.wgsl" with { type: "text" };
import innerWgsl from "./inner_matrix.wgsl" with { type: "text" };
import linesAWgsl from "./lines_a_matrix.wgsl" with { type: "text" };
import linesBWgsl from "./lines_b_matrix.wgsl" with { type: "text" };
import maskedWgsl from "./masked_matrix.wgsl" with { type: "text" };
import maskedTurnedWgsl from "./masked_turned_matrix.wgsl" with { type: "text" };
import octetsWgsl from "./octets_matrix.wgsl" with { type: "text" };
import quadsWgsl from "./quads_matrix.wgsl" with { type: "text" };
import turned16Wgsl from "./turned_16_matrix.wgsl" with { type: "text" };
import turnedF32Wgsl from "./turned_f32_matrix.wgsl" with { type: "text" };

/** Bindings of the operands of an inner product (pair 0), and of the product itself. */
const BINDINGS = [{ a: 11, b: 12 }, { a: 0, b: 2 }] as const;

/** Where the lines of an operand lie. */
export interface Lines extends Elements {
  /** Whether its lines in memory are the depth, else its rows or columns. */
  readonly isTurned: boolean;
  /** Elements from one line to the next. */
  readonly width: number;
}

/** Pieces that read operand A or a dense operand B. */
export function octetPieces(operand: "a" | "b", lines: Lines): Pieces {
  const isScaled = lines.format !== "f16";
  const read = piecesOf(operand, 1, lines);
  return {
    ...(operand === "a" ? { libraries: [linesAWgsl, ...read], constants: { A_SCALED: isScaled } } : {
      libraries: [linesBWgsl, ...read, "fn b_begin(thread: u32) {}"],
      constants: { B_SCALED: isScaled },
    }),
    ...(lines.format !== "f32" && !lines.isTurned && !isWhole(lines) && { name: `${operand}_by_quads` }),
  };
}

/** Pieces that read both operands of an inner product. */
export function innerOctetPieces(layout: Layout): Pieces {
  const lines: Lines = { format: "f32", isTurned: false, width: 0, first: 0, step: 0 };
  return {
    libraries: [
      innerLinesWgsl,
      innerWgsl,
      ...piecesOf("a", 0, lines),
      ...piecesOf("b", 0, { ...lines, isTurned: layout !== "nt" }),
    ],
    constants: { B_ALONG: layout === "nt" },
  };
}

/** Whether lines are whole octets, in an operand of 16 bits with lines along the depth. */
function isWhole({ width, first, step }: Lines): boolean {
  return [width, first, step].every((elements) => elements % 8 === 0);
}

/** Pieces that read an operand of the inner product (pair 0) or of the product itself (pair 1). */
function piecesOf(operand: "a" | "b", pair: 0 | 1, lines: Lines): string[] {
  const { format, isTurned } = lines;
  const read = isTurned
    ? format === "f32" ? turnedF32Wgsl : turned16Wgsl
    : format === "f32" || !isWhole(lines)
    ? quadsWgsl
    : octetsWgsl;
  return [read, isTurned ? maskedTurnedWgsl : maskedWgsl].map((text) =>
    text
      .replaceAll("binding_of_operand", String(BINDINGS[pair][operand]))
      .replaceAll("$pair", String(pair))
      // Names, not the word in comments.
      .replaceAll(/\boperand(?=[[:])/g, pair === 0 ? `inner_${operand}` : operand)
      .replaceAll(/\boperand(?=_)/g, operand)
      .replaceAll("Operand", operand.toUpperCase())
      .replaceAll("OPERAND", operand.toUpperCase())
  );
}
