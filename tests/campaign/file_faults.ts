/**
 * Fails every file operation of every command that writes, one after the other and in each way: what was there before
 * must stay whole, nothing half-made may stay, and the failure must be told in one line.
 */
import { runCli } from "../../cli/main.ts";
import { verify } from "../../checkpoint/store.ts";
import { MemoryIo } from "../cli/memory_io.ts";
import { FAULTS, withFault } from "../support/faulty_disk.ts";
import { GOLDEN, namesIn } from "../support/files.ts";
import type { CampaignOptions, CampaignRow } from "./campaign.ts";

/** A command that makes `out` in a folder. */
interface Subject {
  readonly part: string;
  readonly words: (folder: string) => readonly string[];
  /** What a folder holds before it; nothing unless given. */
  readonly prepare?: (folder: string) => Promise<void>;
  /** Files below the folder that must come out the same, whatever failed on the way, where the command succeeds. */
  readonly results: readonly string[];
  /** Trials take long: of the ways to fail, each operation meets one. */
  readonly inTurn?: boolean;
}

const MODEL = `${GOLDEN}/mha`;
const flags = (values: Record<string, string | number>) =>
  Object.entries(values).map(([name, value]) => `--${name}=${value}`);

const trainWords = (folder: string, max_steps = 2) => [
  "train",
  ...flags({
    model_name_or_path: MODEL,
    train_file: `${GOLDEN}/train.jsonl`,
    sft: "false",
    model_max_length: 64,
    lora_rank: 2,
    save_steps: 1,
    save_total_limit: 1,
    output_dir: `${folder}/out`,
    dataset_cache_dir: `${folder}/cache`,
    resume_from_checkpoint: "true",
    max_steps,
  }),
];

async function runWords(words: readonly string[]): Promise<{ code: number; io: MemoryIo }> {
  const io = new MemoryIo();
  return { code: await runCli(words, io), io };
}

async function mustRun(words: readonly string[]): Promise<void> {
  const { code, io } = await runWords(words);
  if (code !== 0) throw new Error(`It fails without any fault: ${io.stderr}`);
}

const convert = (part: string, to: string, results: readonly string[]): Subject => ({
  part,
  words: (folder) => ["convert", ...flags({ model: MODEL, to, save_path: `${folder}/out` })],
  results,
});

export const SUBJECTS: readonly Subject[] = [
  {
    part: "tokenize",
    prepare: (folder) => Deno.writeTextFile(`${folder}/text.txt`, "some words ".repeat(50)),
    words: (folder) => [
      "tokenize",
      ...flags({ model_name_or_path: MODEL, data_path: `${folder}/text.txt`, save_path: `${folder}/out` }),
    ],
    results: ["out", "out.json"],
  },
  convert("convert to GGUF", "gguf", ["out"]),
  convert("convert to safetensors", "safetensors", ["out/model.safetensors", "out/config.json"]),
  convert("convert to 4 bits", "bnb-4bit", ["out/model.safetensors", "out/config.json"]),
  {
    part: "merge",
    words: (folder) => [
      "merge",
      ...flags({ base_model: MODEL, peft_model: `${GOLDEN}/adapter`, save_path: `${folder}/out` }),
    ],
    results: ["out/model.safetensors", "out/tokenizer.json"],
    inTurn: true,
  },
  {
    part: "train",
    // One checkpoint is there, from which it goes on.
    prepare: async (folder) => {
      await mustRun(trainWords(folder, 2));
      for (const name of namesIn(`${folder}/out`)) {
        if (!name.startsWith("checkpoint-")) await Deno.remove(`${folder}/out/${name}`, { recursive: true });
      }
    },
    words: (folder) => trainWords(folder, 3),
    results: ["out/adapter_model.safetensors", "out/adapter_config.json"],
    inTurn: true,
  },
];

const isLeftover = (name: string) => /\.(tmp|trash)-|\.partial$/.test(name);

/** Unfinished files and folders anywhere below a folder. */
function leftovers(folder: string): string[] {
  return [...Deno.readDirSync(folder)].flatMap(({ name, isDirectory }) => {
    if (isLeftover(name)) return [name];
    return isDirectory ? leftovers(`${folder}/${name}`).map((inner) => `${name}/${inner}`) : [];
  });
}

async function copyTree(from: string, to: string): Promise<void> {
  await Deno.mkdir(to, { recursive: true });
  for await (const { name, isDirectory } of Deno.readDir(from)) {
    if (isDirectory) await copyTree(`${from}/${name}`, `${to}/${name}`);
    else await Deno.copyFile(`${from}/${name}`, `${to}/${name}`);
  }
}

