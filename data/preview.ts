/** What training data looks like to the model, to be seen before hours are spent on it. */
import { NO_TARGET } from "./encode.ts";
import type { Sample } from "./dataset.ts";
import type { Tokenizer } from "./tokenizer.ts";

/** A stretch of a sample: tokens that are all learnt, or all given. */
export interface PreviewPart {
  readonly text: string;
  readonly isTarget: boolean;
}

export interface DataPreview {
  /** The first sample. */
  readonly parts: readonly PreviewPart[];
  /** Its first and last target tokens, each as text. */
  readonly firstTargets: readonly string[];
  readonly lastTargets: readonly string[];
  /** Whether there are answers to learn, and not one of them with its end. */
  readonly neverEnds: boolean;
  /** Samples by their tokens: each bin holds those up to `upTo`. */
  readonly lengths: readonly { readonly upTo: number; readonly samples: number }[];
}

/** Tokens that end a turn or a text, in the models people train. */
const END_TOKENS = [
  "</s>",
  "<|end_of_text|>",
  "<|eot_id|>",
  "<|im_end|>",
  "<|endoftext|>",
  "<|end|>",
  "<end_of_turn>",
];
const TARGETS_SHOWN = 6;
const BINS = 8;

/** Looks at samples as the model will see them. */
export function previewData(samples: readonly Sample[], tokenizer: Tokenizer): DataPreview {
  const [first] = samples;
  const targets = first ? [...first.inputIds].filter((_, i) => isTarget(first, i)) : [];
  const shown = (ids: readonly number[]) => ids.map((id) => tokenizer.decode([id], { skipSpecial: false }));
  const ends = new Set([tokenizer.eosId, ...END_TOKENS.flatMap((token) => tokenizer.tokenId(token) ?? [])]);
  return {
    parts: first ? partsOf(first, tokenizer) : [],
    firstTargets: shown(targets.slice(0, TARGETS_SHOWN)),
    lastTargets: shown(targets.slice(-TARGETS_SHOWN)),
    neverEnds: samples.some(hasPrompt) &&
      !samples.some((sample) => sample.labels.some((label, i) => i > 0 && ends.has(label))),
    lengths: histogram(samples.map(({ inputIds }) => inputIds.length)),
  };
}

function hasPrompt({ labels }: Sample): boolean {
  return labels.length > 1 && labels[1] === NO_TARGET;
}

/** The first token has nothing before it, so it is never learnt. */
function isTarget({ labels }: Sample, i: number): boolean {
  return i > 0 && labels[i] !== NO_TARGET;
}

function partsOf(sample: Sample, tokenizer: Tokenizer): PreviewPart[] {
  const parts: PreviewPart[] = [];
  let start = 0;
  for (let i = 1; i <= sample.inputIds.length; i++) {
    if (i < sample.inputIds.length && isTarget(sample, i) === isTarget(sample, start)) continue;
    const text = tokenizer.decode(sample.inputIds.subarray(start, i), { skipSpecial: false });
    parts.push({ text, isTarget: isTarget(sample, start) });
    start = i;
  }
  return parts;
}

function histogram(lengths: readonly number[]): { upTo: number; samples: number }[] {
  const longest = lengths.reduce((most, length) => Math.max(most, length), 0);
  const width = Math.max(1, Math.ceil(longest / BINS));
  const counts = new Array<number>(Math.ceil(longest / width)).fill(0);
  for (const length of lengths) counts[Math.ceil(length / width) - 1]!++;
  return counts.map((samples, i) => ({ upTo: (i + 1) * width, samples }));
}
