/** Passkey before and after the extension: whether a model finds a word anywhere in a text, as figures, pictures and a page. */
import { Engine, type EngineOptions } from "../chat/engine.ts";
import { writeFileAtomic } from "../checkpoint/atomic.ts";
import { gridPicture, percent } from "../eval/grid_report.ts";
import { measurePasskey, readWording } from "../eval/passkey.ts";
import { type Cell, type GridResult, mean } from "../eval/trials.ts";
import { grid, page, type Row, table } from "../report/page.ts";
import type { StageHooks } from "../train/hooks.ts";
import { BASE_CONTEXT } from "./vocabulary.ts";

/** Wording of the prompts, in words that the demo's tokenizer knows: every key is one token. */
const WORDING = new URL("./passkey.json", import.meta.url).pathname;
const SEED = 123;

/** Texts that are measured. */
export interface RetrievalGrid {
  /** Tokens of prompt and answer together; ascending. */
  readonly lengths: readonly number[];
  /** Percent of the text before the key. */
  readonly depths: readonly number[];
  /** Keys at each place. */
  readonly trials: number;
}

/** The demo's: up to the extended context, past the base's from the second length on. */
const GRID: RetrievalGrid = { lengths: [256, 512, 768, 1024], depths: [0, 25, 50, 75, 100], trials: 4 };

/** A model that is asked. */
export interface RetrievalSubject extends Omit<EngineOptions, "mostTokens"> {
  /** Its name in the table, and in the picture's file name. */
  readonly model: string;
}

/** What one model finds, as shares of 1. */
export interface RetrievalRow {
  readonly model: string;
  readonly byLength: readonly Cell[];
  /** In the longest texts, of the keys that stand further back than the base's context. */
  readonly beyondContext: number;
  /** By length and depth. */
  readonly cells: readonly Cell[];
  /** Path of the heat map. */
  readonly picture: string;
}

/** What every model finds. */
export interface Retrieval extends RetrievalGrid {
  readonly rows: readonly RetrievalRow[];
  /** Words that keys are drawn from. */
  readonly keys: number;
  /** Context that the base model is made for, in tokens. */
  readonly baseContext: number;
  /** Path of the page. */
  readonly report: string;
}

/**
 * Asks each model for the same keys, and writes a heat map of each (`passkey_MODEL.svg`), `report.html` with all of them,
 * and every answer (`passkey/MODEL/results.jsonl`). Lengths past a model's context are read with its positions as they are.
 */
export async function measureRetrieval(
  subjects: readonly RetrievalSubject[],
  outputDir: string,
  stages: Pick<StageHooks, "counting">,
  wanted: RetrievalGrid = GRID,
): Promise<Retrieval> {
  const wording = await readWording(WORDING);
  const rows: RetrievalRow[] = [];
  const pictures: string[] = [];
  for (const { model, ...options } of subjects) {
    using engine = await Engine.open({ ...options, mostTokens: Math.max(...wanted.lengths) });
    const result = await stages.counting("token", (hooks) =>
      measurePasskey(engine, {
        ...wanted,
        wording,
        seed: SEED,
        maxNewTokens: 1,
        outputDir: `${outputDir}/passkey/${model}`,
        overwrite: true,
      }, hooks));
    const picture = `${outputDir}/passkey_${model}.svg`;
    const measure = { title: `Passkey, ${model}`, score: "keys found", value: "accuracy" } as const;
    pictures.push(gridPicture(result, measure, { leastWidth: 0 }));
    await writeFileAtomic(picture, pictures.at(-1)!);
    rows.push({
      model,
      byLength: result.byLength,
      beyondContext: beyondContext(result),
      cells: result.cells,
      picture,
    });
  }
  const report = `${outputDir}/report.html`;
  const retrieval = { ...wanted, rows, keys: wording.keys!.length, baseContext: BASE_CONTEXT, report };
  await writeFileAtomic(report, reportOf(retrieval, pictures));
  return retrieval;
}

function beyondContext({ lengths, cells }: GridResult): number {
  const longest = Math.max(...lengths);
  const far = cells.filter(({ length, depth }) =>
    length === longest && length * (1 - depth! / 100) > BASE_CONTEXT
  );
  return mean(far.map(({ accuracy }) => accuracy));
}

/**
 * Makes a table of the shares that each model finds: by length, and last of the keys that only a longer context reaches.
 * @param corner text above the models' names
 */
export function retrievalTable(
  { rows, lengths, baseContext }: Retrieval,
  corner: string,
  write: (share: number) => string,
): string[][] {
  return [
    [corner, ...lengths.map(String), `${lengths.at(-1)}, over ${baseContext} back`],
    ...rows.map(({ model, byLength, beyondContext }) => [
      model,
      ...byLength.map(({ accuracy }) => write(accuracy)),
      write(beyondContext),
    ]),
  ];
}

function reportOf(retrieval: Retrieval, pictures: readonly string[]): string {
  const { depths, trials, keys, baseContext } = retrieval;
  const shares = retrievalTable(retrieval, "tokens of the text", percent);
  // A row per length: a narrow screen has no room for a column of each.
  const [names = [], ...found] = shares[0]!.map((_, column) => shares.map((row) => row[column]!));
  return page("Passkey retrieval, before and after", [
    `<p>A text says once which word is the password, and its last line asks for it. The base model is made for ` +
    `${baseContext} tokens; beyond them its positions are used as they are.</p>`,
    `<div class="pair">${pictures.join("")}</div>`,
    "<h2>Keys found</h2>",
    grid(names, found),
    "<h2>How it was measured</h2>",
    table(
      [
        ["chance", `one word of ${keys}: ${percent(1 / keys)}`],
        [
          "texts",
          `${trials * depths.length} of each length, ${trials} at each depth, the same for all models`,
        ],
        ["right", "the likeliest token behind the question is the key"],
        ["every answer", "passkey/MODEL/results.jsonl beside this page"],
      ] satisfies Row[],
    ),
  ]);
}
