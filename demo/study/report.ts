/** The study's rows as a Markdown report with tables and plots. */
import { type Experiment, EXPERIMENTS, type Scores } from "./experiments.ts";
import { barPlot, linePlot } from "../../train/plot.ts";
import { LENGTHS, type StudyRow, UNTRAINED } from "./study.ts";

/** A report: the text, and the pictures it shows by their file names. */
export interface StudyReport {
  readonly markdown: string;
  readonly plots: ReadonlyMap<string, string>;
}

interface Spread {
  readonly mean: number;
  /** Of the sample; 0 for one value. */
  readonly deviation: number;
}

/** @param folder where the plots will lie, as the report names it */
export function studyReport(rows: readonly StudyRow[], folder: string, command: string): StudyReport {
  const plots = new Map<string, string>();
  const parts: string[] = [];
  const verdicts: string[][] = [];
  for (const experiment of EXPERIMENTS) {
    const own = experiment.variants.map(({ name }) => rows.filter(({ variant }) => variant === name));
    if (own.some((found) => found.length === 0)) continue;
    const scores = scoresOf(rows, experiment);
    const verdict = experiment.holds(scores) ? "holds" : "does not hold";
    verdicts.push([`[${experiment.title}](#${anchor(experiment.title)})`, verdict]);
    plots.set(`${experiment.id}.svg`, plotOf(experiment, rows));
    parts.push(section(experiment, rows, `${folder}/${experiment.id}.svg`, verdict));
  }
  const [first] = rows;
  const seeds = new Set(rows.map(({ seed }) => seed)).size;
  const untrained = rows.filter(({ variant }) => variant === UNTRAINED.name);
  const markdown = [
    "<!-- deno-fmt-ignore-file -->",
    "<!-- Written by `deno task study`: change demo/study, not this file. -->",
    "",
    "# The papers' claims, on the demo model",
    "",
    `The demo's model (256 tokens) is extended to 1024 ${
      seeds === 1
        ? "once in each way, so that no spread is known"
        : `in ${seeds} runs of each way, seeds 1 to ${seeds}`
    }; every step ` +
    "is one sequence of 1024 tokens. Perplexity is over the same 16 held-out documents at every length, with full " +
    "attention, whatever the training had. A model of a million numbers and a minute of training: what holds here is a " +
    "sign, not a proof, and so is what does not.",
    "",
    `Made by \`${command}\` on ${first?.device ?? "no device"}. Untrained, positions interpolated: ` +
    `${LENGTHS.map((length) => `${spreadOf(untrained, length).mean.toFixed(2)} at ${length}`).join(", ")}.`,
    "",
    ...table(["claim about", "at this size"], verdicts),
    "",
    ...parts,
  ].join("\n");
  return { markdown, plots };
}

function scoresOf(rows: readonly StudyRow[], { variants }: Experiment): Scores {
  const names = [UNTRAINED.name, ...variants.map(({ name }) => name)];
  return Object.fromEntries(
    names.map((name) => [name, spreadOf(rows.filter(({ variant }) => variant === name), 1024).mean]),
  );
}

function section(
  experiment: Experiment,
  rows: readonly StudyRow[],
  picture: string,
  verdict: string,
): string {
  const lines = experiment.variants.map(({ name }) => {
    const own = rows.filter(({ variant }) => variant === name);
    return [
      name,
      own[0]!.trainable_parameters.toLocaleString("en-US"),
      String(own[0]!.steps),
      ...LENGTHS.map((length) => {
        const { mean, deviation } = spreadOf(own, length);
        return mean.toFixed(3) + (own.length === 1 ? "" : ` ± ${deviation.toFixed(3)}`);
      }),
    ];
  });
  return [
    `## ${experiment.title}`,
    "",
    `${experiment.claim}: **${verdict}**.`,
    "",
    ...table(
      ["training", "numbers trained", "steps", ...LENGTHS.map((length) => `perplexity at ${length}`)],
      lines,
    ),
    "",
    `![${experiment.title}](${picture})`,
    "",
  ].join("\n");
}

function plotOf({ id, title, variants }: Experiment, rows: readonly StudyRow[]): string {
  const points = variants.map(({ name }) => {
    const own = rows.filter(({ variant }) => variant === name);
    return { name, steps: own[0]!.steps, ...spreadOf(own, 1024) };
  });
  if (id !== "steps") return barPlot(title, "perplexity at 1024", points);
  const start = spreadOf(rows.filter(({ variant }) => variant === UNTRAINED.name), 1024);
  const line = [
    { x: 0, ...start },
    ...points.map(({ steps, mean, deviation }) => ({ x: steps, mean, deviation })),
  ];
  return linePlot(title, { x: "steps", y: "perplexity at 1024" }, line);
}

function spreadOf(rows: readonly StudyRow[], length: number): Spread {
  const values = rows.map(({ perplexity }) => perplexity[length]!);
  const mean = values.reduce((sum, value) => sum + value, 0) / values.length;
  const squares = values.reduce((sum, value) => sum + (value - mean) ** 2, 0);
  return { mean, deviation: values.length > 1 ? Math.sqrt(squares / (values.length - 1)) : 0 };
}

function table(head: readonly string[], rows: readonly (readonly string[])[]): string[] {
  const line = (cells: readonly string[]) => `| ${cells.join(" | ")} |`;
  return [line(head), line(head.map((_, i) => i === 0 ? "---" : "---:")), ...rows.map(line)];
}

function anchor(title: string): string {
  return title.toLowerCase().replace(/[^a-z0-9 _-]/g, "").replaceAll(" ", "-");
}
