/** Which name was meant by a misspelt one. It stands apart from text.ts because it needs a library. */
import { distance } from "fastest-levenshtein";

/**
 * The name in `names` most like `wrong`: the only one that begins with it, or one of which at most a third of the
 * longer name's letters differ. `null` when none is near enough.
 */
export function nearest(wrong: string, names: readonly string[]): string | null {
  if (wrong.length > 64) return null;
  const [longer, ...others] = wrong.length < 3 ? [] : names.filter((name) => name.startsWith(wrong));
  if (longer !== undefined && others.length === 0) return longer;
  let best: { name: string; share: number } | null = null;
  for (const name of names) {
    const edits = distance(wrong.toLowerCase(), name);
    const length = Math.max(wrong.length, name.length);
    const share = edits / length;
    if (edits <= Math.max(2, Math.floor(length / 3)) && share < (best?.share ?? 1)) best = { name, share };
  }
  return best?.name ?? null;
}

/** Whether a key that somebody wrote is `key` but for case, space around it, and two letters at most. */
export function isMisspelt(written: string, key: string): boolean {
  return distance(key, written.trim().toLowerCase()) <= 2;
}
