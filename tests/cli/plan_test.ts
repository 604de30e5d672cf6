import { runCli } from "../../cli/main.ts";
import { assert, assertEquals } from "../support/assert_close.ts";
import { withFolder } from "../support/files.ts";
import { assertIncludes } from "../support/text.ts";
import { MemoryIo } from "./memory_io.ts";

async function plan(...words: string[]): Promise<{ code: number; io: MemoryIo }> {
  const io = new MemoryIo();
  return { code: await runCli(["plan", ...words], io), io };
}

/** A small model, planned for without measuring. */
const SMALL = [
  "--model_name_or_path",
  "tests/golden/mha",
  "--max_seq_length",
  "128",
  "--max_binding",
  "128MiB",
];

Deno.test("plan shows settings, memory, arithmetic and whether it fits", async () => {
  const { code, io } = await plan(
    "--shape",
    "llama2-7b",
    "--max_seq_length",
    "8192",
    "--bf16",
    "--max_binding",
    "2GiB",
    "--max_memory",
    "10GiB",
  );
  assertEquals([code, io.stderr], [0, ""]);
  for (
    const part of [
      "llama2-7b, 6,738,415,616 parameters, base in 4 bits",
      "1 x 1 x 8,192 tokens, S2-Attn in 4 groups of 2,048, activations in bf16",
      "Memory on the device at its peak: backward, layer 32",
      "base model                 3.6 GiB",
      "Host memory        0 B",
      "of 2.0 GiB",
      "It fits in 10.0 GiB",
      "Time of a step: not known",
    ]
  ) assertIncludes(io.stdout, part);
  // Forward products of section 8.1 of the papers' facts.
  assertIncludes(io.stdout.replace(/ +/g, " "), "projections 35.2 35.2 35.2");
});

Deno.test("plan --json is one object whose bytes add up", async () => {
  const { code, io } = await plan(...SMALL, "--json");
  assertEquals([code, io.stderr], [0, ""]);
  const record = JSON.parse(io.stdout);
  const bytes = Object.values(record.bytes as Record<string, number>).reduce((a, b) => a + b, 0);
  assertEquals([record.fits, record.seconds, bytes + record.idle_bytes], [null, null, record.peak_bytes]);
  assertEquals(record.max_binding_bytes, 128 * 2 ** 20);
  assert(record.flops.forward.attention > 0 && record.tokens === 128, "flops and tokens");
});

Deno.test("plan measures the adapter to tell the time of a step", async () => {
  const { code, io } = await plan(...SMALL.slice(0, 4));
  assertEquals([code, io.stderr], [0, ""]);
  assert(/Time of a step: about [\d.]+s, [\d.,]+ tokens\/s/.test(io.stdout), io.stdout);
  assertIncludes(io.stdout, "GFLOP/s");
});

Deno.test("plan tells what many ranks cost, and what each of those that share a batch holds", async () => {
  const words = [...SMALL, "--ranks", "8", "--sequence_parallel_size", "3", "--bandwidth", "0.1"];
  const refused = await plan(...words);
  assertEquals([refused.code, refused.io.stdout], [2, ""]);
  assertIncludes(refused.io.stderr, "8 ranks cannot share batches by 3");
  words[words.indexOf("8")] = "6";
  const { code, io } = await plan(...words);
  assertEquals([code, io.stderr], [0, ""]);
  assertIncludes(io.stdout, "6 ranks, 256 tokens a step, 3 share each batch");
  assertIncludes(io.stdout, "tokens of a batch that they hold  32, 64, 32");
  const record = JSON.parse((await plan(...words, "--json")).io.stdout);
  assertEquals(record.ranks.map(({ rows }: { rows: number }) => rows), [32, 64, 32]);
  const { exchanges, exchanged_bytes, step_seconds } = record.scaling;
  // Two layers, forward and backward; 16 rows of keys and values of half of 4 heads of 16 numbers.
  assertEquals([exchanges, exchanged_bytes, step_seconds], [4, 4 * 2 * 16 * 32 * 4, null]);
});

Deno.test("plan exits 3 with the changes to make where a run does not fit", async () => {
  const { code, io } = await plan(...SMALL, "--load_in_4bit", "false", "--max_memory", "1700KB");
  assertEquals([code, io.stderr], [3, "This does not fit in max_memory\n"]);
  assertIncludes(io.stdout, "It does not fit in 1.6 MiB");
  assert(/lora_rank: 8 +saves .* leaves .*/.test(io.stdout), io.stdout);
});

