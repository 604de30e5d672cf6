import { UserError } from "../errors.ts";

/**
 * Starts of the windows of sliding-window perplexity, exactly as LongLoRA's scripts take them: 0, W, 2W ... while the
 * start is below `numTokens - seqLen` (one token more than a window is needed), and, in the single-process protocol, without
 * the last of these.
 *
 * @param numTokens length of the data, in tokens
 * @param seqLen window length L, in tokens
 * @param slidingWindow step W between starts, in tokens
 * @param options.dropLastWindow true: `eval.py` of LongLoRA and LongQLoRA; false: `eval_distributed.py`
 * @throws {UserError} if a length is not a whole number above 0, or no window is left
 */
export function windowStarts(
  numTokens: number,
  seqLen: number,
  slidingWindow: number,
  { dropLastWindow }: { readonly dropLastWindow: boolean } = { dropLastWindow: true },
): number[] {
  for (const [name, value] of [["seq_len", seqLen], ["sliding_window", slidingWindow]] as const) {
    if (!(Number.isInteger(value) && value > 0)) {
      throw new UserError(`${name} must be a whole number of tokens above 0, got ${value}`, {
        kind: "usage",
      });
    }
  }
  const candidates = Math.max(0, Math.ceil((numTokens - seqLen) / slidingWindow));
  const count = dropLastWindow ? candidates - 1 : candidates;
  if (count > 0) return Array.from({ length: count }, (_, i) => i * slidingWindow);
  const needed = seqLen + 1 + (dropLastWindow ? slidingWindow : 0);
  throw new UserError(
    `Cannot cut windows of ${seqLen} tokens (seq_len) out of ${numTokens} tokens of data: at least ${needed} are needed` +
      (candidates === 1 ? `, as the last window is left out. Keep it with --no-drop_last_window` : ``) +
      `${candidates === 1 ? ", or lower" : ". Lower"} seq_len, or use more data`,
  );
}
