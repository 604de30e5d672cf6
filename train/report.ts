/** `report.html`: one page that tells a run, with nothing to load from elsewhere. */
import { formatMemory } from "../text.ts";
import { type DataPreview, shownParts } from "../data/preview.ts";
import config from "../deno.json" with { type: "json" };
import { settingText } from "../train_args/describe.ts";
import { GROUPS, OPTION_NAMES, OPTIONS, type TrainArgs, type TrainOption } from "../train_args/schema.ts";
import { count } from "./describe.ts";
import type { TrainInfo } from "./hooks.ts";
import { dateText, escape, page, type Row, table } from "../report/page.ts";
import { type Curve, curvePlot, smoothed } from "../report/plot.ts";
import type { EvalEntry, LogEntry, LogState, Measured } from "./run_log.ts";

/** A run as far as it has come. */
export interface ReportedRun {
  readonly args: TrainArgs;
  readonly info: TrainInfo;
  readonly preview: DataPreview;
  readonly log: LogState;
  readonly step: number;
  readonly epoch: number;
  readonly skippedSteps: number;
  /** The most device memory held since the last start. */
  readonly peakBytes: number;
}

/** The page. It has no scripts; every text of the run is escaped. */
export function reportHtml(run: ReportedRun): string {
  const { args, preview } = run;
  const title = `Training run ${args.output_dir}`;
  return page(title, [
    table(resultRows(run)),
    table(runRows(run.info)),
    ...plots(run),
    "<h2>What is learnt</h2>",
    `<p>The first sequence, taken as ${
      preview.kind === "text" ? "a text: all of it is" : "prompts with answers: what is marked is"
    } learnt.</p>`,
    `<pre>${shownParts(preview).map(markedHtml).join("")}</pre>`,
    table(lengthRows(preview)),
    "<h2>Settings</h2>\n<p>Bold ones differ from the defaults.</p>",
    ...settingsTables(args),
  ]);
}

/** Results of the run so far. */
function resultRows(run: ReportedRun): Row[] {
  const { info, log: { history, time }, step, epoch, skippedSteps } = run;
  const [losses, evaluations] = entriesOf(history);
  const [first, last] = [losses[0], losses.at(-1)];
  const rows: Row[] = [
    ["Steps", `${count(step)} of ${count(info.totalSteps)}, epoch ${epoch.toFixed(2)}`],
  ];
  if (skippedSteps > 0) rows.push(["Steps skipped", count(skippedSteps)]);
  if (first && last) {
    rows.push([
      "Loss",
      `${first.loss.toFixed(4)} after step ${count(first.step)}, ${last.loss.toFixed(4)} after step ${
        count(last.step)
      }`,
    ]);
  }
  if (evaluations.length > 0) {
    const best = evaluations.reduce((a, b) => b.eval_loss < a.eval_loss ? b : a);
    rows.push(["Last eval_loss", evalText(evaluations.at(-1)!)], ["Best eval_loss", evalText(best)]);
  }
  if (time) {
    const starts = time.starts === 1 ? "" : ` over ${count(time.starts)} starts`;
    rows.push(["Time", `${timeText(time.seconds)}${starts}`]);
  }
  if (last?.tokens_per_second !== undefined) {
    rows.push(["Pace", `${count(Math.round(last.tokens_per_second))} tokens/s over the last steps`]);
  }
  const peak = history.reduce((max, entry) => Math.max(max, entry.peak_memory_bytes ?? 0), run.peakBytes);
  rows.push(
    ["Memory, planned", info.memory],
    [
      "Memory, counted",
      `${formatMemory(peak)} at the peak, ${(100 * peak / info.plannedBytes).toFixed(1)} % of the plan`,
    ],
  );
  if (time) rows.push(["Started", dateText(time.startedAt)]);
  rows.push(["Report written", dateText(new Date().toISOString())]);
  return rows;
}

function evalText({ eval_loss, step }: EvalEntry): string {
  const when = step === 0 ? "before the first step" : `after step ${count(step)}`;
  return `${eval_loss.toFixed(4)} ${when}, perplexity ${Math.exp(eval_loss).toPrecision(4)}`;
}

/** Facts of the run. */
function runRows(info: TrainInfo): Row[] {
  const share = 100 * info.trainableParameters / info.totalParameters;
  return [
    ["Model", info.model],
    ["Context", info.context],
    ["Attention", info.attention],
    [
      "Trained",
      `${info.method}: ${count(info.trainableParameters)} of ${count(info.totalParameters)} numbers (${
        share.toPrecision(3)
      } %)`,
    ],
    ["Learning rate", info.schedule],
    [
      "A step",
      `${count(info.sequencesPerStep)} ${info.sequencesPerStep === 1 ? "sequence" : "sequences"}, up to ${
        count(info.tokensPerStep)
      } tokens`,
    ],
    ["Data", info.data],
    ["Seed", String(info.seed)],
    ["Device", `${info.device}, activations in ${info.precision}`],
    ["Versions", `Longreach ${config.version}, Deno ${Deno.version.deno}`],
  ];
}

