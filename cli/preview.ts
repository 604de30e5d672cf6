/** Training data as people see it before a run: one sequence with what is learnt marked, and how long all are. */
import type { DataPreview, PreviewPart } from "../data/preview.ts";
import { formatCount } from "./format.ts";

/** Characters shown at each end of a long stretch. */
const SHOWN = 160;
const BAR = 24;

/** Learnt text is green, or between `[[` and `]]` where there are no colours. */
export function formatPreview(preview: DataPreview, color: boolean): string {
  const { parts, firstTargets, lastTargets, lengths } = preview;
  const most = Math.max(...lengths.map(({ samples }) => samples));
  const tokens = (texts: readonly string[]) => texts.map((text) => JSON.stringify(text)).join(" ");
  const bars = lengths.filter(({ samples }) => samples > 0).map(({ upTo, samples }) =>
    `  up to ${formatCount(upTo).padStart(9)} tokens ${formatCount(samples).padStart(8)} ${
      "#".repeat(Math.ceil(BAR * samples / most))
    }`
  );
  return [
    color ? "The first sequence, what is learnt in green:" : "The first sequence, what is learnt in [[ ]]:",
    parts.map((part, i) => mark(part, i === 0, i === parts.length - 1, color)).join(""),
    `Learnt first: ${tokens(firstTargets)}; last: ${tokens(lastTargets)}`,
    "Sequences by length:",
    ...bars,
  ].join("\n");
}

function mark({ text, isTarget }: PreviewPart, isFirst: boolean, isLast: boolean, color: boolean): string {
  const short = shorten(text, isFirst || isLast ? SHOWN : SHOWN / 2);
  if (!color) return isTarget ? `[[${short}]]` : short;
  return `\x1b[${isTarget ? 32 : 2}m${short}\x1b[0m`;
}

/** What steers a terminal is shown as text. */
function shorten(text: string, ends: number): string {
  const cut = text.length > 2 * ends + 40
    ? `${text.slice(0, ends)} ... ${formatCount(text.length - 2 * ends)} characters ... ${text.slice(-ends)}`
    : text;
  // deno-lint-ignore no-control-regex
  return cut.replace(/[\u0000-\u0009\u000b-\u001f\u007f-\u009f]/g, "\ufffd");
}
