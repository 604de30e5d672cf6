/** What samples look like: for tests of what is learnt. */
import type { Tokenizer } from "../../data/tokenizer.ts";

/** A sequence as text, what is learnt between `[[` and `]]`, as the preview of a run shows it. */
export function marked(
  tokenizer: Tokenizer,
  { ids, labels }: { readonly ids: ArrayLike<number>; readonly labels: ArrayLike<number> },
): string {
  let text = "";
  let open = false;
  Array.from(ids).forEach((id, i) => {
    const isTarget = i > 0 && labels[i] !== -100;
    if (isTarget !== open) text += isTarget ? "[[" : "]]";
    open = isTarget;
    text += tokenizer.decode([id], { skipSpecial: false });
  });
  return text + (open ? "]]" : "");
}