/** Plots over the same steps. */
function plots({ info, log: { history } }: ReportedRun): string[] {
  const [losses, evaluations] = entriesOf(history);
  const across: [number, number] = [0, history.at(-1)?.step ?? 0];
  const plot = (title: string, y: string, curves: readonly Curve[], min?: number) =>
    curvePlot(title, { x: "steps", y, across, ...(min === undefined ? {} : { min }) }, curves);
  const withSmoothed = (raw: Curve): Curve[] =>
    raw.points.length < 20
      ? [raw]
      : [{ ...raw, isRaw: true }, { name: `${raw.name}, smoothed`, points: smoothed(raw.points) }];
  const gigabytes = info.plannedBytes >= 2 ** 30;
  const memory = (bytes: number | undefined) => (bytes ?? NaN) / 2 ** (gigabytes ? 30 : 20);
  return [
    plot("Loss", "nats per target", [
      ...withSmoothed(curveOf("loss", losses, ({ loss }) => loss)),
      ...(evaluations.length > 0 ? [curveOf("eval_loss", evaluations, ({ eval_loss }) => eval_loss)] : []),
    ]),
    plot("Learning rate", "learning rate", [
      curveOf("learning_rate", losses, ({ learning_rate }) => learning_rate),
    ]),
    plot(
      "Gradient",
      "norm before clipping",
      withSmoothed(curveOf("grad_norm", losses, ({ grad_norm }) => grad_norm)),
    ),
    plot(
      "Pace",
      "tokens per second",
      withSmoothed(curveOf("tokens_per_second", losses, (entry) => entry.tokens_per_second ?? NaN)),
      0,
    ),
    plot("Memory on the device", gigabytes ? "GiB" : "MiB", [
      curveOf("peak so far", history, (entry) => memory(entry.peak_memory_bytes)),
      { name: "planned", points: across.map((x) => ({ x, y: memory(info.plannedBytes) })) },
    ], 0),
  ];
}

function curveOf<T extends Measured & { readonly step: number }>(
  name: string,
  entries: readonly T[],
  value: (entry: T) => number,
): Curve {
  return { name, points: entries.map((entry) => ({ x: entry.step, y: value(entry) })) };
}

function entriesOf(history: LogState["history"]): [LogEntry[], EvalEntry[]] {
  return [
    history.filter((entry): entry is LogEntry => "loss" in entry),
    history.filter((entry): entry is EvalEntry => "eval_loss" in entry),
  ];
}

/** A part of the preview; characters that no browser shows become marks. */
function markedHtml({ text, isTarget }: DataPreview["parts"][number]): string {
  // deno-lint-ignore no-control-regex
  const shown = escape(text.replace(/[\u0000-\u0008\u000b-\u001f\u007f-\u009f]/g, "\ufffd"));
  return isTarget ? `<mark>${shown}</mark>` : `<span>${shown}</span>`;
}

function lengthRows({ firstTargets, lastTargets, lengths }: DataPreview): Row[] {
  const tokens = (texts: readonly string[]) => texts.map((text) => JSON.stringify(text)).join(" ");
  return [
    ["Learnt first", tokens(firstTargets)],
    ["Learnt last", tokens(lastTargets)],
    ...lengths.map(({ upTo, samples }): Row => [
      `Up to ${count(upTo)} tokens`,
      `${count(samples)} ${samples === 1 ? "sequence" : "sequences"}`,
    ]),
  ];
}

function settingsTables(args: TrainArgs): string[] {
  return Object.entries(GROUPS).map(([group, title]) => {
    const names = OPTION_NAMES.filter((name) => OPTIONS[name].group === group);
    const rows = names.map((name): Row => {
      const option: TrainOption = OPTIONS[name];
      const isChanged = JSON.stringify(args[name]) !== JSON.stringify(option.default);
      return [name, settingText(name, args[name]), isChanged];
    });
    return `<h3>${escape(title)}</h3>\n${table(rows)}`;
  });
}

/** `12.3 s`, `4 min 05 s`, `1 h 02 min` */
function timeText(seconds: number): string {
  if (seconds < 60) return `${seconds.toFixed(1)} s`;
  const two = (value: number) => String(Math.floor(value)).padStart(2, "0");
  const minutes = seconds / 60;
  if (minutes < 60) return `${Math.floor(minutes)} min ${two(seconds % 60)} s`;
  return `${count(Math.floor(minutes / 60))} h ${two(minutes % 60)} min`;
}
