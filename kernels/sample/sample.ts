import { GpuError } from "../errors.ts";
import type { Gpu } from "../gpu.ts";
import { requireVector, rowQuadsOf } from "../shared/grid.ts";
import threefryWgsl from "../shared/threefry.wgsl" with { type: "text" };
import reduceWgsl from "../shared/reduce.wgsl" with { type: "text" };
import type { Tensor } from "../tensor.ts";
import sampleWgsl from "./sample.wgsl" with { type: "text" };

/** Threads that share a row of logits. */
const LANES = 256;

const SAMPLE = {
  name: "sample",
  wgsl: sampleWgsl,
  libraries: [reduceWgsl, threefryWgsl],
  constants: { LANES },
};

/** Written in place of a token where logits are NaN. */
export const NO_TOKEN = 0xffffffff;

/** Settings by which the next token is picked. */
export interface Sampling {
  /** Divides the logits; 0 takes the likeliest token. */
  readonly temperature: number;
  /** Only so many of the likeliest tokens; 0 for all. */
  readonly topK: number;
  /** Only the likeliest tokens that make up this share of the probability; 1 for all. */
  readonly topP: number;
  /** Only tokens at least this many times as likely as the likeliest; 0 for all. */
  readonly minP: number;
  /** Divides positive logits of tokens that were seen, and multiplies negative ones; 1 for none. */
  readonly repetitionPenalty: number;
  /** A whole number from 0 to 2^32 - 1: the same gives the same tokens. */
  readonly seed: number;
}

/** The last token of each sequence, on the device. */
export interface LastTokens {
  /** (rows) u32, their ids. */
  readonly tokens: Tensor;
  /** (rows) u32, their positions. */
  readonly positions: Tensor;
  /** (rows, V / 32 rounded up) u32: a bit for each token that was seen. */
  readonly seen: Tensor;
}

/**
 * Picks the next token of each sequence, makes it the sequence's last, and keeps it in `drawn`; nothing is read back.
 *
 * @param logits (rows, V rounded up to a multiple of 4) f32; overwritten
 * @param last overwritten: the new tokens, their positions, and that they were seen
 * @param options.drawn (steps * rows) u32; step `options.step` gets the new tokens, {@linkcode NO_TOKEN} where logits
 *   are NaN
 * @throws {GpuError} if shapes or types do not fit
 */
export function sample(
  gpu: Gpu,
  logits: Tensor,
  last: LastTokens,
  sampling: Sampling,
  { vocabSize, drawn, step }: { readonly vocabSize: number; readonly drawn: Tensor; readonly step: number },
): void {
  const rows = logits.rows;
  const quads = rowQuadsOf(logits);
  requireVector("sample", last.tokens, rows, "u32");
  requireVector("sample", last.positions, rows, "u32");
  const fits = logits.dtype === "f32" && quads === Math.ceil(vocabSize / 4) && vocabSize < 2 ** 24 &&
    last.seen.dtype === "u32" && last.seen.size === rows * Math.ceil(vocabSize / 32) &&
    drawn.dtype === "u32" && (step + 1) * rows <= drawn.size;
  if (!fits) {
    throw new GpuError(
      `Cannot apply sample: logits [${logits.shape}] ${logits.dtype}, seen [${last.seen.shape}] and drawn ` +
        `[${drawn.shape}] do not fit ${vocabSize} tokens and step ${step}`,
    );
  }
  const greedy = sampling.temperature === 0;
  const { tokens, positions, seen } = last;
  gpu.run(SAMPLE, { logits, tokens, positions, seen, drawn }, {
    grid: [rows],
    constants: {
      GREEDY: greedy,
      TURNS: Math.max(1, Math.ceil(Math.log(quads) / Math.log(LANES) - 1e-9)),
    },
    uniforms: {
      quads,
      vocab_size: vocabSize,
      first_drawn: step * rows,
      seed: sampling.seed,
      penalty: sampling.repetitionPenalty,
      temperature: greedy ? 1 : sampling.temperature,
      top_k: sampling.topK,
      top_p: sampling.topP,
      min_p: sampling.minP,
    },
  });
}
