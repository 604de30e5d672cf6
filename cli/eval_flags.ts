/** Flags and output that evaluations by prompts share: model, grid, cutting, results. */
import type { Engine } from "../chat/engine.ts";
import type { Measure } from "../eval/grid_report.ts";
import type { CutOptions } from "../eval/questions.ts";
import type { Settings } from "../eval/results_file.ts";
import type { GridResult } from "../eval/trials.ts";
import { UserError } from "../errors.ts";
import { nearest } from "../nearest.ts";
import { formatCount, formatSeconds, formatTable, quote } from "../text.ts";
import { numbers, text, whole, wholes } from "../train_args/values.ts";
import { type ModelFlags, openEngine, withModelFlags } from "./answer_flags.ts";
import { booleanFlag, type newCommand, optionalFlag, valueFlag } from "./flags.ts";
import { formatJson } from "./format.ts";
import { type Io, isFirstRank } from "./io.ts";
import { narrowFetched } from "./permissions.ts";

type Plain = ReturnType<typeof newCommand>;

/** Adds the flags of a model and of where results go. */
export function withEvalFlags(command: Plain, task: string) {
  return withModelFlags(command)
    .addOption(
      valueFlag(
        "output_dir",
        "folder for results; what is there already is not measured again",
        text("path"),
        `output/${task}`,
      ),
    )
    .addOption(booleanFlag("overwrite", "begin anew, whatever is in output_dir", false));
}

type EvalPlain = ReturnType<typeof withEvalFlags>;

/** Adds the flags of how prompts out of files are cut. */
export function withCutFlags(command: EvalPlain, most: number) {
  return command
    .addOption(
      optionalFlag("max_length", "tokens of a prompt's text", whole(2), `${most}, or what the context holds`),
    )
    .addOption(
      booleanFlag(
        "truncate_from_middle",
        "keep the first and the last half of a longer text; else its end",
        true,
      ),
    );
}

/** Picks how prompts are cut. @param most tokens of a text, unless `max_length` says otherwise */
export function cutOf(
  { max_length, truncate_from_middle }: {
    readonly max_length: number | null;
    readonly truncate_from_middle: boolean;
  },
  most: number,
): CutOptions {
  return { maxLength: max_length, most, truncateFromMiddle: truncate_from_middle };
}

/** Writes an evaluation's `results.json` beside its rows. @returns what it holds, as `--json` prints it */
export async function saveResults(outputDir: string, results: object): Promise<string> {
  const { writeFileAtomic } = await import("../checkpoint/atomic.ts");
  const text = formatJson(results);
  await writeFileAtomic(`${outputDir}/results.json`, `${text}\n`);
  return text;
}

/** Adds the flags of a grid of lengths and depths, under Long-LLM's names. */
export function withGridFlags(command: EvalPlain) {
  return command
    .addOption(
      optionalFlag(
        "test_length",
        "lengths, in tokens of prompt and answer",
        wholes(16),
        "by min_length and so on",
      ),
    )
    .addOption(optionalFlag("min_length", "shortest", whole(16), "an even part of max_length"))
    .addOption(optionalFlag("max_length", "longest", whole(16), "the model's context"))
    .addOption(optionalFlag("num_length_interval", "how many lengths, evenly apart", whole(1, 1000), "8"))
    .addOption(
      optionalFlag(
        "test_depth",
        "depths, in percent of the text: 0 is its beginning",
        numbers({ min: 0, max: 100 }),
        "by min_depth and so on",
      ),
    )
    .addOption(optionalFlag("min_depth", "least", whole(0, 100), "0"))
    .addOption(optionalFlag("max_depth", "greatest", whole(0, 100), "100"))
    .addOption(optionalFlag("num_depth_interval", "how many depths, evenly apart", whole(1, 101), "10"))
    .addOption(
      booleanFlag(
        "beyond_context",
        "measure lengths past the model's context too, its positions as they are",
        false,
      ),
    );
}

/** The values of those flags. */
type GridFlags = Omit<ReturnType<ReturnType<typeof withGridFlags>["opts"]>, "json" | "webgpu">;

/**
 * The lengths and depths that are asked for, each once and in order.
 * @throws {UserError} if lengths beyond the context are wanted, and not which
 */
export async function gridOf(
  flags: GridFlags,
  contextSize: number,
): Promise<{ lengths: number[]; depths: number[] }> {
  const { evenly } = await import("../eval/trials.ts");
  if (flags.beyond_context && flags.test_length === null && flags.max_length === null) {
    throw new UserError("--beyond_context needs --test_length or --max_length", { kind: "usage" });
  }
  const count = flags.num_length_interval ?? 8;
  const longest = flags.max_length ?? Math.max(flags.min_length ?? 0, contextSize);
  const shortest = Math.min(longest, flags.min_length ?? Math.floor(longest / count));
  const lengths = flags.test_length ?? evenly(shortest, longest, count);
  const [least, most] = [flags.min_depth ?? 0, flags.max_depth ?? 100];
  const depths = flags.test_depth ?? evenly(Math.min(least, most), most, flags.num_depth_interval ?? 10);
  const inOrder = (values: readonly number[]) => [...new Set(values)].sort((a, b) => a - b);
  return { lengths: inOrder(lengths), depths: inOrder(depths) };
}

