/** Pages of HTML with nothing to load from elsewhere: they read on light and dark screens, wide and narrow. */

const STYLE = `
:root { color-scheme: light dark; }
body { font: 15px/1.5 system-ui, sans-serif; max-width: 760px; margin: 2rem auto; padding: 0 1rem; }
h1 { overflow-wrap: anywhere; }
table { border-collapse: collapse; width: 100%; margin: 1rem 0; }
th, td { text-align: left; vertical-align: top; padding: .2rem .8rem .2rem 0; border-bottom: 1px solid #8884; }
th { font-weight: normal; opacity: .75; white-space: nowrap; width: 15rem; }
td { overflow-wrap: anywhere; }
pre { white-space: pre-wrap; overflow-wrap: anywhere; border: 1px solid #8884; padding: .6rem .8rem; }
.grid { font-variant-numeric: tabular-nums; }
.grid th { width: auto; }
.grid td, .grid th { display: table-cell; }
.scroll { overflow-x: auto; }
.scroll svg { min-width: 640px; }
.pair { display: grid; grid-template-columns: repeat(auto-fit, minmax(min(100%, 340px), 1fr)); gap: 0 1rem; }
pre span, mark { unicode-bidi: isolate; }
mark { background: #5a9e4b40; color: inherit; border-bottom: 2px solid #5a9e4b; }
svg { width: 100%; height: auto; margin-bottom: 1rem; }
svg text { fill: currentColor; }
.changed { font-weight: bold; }
@media (max-width: 600px) {
  th, td { display: block; width: auto; padding-right: 0; }
  th { border-bottom: none; padding-bottom: 0; white-space: normal; }
  td { padding-top: 0; }
  .grid td, .grid th { padding: .2rem .8rem .2rem 0; }
  svg text { font-size: 20px; }
  .pair svg text { font-size: 13px; }
}
`;

/** A page. It has no scripts; `body` is HTML already. */
export function page(title: string, body: readonly string[]): string {
  return [
    `<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">`,
    `<meta name="viewport" content="width=device-width, initial-scale=1">`,
    `<title>${escape(title)}</title>\n<style>${STYLE}</style>\n</head>\n<body>`,
    `<h1>${escape(title)}</h1>`,
    ...body,
    "</body>\n</html>\n",
  ].join("\n");
}

/** A name and its value; one that is changed is bold. */
export type Row = readonly [name: string, value: string, isChanged?: boolean];

/** Names and values. */
export function table(rows: readonly Row[]): string {
  const body = rows.map(([name, value, isChanged]) =>
    `<tr><th scope="row">${escape(name)}</th><td${isChanged ? ' class="changed"' : ""}>${
      escape(value)
    }</td></tr>`
  );
  return `<table>\n${body.join("\n")}\n</table>`;
}

/** Rows of cells below a row of their names. */
export function grid(names: readonly string[], rows: readonly (readonly string[])[]): string {
  const head = names.map((name) => `<th scope="col">${escape(name)}</th>`).join("");
  const body = rows.map((row) => `<tr>${row.map((cell) => `<td>${escape(cell)}</td>`).join("")}</tr>`);
  return `<div class="scroll"><table class="grid">\n<tr>${head}</tr>\n${body.join("\n")}\n</table></div>`;
}

/** `2026-11-26 14:30 UTC` */
export function dateText(iso: string): string {
  return `${iso.slice(0, 16).replace("T", " ")} UTC`;
}

/** Text as it stands in HTML and SVG, attributes included. */
export function escape(text: string): string {
  return text.replaceAll("&", "&amp;").replaceAll("<", "&lt;").replaceAll(">", "&gt;").replaceAll(
    `"`,
    "&quot;",
  );
}
