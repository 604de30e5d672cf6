/** Text of files as a terminal may have it: what would steer it is shown instead, and what has no end is cut. */

/** Controls of the terminal, and marks that reorder what is shown; line ends and tabs are text. */
const STEERING =
  // deno-lint-ignore no-control-regex
  /[\u0000-\u0008\u000b-\u001f\u007f-\u009f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069]/g;

/** Mark that tells our own colours from those in a file: nobody can guess it. */
const SECRET = crypto.getRandomValues(new Uint32Array(4)).join("");

/** Begins or ends a colour or weight by its number in ECMA-48; {@linkcode visible} lets it pass. */
export function ownColour(code: number): string {
  return `\u001b[${SECRET};${code}m`;
}

const COLOUR = `\\u001b\\[${SECRET};(\\d+)m`;
/** Our own controls of a terminal: the colours of `paint`, and clearing a line that is drawn again. */
const OWN = {
  colours: new RegExp(COLOUR, "g"),
  drawing: new RegExp(`${COLOUR}|\\u001b\\[2?K|\\r`, "g"),
} as const;

const LONGEST = { line: 2000, text: 20_000 } as const;

/** A mark as text: `\x1b`, and the form that JSON knows too above ASCII. */
function escape(mark: string): string {
  const code = mark.charCodeAt(0);
  return code < 0x20
    ? `\\x${code.toString(16).padStart(2, "0")}`
    : `\\u${code.toString(16).padStart(4, "0")}`;
}

/**
 * `text` with everything that steers a terminal written out.
 * @param own what of it is ours and stays; nothing unless given
 */
export function visible(text: string, own?: keyof typeof OWN): string {
  const clean = (part: string) => part.replaceAll("\r\n", "\n").replace(STEERING, escape);
  if (own === undefined) return clean(text);
  let shown = "";
  let at = 0;
  for (const match of text.matchAll(OWN[own])) {
    shown += clean(text.slice(at, match.index)) + (match[1] ? `\u001b[${match[1]}m` : match[0]);
    at = match.index + match[0].length;
  }
  return shown + clean(text.slice(at));
}

/** Removes the colours from what {@linkcode visible} gave. */
export function withoutColours(text: string): string {
  // deno-lint-ignore no-control-regex
  return text.replace(/\u001b\[\d+m/g, "");
}

/** `text` with lines broken between words to fit into `columns`; what follows stands under the line's own beginning. */
export function wrapped(text: string, columns: number): string {
  return text.split("\n").flatMap((line) => {
    if (withoutColours(line).length <= columns) return [line];
    const indent = " ".repeat(Math.min(/^ */.exec(line)![0].length + 2, columns / 2));
    const lines: string[] = [];
    let rest = "";
    for (const word of line.split(/(?<=[^ ] +)(?=[^ ])/)) {
      if (rest.trim() !== "" && withoutColours(rest + word).trimEnd().length > columns) {
        lines.push(rest.trimEnd());
        rest = indent;
      }
      rest += word;
    }
    return [...lines, rest];
  }).join("\n");
}

/** `text` with its middle left out where it, or a line of it, is longer than anybody reads. */
export function shortened(text: string): string {
  const lines = text.split("\n").map((line) => withoutMiddle(line, LONGEST.line)).join("\n");
  return withoutMiddle(lines, LONGEST.text);
}

function withoutMiddle(text: string, most: number): string {
  if (text.length <= most) return text;
  const [start, end] = [Math.floor(0.75 * most), Math.floor(0.15 * most)];
  return `${text.slice(0, start)} ... ${text.length - start - end} characters left out ... ${
    text.slice(-end)
  }`;
}
