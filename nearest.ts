/** The name that was meant where one was mistyped. */
import { distance } from "fastest-levenshtein";

/**
 * Finds the name in `names` most like `wrong`, or `null` when none is near enough to be what was meant: it is the only one
 * that begins so, or at most a third of the longer name's letters differ.
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