Deno.test("plan tells the run: steps, tokens and time", async () => {
  const words = [...SMALL.slice(0, 4)];
  const steps = await plan(...words, "--max_steps", "1000");
  assert(/The run: 1,000 steps, up to 128,000 tokens, about \d/.test(steps.io.stdout), steps.io.stdout);
  const epochs = await plan(...words, "--num_train_epochs", "2", "--no-rates");
  assertIncludes(epochs.io.stdout, "The run: 2 epochs of the data\n");
});

Deno.test("plan --json has attention's share of a forward pass as LongLoRA counts it", async () => {
  // Llama-2-7B in full attention, from the paper's table of FLOPs.
  for (const [tokens, share, s2] of [[8192, 24.5, 7.5], [16384, 39.4, 14.0], [65536, 72.2, 39.4]] as const) {
    const words = [
      "--shape",
      "llama2-7b",
      "--max_seq_length",
      String(tokens),
      "--max_binding",
      "2GiB",
      "--json",
    ];
    const { papers } = JSON.parse((await plan(...words, "--bf16")).io.stdout);
    const percent = [papers.full, papers.s2].map(({ attention_share }) => (100 * attention_share).toFixed(1));
    assertEquals(percent, [share.toFixed(1), s2.toFixed(1)]);
  }
});

Deno.test("a plan that does not fit is one JSON object too", async () => {
  const { code, io } = await plan(...SMALL, "--load_in_4bit", "false", "--max_memory", "1700KB", "--json");
  const { fits, phase, suggestions } = JSON.parse(io.stdout);
  assertEquals([code, io.stdout.trimEnd().split("\n").length, fits], [3, 1, false]);
  assert(/^(loading|embedding|forward|loss|backward|optimiser)/.test(phase), phase);
  const ranks = suggestions.map(({ change }: { change: { lora_rank?: number } }) => change.lora_rank);
  assert(ranks.includes(8), io.stdout);
});

Deno.test("plan --longest says how long a context may be", async () => {
  const words = ["--longest", "--shape", "llama2-7b", "--bf16", "--offload_activations", "false"];
  const { code, io } = await plan(...words, "--max_binding", "2GiB", "--max_memory", "8GiB", "--json");
  assertEquals(code, 0);
  assertIncludes(io.stderr, "size of memory 1/1");
  const [row] = JSON.parse(io.stdout);
  assert(row.tokens > 4096 && row.tokens < 32768 && row.s2_flops < row.full_flops, io.stdout);
});

Deno.test("plan refuses a shape that is not known, and a missing length", async () => {
  const unknown = await plan("--shape", "llama9", "--max_seq_length", "64");
  assertEquals(unknown.code, 2);
  assertIncludes(unknown.io.stderr, "llama2-7b");
  const missing = await plan("--shape", "llama2-7b");
  assertEquals(missing.code, 2);
  assertIncludes(missing.io.stderr, "Cannot plan without a length (--model_max_length");
  const nothing = await plan();
  assertEquals(nothing.code, 2);
  assertIncludes(
    nothing.io.stderr,
    "Cannot plan without a model (--model_name_or_path, or --shape: llama2-7b",
  );
  assertIncludes(nothing.io.stderr, "and a length");
  const help = await plan("--help");
  assert(!help.io.stdout.includes("Required:"), "a plan needs no output_dir");
});

Deno.test("plan takes what a run needs and a plan does not as given, with a file and without", async () => {
  await withFolder(async (folder) => {
    const file = `${folder}/my.yaml`;
    await Deno.writeTextFile(file, "model_max_length: 64\nmax_length: 32\n");
    const shape = ["--shape", "pythia-1.4b", "--max_binding", "2GiB"];
    const short = await plan(file, ...shape);
    assertEquals([short.code, short.io.stderr.includes("replaces")], [0, false], short.io.stderr);
    assertIncludes(short.io.stdout, "1 x 1 x 32 tokens");
    const mix = await plan(...SMALL, "--train_data", "a.jsonl,b.jsonl");
    assertEquals(mix.code, 0, mix.io.stderr);
    await Deno.writeTextFile(file, "lora_rank: 2\n");
    assertEquals((await plan(file, ...shape)).code, 2, "no length");
  });
});
