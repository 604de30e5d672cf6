import type { TrainInfo } from "../../train/hooks.ts";
import { curvePlot, smoothed } from "../../train/plot.ts";
import { reportHtml } from "../../train/report.ts";
import { loadTrainArgs } from "../../train_args/load.ts";
import { assert, assertEquals } from "../support/assert_close.ts";

const VOID = new Set(["meta"]);

/** Fails unless every element is closed in its turn and every `<` and `&` of the text is escaped. */
function assertWellFormed(html: string): void {
  const open: string[] = [];
  const rest = html.replace(/<!DOCTYPE html>/, "").replaceAll(/<style>[^<]*<\/style>/g, "");
  const text = rest.replace(
    /<(\/?)([a-z][a-z0-9]*)((?:\s[\w-]+="[^"<>]*")*)\s*(\/?)>/gi,
    (_, close, name, __, self) => {
      if (close) assertEquals(open.pop(), name, "closing tag");
      else if (!self && !VOID.has(name)) open.push(name);
      return "";
    },
  );
  assertEquals(open, [], "open elements");
  assert(
    !/[<>]|&(?!(amp|lt|gt|quot);)/.test(text),
    `unescaped text: ${/.{20}([<>]|&).{20}/.exec(text)?.[0]}`,
  );
}

const INFO: TrainInfo = {
  model: "a <b>model</b> & more",
  context: "256 -> 1,024 tokens",
  attention: "full attention",
  schedule: "1.0e-4, linear",
  seed: 42,
  outputDir: "out",
  tokensPerStep: 128,
  method: "LoRA rank 8 on 14 linears",
  data: "4 sequences",
  device: "a card",
  memory: "1 GiB",
  precision: "f32",
  trainableParameters: 1_000,
  totalParameters: 100_000,
  sequencesPerStep: 1,
  totalSteps: 10,
  totalEpochs: 1,
  startStep: 0,
};

Deno.test("report.html is one page that escapes what it is told and marks what was set", async () => {
  const { args } = await loadTrainArgs(null, {
    model_name_or_path: '"><script>alert(1)</script>',
    train_file: "rows.jsonl",
    output_dir: "out<put>",
    model_max_length: "128",
    lora_rank: "8",
  });
  const loss = (step: number) => ({
    epoch: step / 10,
    step,
    loss: 5 / step,
    grad_norm: 1,
    learning_rate: 1e-4,
  });
  const history = [1, 2, 3].flatMap((step) => [loss(step), { epoch: 0.1, step, eval_loss: 6 - step % 3 }]);
  const html = reportHtml({ args, info: INFO, history, last: undefined });
  assertWellFormed(html);
  assert(!html.includes("<script"), "no script");
  assert(!/\b(?:src|href)=|@import|url\(/.test(html), "nothing to load from elsewhere");
  assert(
    html.includes('<th scope="row">lora_rank</th><td class="changed">8</td>'),
    "a setting that was given",
  );
  assert(html.includes('<th scope="row">lora_alpha</th><td>16</td>'), "a default");
  assert(html.includes("4.0000 after step 2"), "the best evaluation");
  assertEquals(html.split("<svg").length - 1, 3, "plots");
  assertWellFormed(reportHtml({ args, info: INFO, history: [], last: undefined }));
});

Deno.test("curvePlot() keeps curves within their frame, and thins long ones", () => {
  const points = Array.from({ length: 12_345 }, (_, i) => ({ x: i, y: i === 7 ? NaN : Math.sin(i / 500) }));
  const svg = curvePlot("sines", { x: "steps", y: "value" }, [{ name: "a", points }, {
    name: "b",
    points: [],
  }]);
  assertWellFormed(svg);
  const path = /d="M([\d.L -]+)"\/>/.exec(svg.slice(svg.indexOf("stroke-linecap")))![1]!.split("L");
  assert(path.length > 900 && path.length <= 1000, `${path.length} points`);
  for (const point of path) {
    const [x, y] = point.split(" ").map(Number);
    assert(x! >= 69.9 && x! <= 680.1 && y! >= 39.9 && y! <= 280.1, `${point} is outside`);
  }
  assertEquals(curvePlot("none", { x: "x", y: "y" }, [{ name: "a", points: [{ x: 1, y: Infinity }] }]), "");
  assertWellFormed(curvePlot("one", { x: "x", y: "y" }, [{ name: "a", points: [{ x: 1, y: 2 }] }]));
});

Deno.test("a smoothed curve follows a straight one, and loses what changes from point to point", () => {
  const straight = Array.from({ length: 200 }, (_, x) => ({ x, y: 3 - x / 100 }));
  for (const [i, { x, y }] of smoothed(straight).entries()) {
    assert(x === i && Math.abs(y - straight[i]!.y) < 1e-9, `at ${x}`);
  }
  const jagged = straight.map(({ x, y }) => ({ x, y: y + (x % 2 === 0 ? 0.5 : -0.5) }));
  const middle = smoothed(jagged).slice(20, 180);
  assert(middle.every(({ x, y }) => Math.abs(y - (3 - x / 100)) < 0.05), "what alternates is left");
  assertEquals(smoothed([{ x: 1, y: NaN }, { x: 2, y: 4 }]), [{ x: 2, y: 4 }]);
});
