/** The demo's files: an untrained model folder, the three training sets of the recipes, and what measures the result. */
import { writeTokenBin } from "../data/bin.ts";
import { Random } from "../data/random.ts";
import { Tokenizer } from "../data/tokenizer.ts";
import { factDocument, recallCase, repeatDocument } from "./corpus.ts";
import { demoConfig, demoTokenizer, demoTokenizerConfig } from "./vocabulary.ts";

/** Length the demo extends the model to, in tokens. */
export const EXTENDED_CONTEXT = 1024;

/** The lengths that are measured, and how far back the word to recall stands there; all in tokens. */
export const RECALL_DISTANCES = [
  { length: 256, shortest: 150, longest: 240 },
  { length: 512, shortest: 400, longest: 480 },
  { length: 1024, shortest: 800, longest: 1000 },
] as const;

/** Amounts of text: enough that no recipe sees a document twice. */
const ROWS = { base64: 19_200, base256: 1_200, extend: 320, heldOut: 16, recall: 60 } as const;

/** Paths that {@linkcode writeDemoData} wrote. */
export interface DemoFiles {
  /** Folder with config.json and the tokenizer, and no weights. */
  readonly model: string;
  /** jsonl, rows of 64 tokens: half random sequences that repeat, half fact documents. */
  readonly base64: string;
  /** Token file of fact documents of 1024 tokens, to be cut into rows of 256: stories are met in the middle too. */
  readonly base256: string;
  /** jsonl, fact documents of 1024 tokens. */
  readonly extend: string;
  /**
   * Token file of whole fact documents of 1024 tokens. Windows of 256, 512 and 1024, each stepping by its own length,
   * read the same text with more or less of what came before.
   */
  readonly heldOut: string;
  /** jsonl of recall cases per length: `prompt`, `answer`, `distance`. */
  readonly recall: Readonly<Record<number, string>>;
}

/** The names {@linkcode writeDemoData} uses in a folder. */
export function demoFiles(folder: string): DemoFiles {
  return {
    model: `${folder}/model`,
    base64: `${folder}/base-64.jsonl`,
    base256: `${folder}/base-256.bin`,
    extend: `${folder}/extend-1024.jsonl`,
    heldOut: `${folder}/held-out.bin`,
    recall: Object.fromEntries(
      RECALL_DISTANCES.map(({ length }) => [length, `${folder}/recall-${length}.jsonl`]),
    ),
  };
}

/**
 * Writes the demo's data into a folder; the same seed gives the same bytes. Every file draws from a stream of its own, so
 * that held-out documents stay the same when a training set grows.
 *
 * @param options.baseTraining false leaves out what only the base model was trained on, which is most of it
 */
export async function writeDemoData(
  folder: string,
  seed: number,
  { baseTraining = true }: { readonly baseTraining?: boolean } = {},
): Promise<DemoFiles> {
  const files = demoFiles(folder);
  await writeModelFolder(files.model);
  const tokenizer = await Tokenizer.load(files.model);
  const encode = (text: string) => tokenizer.encode(text, { bos: true, eos: false });
  const stream = (index: number) => new Random(seed * 16 + index);

  if (baseTraining) {
    await writeRows(files.base64, ROWS.base64, stream(0), (random, row) => ({
      text: row % 2 === 0 ? repeatDocument(random, 64) : factDocument(random, 64).text,
    }));
    await writeTokenBin(files.base256, longDocuments(ROWS.base256, stream(1)).flatMap(encode));
  }
  await writeRows(files.extend, ROWS.extend, stream(2), (random) => ({
    text: factDocument(random, EXTENDED_CONTEXT).text,
  }));
  await writeTokenBin(files.heldOut, longDocuments(ROWS.heldOut, stream(3)).flatMap(encode));
  for (const [index, { length, ...distances }] of RECALL_DISTANCES.entries()) {
    const random = stream(4 + index);
    await writeRows(files.recall[length]!, ROWS.recall, random, () => recallCase(random, length, distances));
  }
  return files;
}

/** Writes config.json and the tokenizer: a model folder that `train_from_scratch` can start from. */
async function writeModelFolder(folder: string): Promise<void> {
  await Deno.mkdir(folder, { recursive: true });
  const files = {
    "config.json": demoConfig(),
    "tokenizer.json": demoTokenizer(),
    "tokenizer_config.json": demoTokenizerConfig(),
  };
  for (const [name, content] of Object.entries(files)) {
    await Deno.writeTextFile(`${folder}/${name}`, JSON.stringify(content, null, 2) + "\n");
  }
}

function longDocuments(count: number, random: Random): string[] {
  return Array.from({ length: count }, () => factDocument(random, EXTENDED_CONTEXT).text);
}

async function writeRows(
  path: string,
  count: number,
  random: Random,
  row: (random: Random, index: number) => unknown,
): Promise<void> {
  const lines = Array.from({ length: count }, (_, index) => JSON.stringify(row(random, index)) + "\n");
  await Deno.writeTextFile(path, lines.join(""));
}
