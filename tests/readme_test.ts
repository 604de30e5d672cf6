/** README's command lines: each parses, and those that work on a model of one's own run as they are printed. */
import { formatBytes } from "../text.ts";
import { allCommands, runCli } from "../cli/main.ts";
import { runCommand } from "../cli/flags.ts";
import config from "../deno.json" with { type: "json" };
import { shapeConfig } from "../model/shapes.ts";
import { planTraining } from "../train/plan/plan.ts";
import { TYPICAL_DEVICE } from "../train/plan/step_cost.ts";
import { loadTrainArgs } from "../train_args/load.ts";
import { MemoryIo } from "./cli/memory_io.ts";
import { assert, assertEquals } from "./support/assert_close.ts";
import { GOLDEN, withFolder } from "./support/files.ts";
import { makePdf } from "./support/make_pdf.ts";

const ROOT = new URL("..", import.meta.url).pathname;

/** The words behind `./longreach` or `deno task` of every command line in the blocks of a Markdown text. */
function commandLines(markdown: string): string[][] {
  const blocks = [...markdown.matchAll(/^```sh\n([\s\S]*?)^```/gm)].map(([, block]) => block!);
  return blocks.join("\n").replaceAll(/\\\n/g, " ").split("\n")
    .map((line) => line.replace(/(^|\s)#.*$/, "").trim())
    .filter((line) => line !== "")
    .flatMap((line) => line.split(/\s+&&\s+/))
    .map((line) => /^(?:nohup )?(?:\.\/longreach|deno task) (.*)$/.exec(line)?.[1])
    .filter((line) => line !== undefined)
    .map((line) =>
      [...line.matchAll(/"([^"]*)"|'([^']*)'|(\S+)/g)].map((match) => match[1] ?? match[2] ?? match[3]!)
    );
}

const LINES = commandLines(await Deno.readTextFile(`${ROOT}README.md`));

/** Commands that need no hub, in the order in which they follow each other. */
const RUN = ["plan", "train", "tokenize", "evaluate", "merge", "inference", "convert"];
/** Of README's sequence: what makes it run in seconds on a small model. */
const SMALL: Readonly<Record<string, readonly string[]>> = {
  plan: ["--no-rates"],
  inference: ["--max_gen_len=4"],
  train: [
    "--model_max_length=128",
    "--max_seq_length=128",
    "--max_steps=2",
    "--gradient_accumulation_steps=1",
    "--lora_rank=4",
    "--dataset_cache_dir=false",
  ],
};

Deno.test("commandLines() joins lines, and drops comments and what is no command of Longreach", () => {
  const text =
    "`./longreach no`\n```sh\ngit clone x\n./longreach train a.yaml \\\n  --json   # as JSON\n# no\n" +
    "deno task plan --x 'a b' && ./longreach merge\n```\n";
  assertEquals(commandLines(text), [["train", "a.yaml", "--json"], ["plan", "--x", "a b"], ["merge"]]);
});

Deno.test("every command line of README names a command, flags that it has, and files that are there", async () => {
  assert(LINES.length >= 5, "README has command lines");
  const commands = await allCommands(new MemoryIo());
  for (const [name = "", ...words] of LINES) {
    const line = [name, ...words].join(" ");
    assert(Object.hasOwn(config.tasks, name), `${line}: no such command`);
    for (const word of words.filter((word) => /^(train_args|demo|examples|docs)\//.test(word))) {
      assert(await Deno.stat(ROOT + word).then(() => true, () => false), `${line}: no file ${word}`);
    }
    const command = commands.find(({ command }) => command.name() === name)?.command;
    if (command === undefined) continue;
    command.action(() => {});
    await runCommand(command, words).catch((error) => {
      throw new Error(`${line}: ${error.message}`, { cause: error });
    });
  }
});

Deno.test("README's sequence runs as it is printed, with a small model in place of the hub's", async () => {
  await withFolder(async (root) => {
    const ran: string[] = [];
    for (const [name = "", ...words] of LINES.filter(([name]) => RUN.includes(name!))) {
      const given = await Promise.all(words.map((word) => placed(word, root)));
      if (name === "train" && !words.includes("--output_dir")) {
        given.push("--output_dir", `${root}/output/own`);
      }
      const io = new MemoryIo();
      const code = await runCli([name, ...given, ...SMALL[name] ?? []], io);
      assertEquals(code, 0, `${[name, ...given].join(" ")}\n${io.stderr}`);
      ran.push(name);
    }
    assertEquals(RUN.filter((name) => !ran.includes(name) && name !== "tokenize"), []);
  });
});

Deno.test("README's table of what fits is what plan says", async () => {
  const readme = await Deno.readTextFile(`${ROOT}README.md`);
  const rows = [
    ...readme.matchAll(/^\| (Llama-[\w-]+), ([\d,]+), (\d+) *\| ([\d.]+ GiB) *\| ([\d.]+ GiB)? *\|$/gm),
  ];
  assert(rows.length >= 4, "the rows are found");
  for (const [row, model = "", tokens = "", rank = "", device, host] of rows) {
    const length = Number(tokens.replaceAll(",", ""));
    // The others take longer than a test should.
    if (length > 81_920 || model.includes("70B")) continue;
    const { args } = await loadTrainArgs(null, {
      model_name_or_path: model,
      train_file: "-",
      output_dir: "-",
      model_max_length: String(length),
      bf16: "true",
      lora_rank: rank,
      offload_activations: String(host !== undefined),
    });
    const shape = shapeConfig(model.toLowerCase().replace(/^llama-/, "llama"));
    const plan = await planTraining(args, shape, { device: { ...TYPICAL_DEVICE, maxBindingBytes: 2 ** 31 } });
    const planned = [plan.peak.heldBytes, ...host === undefined ? [] : [plan.hostBytes]].map(formatBytes);
    assertEquals(planned, [device, ...host === undefined ? [] : [host]], row);
  }
});

/** A word of a command line with this test's files in place of README's, which are made where they are missing. */
async function placed(word: string, root: string): Promise<string> {
  if (/^(train_args|demo|examples)\//.test(word)) return ROOT + word;
  if (/^[\w-]+\/[\w.-]+-hf$/.test(word)) return `${GOLDEN}/mha`;
  if (/^(8192|16384|32768|65536|\d+k)$/.test(word)) return "128";
  if (word.startsWith("--") || !/[/.]/.test(word) || Number.isFinite(Number(word))) return word;
  const path = `${root}/${word}`;
  await Deno.mkdir(path.replace(/\/[^/]*$/, ""), { recursive: true });
  const text = Array.from({ length: 60 }, (_, i) => `the ${i * 37 % 101} lamps of harbour ${i}`).join(", ");
  const exists = await Deno.stat(path).then(() => true, () => false);
  if (word.endsWith("/")) await Deno.writeTextFile(`${path}a.txt`, text);
  if (!exists && word.endsWith(".pdf")) {
    await Deno.writeFile(path, makePdf([[{ text: "The lamps of harbour 7.", x: 72, y: 700 }]]));
  }
  if (!exists && word.endsWith(".txt")) await Deno.writeTextFile(path, text);
  if (!exists && word.endsWith(".jsonl")) {
    await Deno.writeTextFile(path, `${JSON.stringify({ text })}\n`.repeat(3));
  }
  return path;
}
