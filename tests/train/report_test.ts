import type { DataPreview } from "../../data/preview.ts";
import type { TrainInfo } from "../../train/hooks.ts";
import { curvePlot, dotPlot, smoothed } from "../../report/plot.ts";
import { reportHtml } from "../../train/report.ts";
import { loadTrainArgs } from "../../train_args/load.ts";
import { assert, assertEquals } from "../support/assert_close.ts";
import { assertWellFormed } from "../support/html.ts";

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
  plannedBytes: 2 ** 30,
  precision: "f32",
  trainableParameters: 1_000,
  totalParameters: 100_000,
  sequencesPerStep: 1,
  totalSteps: 10,
  totalEpochs: 1,
  startStep: 0,
};

const PREVIEW: DataPreview = {
  parts: [{ text: "Q: <i> \u001b[2J", isTarget: false }, { text: "because &", isTarget: true }],
  kind: "answers",
  firstTargets: ["because"],
  lastTargets: ["&"],
  neverEnds: true,
  lengths: [{ upTo: 64, samples: 3 }, { upTo: 128, samples: 0 }],
};

Deno.test("report.html is one page that escapes what it is told and marks what was set", async () => {
  const { args } = await loadTrainArgs(null, {
    model_name_or_path: '"><script>alert(1)</script>',
    train_file: "rows.jsonl",
    output_dir: "out<put>",
    model_max_length: "128",
    lora_rank: "8",
    target_modules: "q_proj,v_proj",
    rope_scaling: '{"type":"linear","factor":2}',
    max_memory: "24GiB",
  });
  const measured = (step: number) => ({
    tokens_per_second: 100 * step,
    seconds: step,
    peak_memory_bytes: 2 ** 30 - 2 ** 20,
  });
  const loss = (step: number) => ({
    epoch: step / 10,
    step,
    loss: 5 / step,
    grad_norm: 1,
    learning_rate: 1e-4,
    ...measured(step),
  });
  const history = [1, 2, 3].flatMap((
    step,
  ) => [loss(step), { epoch: 0.1, step, eval_loss: 6 - step % 3, ...measured(step) }]);
  const time = { startedAt: "2026-11-26T14:30:00.000Z", starts: 2, seconds: 3725.5 };
  const run = {
    args,
    info: INFO,
    preview: PREVIEW,
    log: { history, lossSum: 0, steps: 0, time },
    step: 3,
    epoch: 0.3,
    skippedSteps: 1,
    peakBytes: 2 ** 29,
  };
  const html = reportHtml(run);
  assertWellFormed(html);
  assert(!html.includes("<script"), "no script");
  assert(!/\b(?:src|href)=|@import|url\(/.test(html), "nothing to load from elsewhere");
  const value = (name: string, page = html) =>
    new RegExp(`<th scope="row">${name}</th><td(?: class="changed")?>([^<]*)</td>`).exec(page)?.[1];
  assert(
    html.includes('<th scope="row">lora_rank</th><td class="changed">8</td>'),
    "a setting that was given",
  );
  assert(html.includes('<th scope="row">lora_alpha</th><td>16</td>'), "a default");
  assertEquals(
    ["train_file", "target_modules", "trainable_params", "rope_scaling", "max_memory", "lora_dropout"].map((
      name,
    ) => value(name)),
    ["rows.jsonl", "q_proj, v_proj", "not set", "{type: linear, factor: 2}", "24GiB", "0.05"],
  );
  assertEquals(
    ["Steps", "Steps skipped", "Loss", "Last eval_loss", "Best eval_loss", "Time", "Pace"].map((name) =>
      value(name)
    ),
    [
      "3 of 10, epoch 0.30",
      "1",
      "5.0000 after step 1, 1.6667 after step 3",
      "6.0000 after step 3, perplexity 403.4",
      "4.0000 after step 2, perplexity 54.60",
      "1 h 02 min over 2 starts",
      "300 tokens/s over the last steps",
    ],
  );
  assertEquals(value("Memory, counted"), "1023.0 MiB at the peak, 99.9 % of the plan");
  assertEquals(
    [value("Started"), value("Seed"), value("Context")],
    ["2026-11-26 14:30 UTC", "42", INFO.context]
      .map((text) => text.replace(">", "&gt;")),
  );
  assert(/^20\d\d-\d\d-\d\d \d\d:\d\d UTC$/.test(value("Report written")!), value("Report written")!);
  assert(/^Longreach \d+\.\d+\.\d+, Deno 2\.\d+\.\d+$/.test(value("Versions")!), value("Versions")!);
  assert(html.includes("<span>Q: &lt;i&gt; \ufffd[2J</span><mark>because &amp;</mark>"), "the learnt part");
  assertEquals(value("Up to 64 tokens"), "3 sequences");
  const titles = [...html.matchAll(/<text class="t"[^>]*>([^<]*)/g)].map(([, title]) => title);
  assertEquals(titles, ["Loss", "Learning rate", "Gradient", "Pace", "Memory on the device"]);
  // Nothing done yet, and a checkpoint of an older version, which has measured nothing.
  assertWellFormed(reportHtml({ ...run, log: { history: [], lossSum: 0, steps: 0 }, step: 0 }));
  const bare = { epoch: 1, step: 1, loss: 2, grad_norm: 1, learning_rate: 1e-4 };
  const old = reportHtml({ ...run, log: { history: [bare], lossSum: 0, steps: 0 }, step: 1 });
  assertWellFormed(old);
  assertEquals([value("Time", old), value("Pace", old)], [undefined, undefined]);
  assert(!/NaN|undefined/.test(old), "words of the program");
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
    assert(x! >= 69.9 && x! <= 680.1 && y! >= 55.9 && y! <= 296.1, `${point} is outside`);
  }
  assertEquals(curvePlot("none", { x: "x", y: "y" }, [{ name: "a", points: [{ x: 1, y: Infinity }] }]), "");
  assertWellFormed(curvePlot("one", { x: "x", y: "y" }, [{ name: "a", points: [{ x: 1, y: 2 }] }]));
});

