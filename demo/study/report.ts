/** The study's rows as a Markdown report with tables and plots. */
import {
  BASE,
  type Claim,
  type Experiment,
  EXPERIMENTS,
  type Scores,
  UNTRAINED,
  type Variant,
} from "./experiments.ts";
import { curvePlot, dotPlot } from "../../report/plot.ts";
import { LENGTHS, type StudyRow } from "./study.ts";

/** A report: the text, and the pictures it shows by their file names. */
export interface StudyReport {
  readonly markdown: string;
  readonly plots: ReadonlyMap<string, string>;
}

/** Claims are about perplexity at this length. */
const LONGEST = Math.max(...LENGTHS);

/** Models without training, for every table and plot. */
const NOT_TRAINED = [BASE, UNTRAINED];

/** @param folder where the plots will lie, as the report names it */
export function studyReport(rows: readonly StudyRow[], folder: string, command: string): StudyReport {
  const ran = EXPERIMENTS.filter(({ variants }) =>
    variants.every(({ name }) => rows.some(({ variant }) => variant === name))
  );
  const scores = scoresBySeed(rows);
  const markdown = [
    "<!-- deno-fmt-ignore-file -->",
    "<!-- Written by `deno task study`: change demo/study, not this file. -->",
    "",
    "# The papers' claims, on the demo model",
    "",
    `The demo's model (256 tokens) is extended to 1024 in every way below, ${
      scores.length === 1 ? "once, so that no spread is known" : `with ${scores.length} seeds`
    }; a step is one sequence of 1024 tokens, and the rest is as demo/study/recipe.yaml says. Perplexity is over the same 16 held-out ` +
    "documents at every length, with full attention, whatever the training had. A claim is asked of each seed's runs by " +
    `themselves, at ${LONGEST} tokens. A model of a million numbers and a minute of training: what holds here is a ` +
    "sign, not a proof, and so is what does not.",
    "",
    `Made by \`${command}\` on ${
      rows[0]?.device ?? "no device"
    }. Two lines of every table are not trained: the base as ` +
    "it is, and with its positions interpolated.",
    "",
    ...table(
      ["claim", "experiment", "at this size"],
      ran.flatMap(({ title, claims }) =>
        claims.map((claim) => [claim.text, `[${title}](#${anchor(title)})`, verdict(claim, scores)])
      ),
    ),
    "",
    ...ran.map((experiment) => section(experiment, rows, `${folder}/${experiment.id}.svg`)),
  ].join("\n");
  return {
    markdown,
    plots: new Map(ran.map((experiment) => [`${experiment.id}.svg`, plotOf(experiment, rows)])),
  };
}

function verdict({ holds }: Claim, scores: readonly Scores[]): string {
  const borneOut = scores.filter(holds).length;
  const seeds = `${borneOut} of ${scores.length} seeds`;
  if (borneOut === scores.length) return `**holds** (${seeds})`;
  return borneOut === 0 ? `**does not hold** (${seeds})` : `**cannot be told** (${seeds})`;
}

function scoresBySeed(rows: readonly StudyRow[]): Scores[] {
  const score = ({ variant, perplexity }: StudyRow) => [variant, perplexity[LONGEST]!] as const;
  const isTrained = ({ variant }: StudyRow) => !NOT_TRAINED.some(({ name }) => name === variant);
  const untrained = rows.filter((row) => !isTrained(row)).map(score);
  const bySeed = Map.groupBy(rows.filter(isTrained), ({ seed }) => seed);
  return [...bySeed.values()].map((own) => Object.fromEntries([...untrained, ...own.map(score)]));
}

function section({ title, variants }: Experiment, rows: readonly StudyRow[], picture: string): string {
  const lines = [...NOT_TRAINED, ...variants].map(({ name }) => {
    const own = rows.filter(({ variant }) => variant === name);
    return [
      name,
      own[0]!.trainable_parameters.toLocaleString("en-US"),
      String(own[0]!.steps),
      ...LENGTHS.map((length) => withSpread(perplexities(own, length))),
    ];
  });
  return [
    `## ${title}`,
    "",
    ...table(
      ["training", "numbers trained", "steps", ...LENGTHS.map((length) => `perplexity at ${length}`)],
      lines,
    ),
    "",
    `![${title}](${picture})`,
    "",
  ].join("\n");
}

function plotOf({ id, title, variants }: Experiment, rows: readonly StudyRow[]): string {
  if (id === "steps") {
    const names = variants.map(({ name }) => name);
    const bySeed = Map.groupBy(rows.filter(({ variant }) => names.includes(variant)), ({ seed }) => seed);
    const untrained = rows.filter(({ variant }) => variant === UNTRAINED.name);
    const curves = [...bySeed].map(([seed, own]) => ({
      name: `seed ${seed}`,
      points: [...untrained, ...own].map(({ steps, perplexity }) => ({ x: steps, y: perplexity[LONGEST]! })),
    }));
    const base = rows.filter(({ variant }) => variant === BASE.name);
    const ends = [0, Math.max(...curves.flatMap(({ points }) => points.map(({ x }) => x)))];
    const flat = base.flatMap(({ perplexity }) => ends.map((x) => ({ x, y: perplexity[LONGEST]! })));
    return curvePlot(title, { x: "steps", y: `perplexity at ${LONGEST}` }, [
      ...curves,
      { name: BASE.name, points: flat },
    ]);
  }
  const rowOf = ({ name }: Variant) => {
    const own = rows.filter(({ variant }) => variant === name);
    return { name, values: LENGTHS.map((length) => perplexities(own, length)) };
  };
  return dotPlot(
    title,
    "perplexity; a mark for each seed, a stroke at their mean",
    LENGTHS.map((length) => `${length} tokens`),
    [...NOT_TRAINED, ...variants].map(rowOf),
    [{ name: BASE.name, values: rowOf(BASE).values.flat() }],
  );
}

function perplexities(rows: readonly StudyRow[], length: number): number[] {
  return rows.map(({ perplexity }) => perplexity[length]!);
}

function meanOf(values: readonly number[]): number {
  return values.reduce((sum, value) => sum + value, 0) / values.length;
}

/** The mean and the sample's deviation. */
function withSpread(values: readonly number[]): string {
  const mean = meanOf(values);
  if (values.length === 1) return mean.toFixed(3);
  const squares = values.reduce((sum, value) => sum + (value - mean) ** 2, 0);
  return `${mean.toFixed(3)} ± ${Math.sqrt(squares / (values.length - 1)).toFixed(3)}`;
}

function table(head: readonly string[], rows: readonly (readonly string[])[]): string[] {
  const line = (cells: readonly string[]) => `| ${cells.join(" | ")} |`;
  return [line(head), line(head.map(() => "---")), ...rows.map(line)];
}

function anchor(title: string): string {
  return title.toLowerCase().replace(/[^a-z0-9 _-]/g, "").replaceAll(" ", "-");
}
