/** `report.html`: one page that tells a run, with nothing to load from elsewhere. */
import { GROUPS, OPTION_NAMES, OPTIONS, type TrainArgs, type TrainOption } from "../train_args/schema.ts";
import type { StepMetrics, TrainInfo } from "./hooks.ts";
import { sizeText } from "./plan.ts";
import { type Curve, curvePlot, escape, smoothed } from "./plot.ts";
import type { EvalEntry, LogEntry, LogState } from "./run_log.ts";

/** A run as far as it has come. */
export interface ReportedRun {
  readonly args: TrainArgs;
  readonly info: TrainInfo;
  readonly history: LogState["history"];
  /** The last step; undefined before the first. */
  readonly last: StepMetrics | undefined;
}

const STYLE = `
:root { color-scheme: light dark; }
body { font: 15px/1.5 system-ui, sans-serif; max-width: 760px; margin: 2rem auto; padding: 0 1rem; }
table { border-collapse: collapse; width: 100%; margin: 1rem 0; }
th, td { text-align: left; vertical-align: top; padding: .2rem .8rem .2rem 0; border-bottom: 1px solid #8884; }
th { font-weight: normal; opacity: .75; white-space: nowrap; width: 15rem; }
td { overflow-wrap: anywhere; }
svg { width: 100%; height: auto; }
.changed { font-weight: bold; }
@media (max-width: 600px) {
  th, td { display: block; width: auto; padding-right: 0; }
  th { border-bottom: none; padding-bottom: 0; white-space: normal; }
  td { padding-top: 0; }
  svg text { font-size: 20px; }
}
`;

/** The page. It has no scripts; every text of the run is escaped. */
export function reportHtml(run: ReportedRun): string {
  const { args, history } = run;
  const steps = history.filter((entry): entry is LogEntry => "loss" in entry);
  const evaluations = history.filter((entry): entry is EvalEntry => "eval_loss" in entry);
  const curve = (key: "loss" | "learning_rate" | "grad_norm"): Curve => ({
    name: key,
    points: steps.map((entry) => ({ x: entry.step, y: entry[key] })),
  });
  const withSmoothed = (raw: Curve): Curve[] =>
    steps.length < 20
      ? [raw]
      : [{ ...raw, isRaw: true }, { name: `${raw.name}, smoothed`, points: smoothed(raw.points) }];
  const evalCurve = {
    name: "eval_loss",
    points: evaluations.map(({ step, eval_loss }) => ({ x: step, y: eval_loss })),
  };
  const across: [number, number] = [
    Math.min(0, ...history.map(({ step }) => step)),
    history.at(-1)?.step ?? 0,
  ];
  const plot = (title: string, y: string, curves: readonly Curve[]) =>
    curvePlot(title, { x: "steps", y, across }, curves);
  const title = `Training run ${args.output_dir}`;
  return [
    `<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">`,
    `<meta name="viewport" content="width=device-width, initial-scale=1">`,
    `<title>${escape(title)}</title>\n<style>${STYLE}</style>\n</head>\n<body>`,
    `<h1>${escape(title)}</h1>`,
    table(runRows(run, evaluations)),
    plot("Loss", "nats per target", [
      ...withSmoothed(curve("loss")),
      ...(evaluations.length > 0 ? [evalCurve] : []),
    ]),
    plot("Learning rate", "learning rate", [curve("learning_rate")]),
    plot("Gradient", "norm before clipping", withSmoothed(curve("grad_norm"))),
    "<h2>Settings</h2>\n<p>Bold ones differ from the defaults.</p>",
    ...settingsTables(args),
    "</body>\n</html>\n",
  ].join("\n");
}

type Row = readonly [name: string, value: string, isChanged?: boolean];

function runRows({ info, last }: ReportedRun, evaluations: readonly EvalEntry[]): Row[] {
  const share = 100 * info.trainableParameters / info.totalParameters;
  const rows: Row[] = [
    ["Model", info.model],
    [
      "Trained",
      `${info.method}: ${count(info.trainableParameters)} of ${count(info.totalParameters)} numbers (${
        share.toPrecision(3)
      } %)`,
    ],
    ["Data", info.data],
    ["Device", `${info.device}, activations in ${info.precision}`],
    ["Memory", info.memory],
  ];
  if (last) {
    rows.push(
      ["Steps", `${count(last.step)} of ${count(last.totalSteps)}, epoch ${last.epoch.toFixed(2)}`],
      ["Loss of the last step", last.loss.toFixed(4)],
      ["Pace", `${count(Math.round(last.tokensPerSecond))} tokens/s over the last steps`],
      ["Memory at the peak", sizeText(last.peakBytes)],
      ["Time since the last start", `${(last.elapsedMs / 1000).toFixed(1)} s`],
    );
    if (last.skippedSteps > 0) rows.push(["Steps skipped", count(last.skippedSteps)]);
  }
  if (evaluations.length > 0) {
    const best = evaluations.reduce((a, b) => b.eval_loss < a.eval_loss ? b : a);
    rows.push(["Best eval_loss", `${best.eval_loss.toFixed(4)} after step ${count(best.step)}`]);
  }
  return rows;
}

function settingsTables(args: TrainArgs): string[] {
  return Object.entries(GROUPS).map(([group, title]) => {
    const names = OPTION_NAMES.filter((name) => OPTIONS[name].group === group);
    const rows = names.map((name): Row => {
      const value = JSON.stringify(args[name]);
      const option: TrainOption = OPTIONS[name];
      return [name, value === "null" ? "not set" : value, value !== JSON.stringify(option.default)];
    });
    return `<h3>${escape(title)}</h3>\n${table(rows)}`;
  });
}

function table(rows: readonly Row[]): string {
  const body = rows.map(([name, value, isChanged]) =>
    `<tr><th scope="row">${escape(name)}</th><td${isChanged ? ' class="changed"' : ""}>${
      escape(value)
    }</td></tr>`
  );
  return `<table>\n${body.join("\n")}\n</table>`;
}

function count(value: number): string {
  return value.toLocaleString("en-US");
}
