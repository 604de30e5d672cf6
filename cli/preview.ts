/** Training data as people see it before a run: one sequence with what is learnt marked, and how long all are. */
import { formatCount } from "../text.ts";
import { type DataPreview, type PreviewPart, shownParts } from "../data/preview.ts";
import { ownColour } from "./visible.ts";

const BAR = 24;

/** Learnt text is green, or between `[[` and `]]` where there are no colours. */
export function formatPreview(preview: DataPreview, color: boolean): string {
  const { kind, firstTargets, lastTargets, lengths } = preview;
  const most = Math.max(...lengths.map(({ samples }) => samples));
  const all = lengths.reduce((sum, { samples }) => sum + samples, 0);
  const sequences = `${formatCount(all)} ${all === 1 ? "sequence" : "sequences"}`;
  const taken = kind === "text" ? "a text that is learnt whole" : "prompts with answers to learn";
  const tokens = (texts: readonly string[]) => texts.map((text) => JSON.stringify(text)).join(" ");
  const bars = lengths.map(({ upTo, samples }) =>
    `  up to ${formatCount(upTo).padStart(9)} tokens ${formatCount(samples).padStart(8)} ${
      "#".repeat(Math.ceil(BAR * samples / most))
    }`.trimEnd()
  );
  return [
    `The ${all === 1 ? "only sequence" : `first of ${sequences}`}, taken as ${taken}; what is learnt is ${
      color ? "green" : "in [[ ]]"
    }:`,
    shownParts(preview).map((part) => mark(part, color)).join(""),
    `Learnt first: ${tokens(firstTargets)}; last: ${tokens(lastTargets)}`,
    `${sequences} by length:`,
    ...bars,
  ].join("\n");
}

/** Shows control characters as marks. */
function mark({ text, isTarget }: PreviewPart, color: boolean): string {
  // deno-lint-ignore no-control-regex
  const shown = text.replace(/[\u0000-\u0009\u000b-\u001f\u007f-\u009f]/g, "\ufffd");
  if (!color) return isTarget ? `[[${shown}]]` : shown;
  return ownColour(isTarget ? 32 : 2) + shown + ownColour(0);
}
