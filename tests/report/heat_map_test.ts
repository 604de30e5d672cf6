import { heatMap } from "../../report/heat_map.ts";
import { assert, assertEquals } from "../support/assert_close.ts";
import { assertIncludes } from "../support/text.ts";

const MAP = {
  title: "A <title>",
  caption: "percent",
  x: { name: "tokens", labels: ["64", "128"] },
  y: { name: "depth", labels: ["0 %", "100 %"] },
  values: [[0, 0.5], [1, null]],
  write: (value: number) => String(Math.round(100 * value)),
};

Deno.test("every cell has its number, a colour of its own and what it is of; text is legible on it", () => {
  const svg = heatMap(MAP);
  assertIncludes(svg, "A &lt;title&gt;");
  const cells = [
    ...svg.matchAll(
      /<g><title>([^<]*)<\/title><rect [^>]*fill="([^"]*)"[^>]*\/>(?:<text [^>]*fill:(#\w+)">(\w+)<)?/g,
    ),
  ];
  assertEquals(cells.map(([, where, fill, ink, text]) => [where, fill, ink, text]), [
    ["tokens 64, depth 0 %: 0", "rgb(179,88,6)", "#fff", "0"],
    ["tokens 128, depth 0 %: 50", "rgb(242,234,217)", "#000", "50"],
    ["tokens 64, depth 100 %: 100", "rgb(33,102,172)", "#fff", "100"],
    ["tokens 128, depth 100 %: not measured", "none", undefined, undefined],
  ]);
});

Deno.test("a picture that stands beside another is as wide as its cells, all of which are inside", () => {
  const widthOf = (svg: string) => Number(/viewBox="0 0 (\d+)/.exec(svg)![1]);
  const svg = heatMap({ ...MAP, leastWidth: 0 });
  const ends = [...svg.matchAll(/<rect x="([\d.]+)" y="[\d.]+" width="([\d.]+)"/g)]
    .map(([, x, width]) => Number(x) + Number(width));
  assertEquals([ends.length, widthOf(heatMap(MAP))], [4, 720]);
  assert(widthOf(svg) < 300 && Math.max(...ends) <= widthOf(svg), `width ${widthOf(svg)}, cells to ${ends}`);
});

Deno.test("many columns make the picture wider, labels that would overlap are left out, the last is there", () => {
  const labels = Array.from({ length: 40 }, (_, i) => String(100_000 + i));
  const svg = heatMap({
    ...MAP,
    x: { name: "tokens", labels },
    values: [labels.map(() => 1), labels.map(() => 0)],
  });
  const [, width] = /viewBox="0 0 (\d+)/.exec(svg)!;
  const at = [...svg.matchAll(/<text x="([\d.]+)" y="[\d.]+" text-anchor="middle"[^>]*>(1000\d\d)</g)];
  const places = at.map(([, x]) => Number(x));
  assert(Number(width) > 1400 && Math.max(...places) < Number(width), `width ${width}`);
  assert(places.every((x, i) => i === 0 || x - places[i - 1]! >= 6 * 8), "labels stand apart");
  assertEquals(at.at(-1)![2], "100039");
});
