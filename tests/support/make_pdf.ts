/** A piece of text of a page, in points from the lower left corner. */
export interface PlacedText {
  readonly text: string;
  readonly x: number;
  readonly y: number;
  readonly size?: number;
  /** F1 is Helvetica, F3 Courier. */
  readonly font?: "F1" | "F3";
}

/** A PDF of letter size with the given text on its pages, and if asked for one black dot as an image on each. */
export function makePdf(
  pages: readonly (readonly PlacedText[])[],
  { image = false } = {},
): Uint8Array<ArrayBuffer> {
  const objects = ["<< /Type /Catalog /Pages 2 0 R >>", ""];
  const add = (body: string) => objects.push(body);
  const font = (name: string) =>
    add(`<< /Type /Font /Subtype /Type1 /BaseFont /${name} /Encoding /WinAnsiEncoding >>`);
  const fonts = `<< /F1 ${font("Helvetica")} 0 R /F3 ${font("Courier")} 0 R >>`;
  const dot = add(
    "<< /Type /XObject /Subtype /Image /Width 1 /Height 1 /ColorSpace /DeviceGray /BitsPerComponent 8 /Length 1 >>\n" +
      "stream\n0\nendstream",
  );
  const kids = pages.map((items) => {
    const shown = items.map(({ text, x, y, size = 10, font = "F1" }) =>
      `BT /${font} ${size} Tf ${x} ${y} Td (${text.replace(/[()\\]/g, "\\$&")}) Tj ET`
    );
    if (image) shown.push("q 600 0 0 700 0 0 cm /I1 Do Q");
    const stream = shown.join("\n");
    const content = add(`<< /Length ${stream.length} >>\nstream\n${stream}\nendstream`);
    return add(
      `<< /Type /Page /Parent 2 0 R /MediaBox [0 0 612 792] /Contents ${content} 0 R ` +
        `/Resources << /Font ${fonts} /XObject << /I1 ${dot} 0 R >> >> >>`,
    );
  });
  objects[1] = `<< /Type /Pages /Kids [${
    kids.map((kid) => `${kid} 0 R`).join(" ")
  }] /Count ${kids.length} >>`;
  let file = "%PDF-1.4\n";
  const offsets = objects.map((body, i) => {
    const offset = file.length;
    file += `${i + 1} 0 obj\n${body}\nendobj\n`;
    return `${String(offset).padStart(10, "0")} 00000 n \n`;
  });
  const table = file.length;
  file += `xref\n0 ${objects.length + 1}\n0000000000 65535 f \n${offsets.join("")}` +
    `trailer\n<< /Size ${objects.length + 1} /Root 1 0 R >>\nstartxref\n${table}\n%%EOF\n`;
  return new TextEncoder().encode(file);
}
