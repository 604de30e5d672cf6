/** The longest sequence that fits in a device's memory, found by dry runs. */
import type { ModelConfig } from "../../model/model_config.ts";
import type { TrainArgs } from "../../train_args/schema.ts";
import { resolvePlacement } from "./placement.ts";
import { stepCost, type StepOptions, TYPICAL_DEVICE } from "./step_cost.ts";

/** Lengths are whole multiples of this, and may be this share shorter than what would just fit. */
const RESOLUTION = { tokens: 16, share: 1 / 256 };
/** Share of a length at which the search for it ends. */
const PRECISION = 1 / 64;
/** Dry runs to find a length with, at most. */
const ROUNDS = 10;

/** Options of {@linkcode longestContext}. */
export interface LongestOptions extends Pick<StepOptions, "device"> {
  /** A length that does not fit, or is not of interest. */
  readonly below?: number;
}

/**
 * Finds the longest sequence that fits, in tokens, rounded down a little; 0 if none does.
 * @param memoryBytes that may be used on the device
 */
export async function longestContext(
  args: TrainArgs,
  base: ModelConfig,
  memoryBytes: number,
  { below = 2 ** 22, device = TYPICAL_DEVICE }: LongestOptions = {},
): Promise<number> {
  // All that may go to the host goes there: it fits longest.
  const { placement } = await resolvePlacement({ ...args, ...lengthChange(args, 64) }, base, 0, { device });
  const peakOf = async (length: number, layers = base.num_hidden_layers) => {
    const changed = { ...args, ...lengthChange(args, length) };
    const config = { ...base, num_hidden_layers: layers };
    return (await stepCost(changed, config, { device, placement })).peak;
  };
  // Every layer adds the same, so a few tell how much is in use with all; what is kept for reuse is seen afterwards.
  const estimate = async (length: number) => {
    if (base.num_hidden_layers <= FEW_LAYERS) return (await peakOf(length)).liveBytes;
    const [some, more] = [await peakOf(length, FEW_LAYERS - 1), await peakOf(length, FEW_LAYERS)];
    return more.liveBytes + (more.liveBytes - some.liveBytes) * (base.num_hidden_layers - FEW_LAYERS);
  };
  const excessOf = async (length: number) => (await peakOf(length)).heldBytes - memoryBytes;
  let low = 0;
  let high = below;
  let guess = await longestLength(estimate, memoryBytes, below);
  for (let round = 0; round < ROUNDS && guess > low && guess < high; round++) {
    const excess = await excessOf(guess);
    if (excess <= 0) low = guess;
    else high = guess;
    // After the first guess, less what is too much, and then between the two.
    if (high === below || high - low <= low * PRECISION) break;
    if (low > 0) guess = roundDown((low + high) / 2);
    else {guess = Math.min(
        await longestLength(estimate, memoryBytes - excess, high),
        roundDown(high * 15 / 16),
      );}
  }
  for (let found = low; found > 0; low = found) {
    found = await longerThan(low, below, excessOf);
    if (found === low) break;
  }
  return low;
}

/** Longer sequences to try, as shares of the longest that fits so far, from the longest on. */
const LONGER = [4 / 32, 3 / 32, 2 / 32, 1 / 32];

/**
 * Gives a longer sequence that fits, or `low`, which does. What does not fit at one length may fit at a longer one: buffers
 * that wait for reuse grow and shrink with it.
 * @param excessOf bytes of a length beyond what there is
 */
async function longerThan(
  low: number,
  below: number,
  excessOf: (length: number) => Promise<number>,
): Promise<number> {
  let longest = low;
  let high = below;
  for (const share of LONGER) {
    const length = roundDown(low * (1 + share));
    if (length <= low || length >= high) continue;
    if (await excessOf(length) <= 0) {
      longest = length;
      break;
    }
    high = length;
  }
  while (longest > low && high < below && high - longest > longest * PRECISION) {
    const length = roundDown((longest + high) / 2);
    if (length === longest) break;
    if (await excessOf(length) <= 0) longest = length;
    else high = length;
  }
  return longest;
}

function roundDown(length: number): number {
  return Math.max(1, Math.floor(length / RESOLUTION.tokens)) * RESOLUTION.tokens;
}

/** Layers of the model that lengths are tried with. */
const FEW_LAYERS = 3;

/** Finds the longest length with at most `maxBytes`; `bytes` is nearly a straight line over the length. */
async function longestLength(
  bytes: (length: number) => Promise<number>,
  maxBytes: number,
  below: number,
): Promise<number> {
  const at = async (length: number) => ({ length, bytes: await bytes(length) });
  let [before, last] = [await at(Math.min(64, below - 2)), await at(Math.min(4096, below - 1))];
  if (before.bytes > maxBytes) return 0;
  let best = last.bytes <= maxBytes ? last.length : before.length;
  let aim = maxBytes;
  for (let round = 0; round < ROUNDS; round++) {
    const perToken = (last.bytes - before.bytes) / (last.length - before.length);
    const end = Math.min(last.length + (aim - last.bytes) / perToken, below - 1);
    const length = roundDown(end);
    const isFound = length >= best && length <= best * (1 + RESOLUTION.share);
    if (isFound || length === last.length) break;
    [before, last] = [last, await at(length)];
    if (last.bytes <= maxBytes) best = Math.max(best, length);
    else aim -= maxBytes * RESOLUTION.share / 4;
  }
  return best;
}

/** Changes the length of sequences; the context that the model is extended to and its groups stay what they are if they can. */
export function lengthChange(args: TrainArgs, length: number): Partial<TrainArgs> {
  return {
    max_seq_length: length,
    ...(args.model_max_length < length ? { model_max_length: length } : {}),
    ...(args.group_size !== null && args.group_size > length ? { group_size: length } : {}),
  };
}
