/** Preview of training data as the model sees it, to be read before hours are spent on it. */
import { NO_TARGET } from "./encode.ts";
import type { Sample } from "./sample.ts";
import type { Tokenizer } from "./tokenizer.ts";

/** A stretch of a sample: tokens that are all learnt, or all given. */
export interface PreviewPart {
  /** Its text. */
  readonly text: string;
  /** Whether it is learnt. */
  readonly isTarget: boolean;
}

/** A sample, and the lengths of all. */
export interface DataPreview {
  /** The first sample. */
  readonly parts: readonly PreviewPart[];
  /** Kind of the sample: a text that is learnt whole, or prompts whose answers the model learns. */
  readonly kind: "text" | "answers";
  /** Its first target tokens, each as text. */
  readonly firstTargets: readonly string[];
  /** Its last target tokens, each as text. */
  readonly lastTargets: readonly string[];
  /** Whether there are answers to learn, and not one of them with its end. */
  readonly neverEnds: boolean;
  /** Samples by their tokens: each bin holds those up to `upTo` that the one before does not; the first is not empty. */
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
/** Lengths are told in as many bins at most. */
const BINS = 8;
/** Characters shown at each end of a long stretch; within a sample half of them. */
const SHOWN = 160;
/** Stretches shown at each end of a sample that has more. */
const PARTS_SHOWN = 8;

/** Looks at samples as the model will see them. */
export function previewData(samples: readonly Sample[], tokenizer: Tokenizer): DataPreview {
  const [first] = samples;
  const targets = first ? [...first.inputIds].filter((_, i) => isTarget(first, i)) : [];
  const shown = (ids: readonly number[]) => ids.map((id) => tokenizer.decode([id], { skipSpecial: false }));
  const ends = new Set([tokenizer.eosId, ...END_TOKENS.flatMap((token) => tokenizer.tokenId(token) ?? [])]);
  return {
    parts: first ? partsOf(first, tokenizer) : [],
    kind: first && hasPrompt(first) ? "answers" : "text",
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

/** The first sample, short enough to be looked at: the middles of long stretches, and of many, are left out. */
export function shownParts({ parts }: DataPreview): PreviewPart[] {
  const short = ({ text, isTarget }: PreviewPart, i: number) => ({
    text: withoutMiddle(text, i === 0 || i === parts.length - 1 ? SHOWN : SHOWN / 2),
    isTarget,
  });
  const shown = parts.map(short);
  const left = parts.length - 2 * PARTS_SHOWN;
  if (left <= 1) return shown;
  const middle = { text: `\n... ${left.toLocaleString("en-US")} stretches ...\n`, isTarget: false };
  return [...shown.slice(0, PARTS_SHOWN), middle, ...shown.slice(-PARTS_SHOWN)];
}

function withoutMiddle(text: string, ends: number): string {
  const left = text.length - 2 * ends;
  if (left <= 40) return text;
  return `${text.slice(0, ends)} ... ${left.toLocaleString("en-US")} characters ... ${text.slice(-ends)}`;
}

/** Counts by lengths of a power of two, so that bins end at round numbers: 64, 128, 192. */
function histogram(lengths: readonly number[]): DataPreview["lengths"] {
  const longest = lengths.reduce((most, length) => Math.max(most, length), 0);
  const width = 2 ** Math.ceil(Math.log2(Math.max(1, longest / BINS)));
  const counts = new Array<number>(Math.ceil(longest / width)).fill(0);
  for (const length of lengths) counts[Math.ceil(length / width) - 1]!++;
  return counts.map((samples, i) => ({ upTo: (i + 1) * width, samples }))
    .slice(counts.findIndex((samples) => samples > 0));
}
