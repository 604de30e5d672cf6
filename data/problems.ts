/** Problems in settings: where each one is, and the text that shows all of them at once. */
import { printable } from "../text.ts";

/** A place in the settings: in a file, or a flag. */
export interface Place {
  /** `train.yaml:12:3`, `train.yaml` or `--lora_rank`. */
  readonly label: string;
  /** The number and text of the file's line, and the column where the caret goes; both count from 1. */
  readonly source?: { readonly line: number; readonly text: string; readonly column: number };
}

/** One thing that is wrong: `message` follows the place, as in `train.yaml:3:1: lora_rnk: not an option`. */
export interface Problem {
  readonly place: Place;
  readonly message: string;
}

/** Longest piece of a source line that is shown, in characters. */
const SHOWN = 100;

/** Problems shown at once, at most: a file with more is not a settings file. */
const MAX_SHOWN = 25;

/** A problem of the option `name`: flags already say which option they are. */
export function problemOf(name: string, place: Place, message: string): Problem {
  return { place, message: place.label.startsWith("--") ? message : `${printable(name)}: ${message}` };
}

function render({ place, message }: Problem): string {
  const head = `${place.label}: ${message}`;
  if (!place.source) return head;
  const { text, column } = place.source;
  const start = Math.max(0, column - SHOWN + 10);
  const shown = printable(text.slice(start, start + SHOWN));
  return `${head}\n    ${shown}\n    ${" ".repeat(column - 1 - start)}^`;
}

/** Describes all problems of `what` in one text, in the order of the file. */
export function describeProblems(what: string, problems: readonly Problem[]): string {
  const line = ({ place }: Problem) => place.source?.line ?? Infinity;
  const ordered = problems.toSorted((a, b) => line(a) === line(b) ? 0 : line(a) - line(b));
  const count = problems.length === 1 ? "" : ` (${problems.length} problems)`;
  const shown = ordered.slice(0, MAX_SHOWN).map(render);
  if (ordered.length > MAX_SHOWN) shown.push(`and ${ordered.length - MAX_SHOWN} more`);
  return [`Cannot use ${what}${count}`, ...shown].join("\n");
}