/** The tasks that are asked for. @throws {UserError} naming one that there is not */
export function tasksOf(
  asked: readonly string[] | null,
  all: readonly string[],
  usual: readonly string[],
): readonly string[] {
  if (asked === null) return usual;
  if (asked.join() === "all") return all;
  const wrong = asked.find((name) => !all.includes(name));
  if (wrong === undefined) return all.filter((name) => asked.includes(name));
  const near = nearest(wrong, all);
  const hint = near === null ? `they are ${all.join(", ")}, or all` : `did you mean ${near}?`;
  throw new UserError(`--tasks: there is no task ${quote(wrong)}: ${hint}`, { kind: "usage" });
}

/** A model that is measured, and what tells it from others. */
export interface OpenSubject extends Disposable {
  readonly engine: Engine;
  readonly settings: Settings;
}

/** More than any prompt has. */
const ANY_LENGTH = 2 ** 24;

/** Loads the model that the flags name. @param isBeyond whether it is asked what passes its context */
export async function openSubject(io: Io, flags: ModelFlags, isBeyond = false): Promise<OpenSubject> {
  const { locate } = await import("./hub.ts");
  const base = await locate(io, flags.base_model, "model");
  const adapter = flags.peft_model && await locate(io, flags.peft_model, "model");
  const { identify } = await import("../eval/identity.ts");
  const engine = await openEngine(
    io,
    { ...flags, base_model: base, peft_model: adapter },
    isBeyond ? { mostTokens: ANY_LENGTH } : {},
  );
  narrowFetched();
  return {
    engine,
    settings: {
      base_model: flags.base_model,
      peft_model: flags.peft_model,
      context_size: isBeyond ? flags.context_size : engine.contextSize,
      beyond_context: isBeyond,
      load_in_4bit: flags.load_in_4bit,
      dtype: flags.dtype,
      chat_template: engine.template.name,
      ...await identify(base, adapter),
    },
    [Symbol.dispose]: () => engine[Symbol.dispose](),
  };
}

/** Writes a grid's `results.json`, `report.html` and a picture of each measure beside its rows, and shows it; rank 0 does. */
export async function showGrid(
  io: Io,
  result: GridResult,
  measures: readonly (Measure & { readonly file: string })[],
  { outputDir, json }: { readonly outputDir: string; readonly json: boolean },
): Promise<void> {
  if (!isFirstRank(io)) return;
  const [{ gridPage, gridPicture, percent }, { writeFileAtomic }] = await Promise.all([
    import("../eval/grid_report.ts"),
    import("../checkpoint/atomic.ts"),
  ]);
  const { rows, ...summary } = result;
  const text = await saveResults(outputDir, { ...summary, rows: rows.length });
  for (const measure of measures) {
    await writeFileAtomic(`${outputDir}/${measure.file}`, gridPicture(result, measure));
  }
  await writeFileAtomic(`${outputDir}/report.html`, gridPage(result, measures));
  if (json) {
    io.out(text);
    return;
  }
  const tables = measures.map((measure) =>
    `${measure.title}: ${measure.score}\n\n${gridTable(result, measure)}`
  );
  const means = measures.map(({ score, value }) => `${score} ${percent(result[value])}`);
  io.out([
    ...tables.flatMap((table) => [table, ""]),
    `${means.join(", ")}; ${formatCount(rows.length)} trials in ${formatSeconds(result.seconds)}`,
    `report.html, ${
      measures.map(({ file }) => file).join(", ")
    }, results.json and results.jsonl in ${outputDir}`,
  ].join("\n"));
}

/** A row per length: the tokens its prompts had, a column per depth where there are any, and all together. */
function gridTable(result: GridResult, { value }: Measure): string {
  const { lengths, depths, cells, byLength } = result;
  const share = (mean: number) => (100 * mean).toFixed(0);
  const head = ["tokens", "of the prompts", ...(depths ?? []).map((depth) => `${depth} %`), "all"];
  const body = lengths.map((length, i) => [
    formatCount(length),
    formatCount(byLength[i]!.promptTokens),
    ...(depths ?? []).map((depth) =>
      share(cells.find((cell) => cell.length === length && cell.depth === depth)![value])
    ),
    share(byLength[i]![value]),
  ]);
  return formatTable([head, ...body], "r".repeat(head.length));
}