async function bytesOf(path: string): Promise<string | undefined> {
  return await Deno.readFile(path).then((bytes) => bytes.toBase64(), () => undefined);
}

/** What is wrong after a run with a fault. */
async function wrongAfter(
  folder: string,
  { results }: Subject,
  expected: ReadonlyMap<string, string | undefined>,
  { code, io }: { code: number; io: MemoryIo },
  failed: string,
): Promise<string[]> {
  const wrong: string[] = [];
  const last = io.stderr.trimEnd().split("\n").at(-1) ?? "";
  // 2 where a checkpoint that cannot be read leaves nothing to go on from.
  if (code > 2) wrong.push(`it ends with ${code}`);
  if (/bug in Longreach|^ {4}at /m.test(io.stderr)) wrong.push(`no line for users: ${io.stderr.slice(-300)}`);
  if (code > 0 && (last.length < 20 || last.length > 600)) wrong.push(`no clear line: ${last}`);
  const left = leftovers(folder);
  // What cannot be removed stays until the next start.
  if (left.length > 0 && !failed.startsWith("remove")) wrong.push(`left: ${left.join(", ")}`);
  for (const name of results) {
    const bytes = await bytesOf(`${folder}/${name}`);
    if (bytes === undefined ? code === 0 : bytes !== expected.get(name)) {
      wrong.push(`${name} is missing or differs`);
    }
  }
  const out = `${folder}/out`;
  const names = await Deno.stat(out).then(({ isDirectory }) => isDirectory ? namesIn(out) : [], () => []);
  const checkpoints = names.filter((name) => /^checkpoint-\d+$/.test(name));
  for (const name of checkpoints) {
    await verify(`${out}/${name}`).catch((error) => wrong.push(`corrupt: ${error.message}`));
  }
  return wrong;
}

async function* runSubject(subject: Subject, most: number, say: CampaignOptions["say"]) {
  const root = await Deno.makeTempDir({ prefix: "longreach-faults-" });
  const faults: string[] = [];
  const counts = { operations: 0, "told in a line": 0, "gone on": 0 };
  let tried = 0;
  try {
    const prepared = `${root}/prepared`;
    await Deno.mkdir(prepared);
    await subject.prepare?.(prepared);
    const whole = `${root}/whole`;
    await copyTree(prepared, whole);
    const { operations } = await withFault(whole, 0, "EIO", () => mustRun(subject.words(whole)));
    const trials = Math.min(most, operations * (subject.inTurn ? 1 : FAULTS.length));
    const step = Math.ceil(operations * FAULTS.length / trials);
    counts.operations = operations;
    const expected = new Map<string, string | undefined>();
    for (const name of subject.results) expected.set(name, await bytesOf(`${whole}/${name}`));
    for (const [kind, fault] of FAULTS.entries()) {
      // With fewer trials than operations, those of the kinds lie between each other.
      for (let n = 1 + Math.floor(kind * step / FAULTS.length);; n += step) {
        const folder = `${root}/trial`;
        await copyTree(prepared, folder);
        const { result, failed } = await withFault(folder, n, fault, () => runWords(subject.words(folder)));
        if (failed !== undefined) {
          tried++;
          counts[result.code === 0 ? "gone on" : "told in a line"]++;
          const wrong = await wrongAfter(folder, subject, expected, result, failed);
          faults.push(
            ...wrong.map((what) => `${subject.part}: ${fault} at operation ${n} (${failed}): ${what}`),
          );
          if (leftovers(folder).length > 0) {
            await runWords(subject.words(folder));
            const still = leftovers(folder);
            if (still.length > 0) faults.push(`${subject.part}: ${fault} at ${n}: still left: ${still}`);
          }
        }
        await Deno.remove(folder, { recursive: true });
        if (failed === undefined) break;
      }
      say(`  ${subject.part}: ${fault} at every operation, ${tried} trials, ${faults.length} faults`);
    }
  } finally {
    await Deno.remove(root, { recursive: true });
  }
  yield { part: subject.part, tried, counts, faults } satisfies CampaignRow;
}

/** Runs the campaign; with `count`, about as many trials of each part, spread over its operations. */
export async function* run(options: CampaignOptions): AsyncGenerator<CampaignRow> {
  const { count = Infinity, only, say } = options;
  for (const subject of SUBJECTS.filter(({ part }) => only === undefined || part === only)) {
    yield* runSubject(subject, count, say);
  }
}