Deno.test("dotPlot() keeps marks and strokes within its frame, and one far value squeezes no others", () => {
  const values = (shift: number) =>
    [0, 1, 2].map((place) => [5, 5.4, 5.9].map((y) => y + shift - place / 10));
  const rows = [
    { name: "a <b>", values: values(0) },
    { name: "c", values: values(0.2) },
    { name: "far", values: [[5.1, 60], ...values(0.1).slice(1)] },
  ];
  const series = ["256 tokens", "512 tokens", "1024 tokens"];
  const svg = dotPlot("title", "unit", series, rows, [{ name: "base", values: [5.5, 5.6, 90] }]);
  assertWellFormed(svg);
  const groups = [...svg.matchAll(/<g fill="[^"]*" stroke="[^"]*" fill-opacity="[.]5">(.*?)<\/g>/g)].map((
    [, group],
  ) => group!);
  const marks = (group: string) =>
    [...group.matchAll(/<path( stroke-width="2")? d="M([\d.]+) [\d.]+/g)].map((
      [, stroke, x],
    ) => ({
      isStroke: stroke !== undefined,
      x: Number(x),
    }));
  const drawn = groups.slice(0, 9).map(marks);
  for (const { x } of drawn.flat()) assert(x >= 260 && x <= 680, `a mark at ${x}`);
  const spread = (row: number) =>
    Math.max(...drawn[row]!.map(({ x }) => x)) - Math.min(...drawn[row]!.map(({ x }) => x));
  assert(spread(0) > 200, `values from 5 to 5.9 are drawn over ${spread(0)}`);
  // The far value is an arrow at the edge; the mean, which it takes there, is not drawn.
  assertEquals(drawn.map((row) => row.filter(({ isStroke }) => isStroke).length), [
    1,
    1,
    1,
    1,
    1,
    1,
    0,
    1,
    1,
  ]);
  assert(groups[6]!.includes("<title>60</title>"), "what the arrow stands for");
  assert(
    svg.includes("<title>base, 512 tokens: 5.6</title>") && !svg.includes("1024 tokens: 90"),
    "the lines",
  );
  const names = [...svg.matchAll(/<text x="([\d.]+)" y="46" style="[^"]*">([^<]*)/g)];
  assertEquals(names.map(([, , name]) => name), series);
  for (const [i, [, x, name]] of names.entries()) {
    const next = Number(names[i + 1]?.[1] ?? 720);
    assert(Number(x) + 6.5 * name!.length < next - 16, `"${name}" from ${x} reaches ${next}`);
  }
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
