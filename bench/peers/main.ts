/**
 * Our kernels and models against other WebGPU libraries on the same adapter, in the same run, in turn:
 * `deno task bench:peers`.
 * A project of its own beside the product, which needs none of those libraries.
 */
import { formatMs, formatTable } from "../../text.ts";
import { type Io, terminalIo } from "../../cli/io.ts";
import { EXIT, exitCodeOf } from "../../cli/exit.ts";
import { UserError } from "../../errors.ts";
import { Gpu } from "../../kernels/gpu.ts";
import { processorMs } from "../clock.ts";
import { parseArgs } from "../deps.ts";
import { lookAround } from "../result.ts";
import { attentionContest, attentionGradientContest } from "./attention.ts";
import { type Contest, type ContestResult, hold, type Timing } from "./contest.ts";
import { mlpContest } from "./mlp.ts";
import { parseConfig, readConfig } from "../../model/config.ts";
import type { ModelConfig } from "../../model/model_config.ts";
import { fourBitContest, productContest } from "./products.ts";
import { decodeContest, prefillContest, type WholeModel } from "./whole_model.ts";

const HELP = `Usage: deno task bench:peers [flags]

Longreach against jax-js and onnxruntime-web: values are checked first, then all are timed in turn.

  --models       whole models against onnxruntime-web, in place of kernels: a prompt read, tokens written
  --filter TEXT  contests with this regular expression in their name or shape
  --rounds N     times that each is measured at least (default 5); the best counts
  --clock CLOCK  cpu: processor time of the process (default on a software adapter, where the task also sets
                 LP_NUM_THREADS=1); wall: the clock on the wall, less what waiting takes (default on a GPU)
  --json FILE    writes the result
  --help         this text
`;

/** Shapes of the contests: what an adapter finishes in some minutes. */
const SIZES = {
  software: {
    products: [[256, 1024, 1024], [512, 2048, 2048], [1024, 4096, 1024]],
    fourBits: [[1, 1024, 1024], [256, 1024, 1024], [512, 2048, 2048]],
    attention: [{ heads: 8, tokens: 512, headDim: 64 }, { heads: 8, tokens: 1024, headDim: 64 }],
    gradient: [{ heads: 8, tokens: 1024, headDim: 64 }],
    mlp: [[256, 1024, 2816]],
    prompts: [256, 1024],
  },
  gpu: {
    products: [[512, 4096, 4096], [4096, 4096, 4096], [4096, 11008, 4096]],
    fourBits: [[1, 4096, 4096], [512, 4096, 4096], [4096, 4096, 4096]],
    attention: [{ heads: 32, tokens: 2048, headDim: 128 }, { heads: 32, tokens: 4096, headDim: 128 }],
    gradient: [{ heads: 32, tokens: 2048, headDim: 128 }],
    mlp: [[2048, 4096, 11008]],
    prompts: [1024, 4096],
  },
} as const;

const DEMO_MODEL = new URL("../../demo/model", import.meta.url).pathname;
const LLAMA2 = { model_type: "llama", vocab_size: 32000, max_position_embeddings: 4096, rms_norm_eps: 1e-5 };
/** Larger models: 45 million weights, and TinyLlama's shape. */
const LARGER = {
  software: {
    ...LLAMA2,
    hidden_size: 512,
    intermediate_size: 1408,
    num_hidden_layers: 4,
    num_attention_heads: 8,
    num_key_value_heads: 4,
  },
  gpu: {
    ...LLAMA2,
    hidden_size: 2048,
    intermediate_size: 5632,
    num_hidden_layers: 22,
    num_attention_heads: 32,
    num_key_value_heads: 4,
  },
} as const;

/** Waits that tell what waiting itself takes. */
const EMPTY_WAITS = 5;

async function main(words: readonly string[], io: Io): Promise<number> {
  const { values } = parseArgs({
    args: [...words],
    options: {
      models: { type: "boolean", default: false },
      filter: { type: "string" },
      rounds: { type: "string", default: "5" },
      clock: { type: "string" },
      json: { type: "string" },
      help: { type: "boolean", short: "h" },
    },
  });
  if (values.help) {
    io.out(HELP.trimEnd());
    return EXIT.ok;
  }
  using gpu = await Gpu.open();
  const clock = values.clock ?? (gpu.info.isSoftware ? "cpu" : "wall");
  if (clock !== "cpu" && clock !== "wall") {
    throw new UserError(`--clock: must be cpu or wall, got "${clock}"`, { kind: "usage" });
  }
  const rounds = Number(values.rounds);
  if (!Number.isInteger(rounds) || rounds < 1) {
    throw new UserError(`--rounds: must be a whole number above 0, got "${values.rounds}"`, {
      kind: "usage",
    });
  }
  const timing = await timingOf(gpu, clock, rounds);
  const filter = new RegExp(values.filter ?? "", "i");
  const all = values.models ? await modelContests(gpu) : kernelContests(gpu);
  const contests = all.filter(({ op, shape }) => filter.test(`${op} ${shape}`));
  // Before the contests: files may change while they run.
  const around = {
    ...await lookAround(gpu.info, "cpu", []),
    clock,
    command: `deno task bench:peers ${words.join(" ")}`.trim(),
  };
  const results: ContestResult[] = [];
  for (const contest of contests) {
    io.err(`${contest.op} ${contest.shape}`);
    // A model's work is long enough that a few rounds tell.
    const result = await hold(contest, contest.tokens === undefined ? timing : { ...timing, contestMs: 0 });
    results.push(result);
    for (const { name, bestMs } of result.scores) io.err(`  ${name}: ${formatMs(bestMs)}`);
  }
  io.out(describe(results));
  io.out(
    `\n${around.adapter}${
      around.threads === null ? "" : `, LP_NUM_THREADS=${around.threads}`
    }; Deno ${around.deno}; ` +
      `commit ${around.commit}${around.dirty ? " with changes" : ""}; ${around.date}; ` +
      `best of ${rounds} rounds or more by ${clock === "cpu" ? "processor time" : "the clock on the wall"}`,
  );
  if (values.json !== undefined) {
    await Deno.writeTextFile(
      values.json,
      JSON.stringify(
        { version: 1, kind: values.models ? "models" : "peers", surroundings: around, contests: results },
        null,
        1,
      ) + "\n",
    );
  }
  return EXIT.ok;
}

function kernelContests(gpu: Gpu): Contest[] {
  const sizes = SIZES[gpu.info.isSoftware ? "software" : "gpu"];
  return [
    ...sizes.products.map((size) => productContest(gpu, size)),
    ...sizes.fourBits.map((size) => fourBitContest(gpu, size)),
    ...sizes.attention.map((size) => attentionContest(gpu, size)),
    ...sizes.gradient.map((size) => attentionGradientContest(gpu, size)),
    ...sizes.mlp.map((size) => mlpContest(gpu, size)),
  ];
}

/** The demo's shape and a larger one, in f32, in f16 and with 4 bits. */
async function modelContests({ info }: Gpu): Promise<Contest[]> {
  const kind = info.isSoftware ? "software" : "gpu";
  const [demo, larger] = [await readConfig(DEMO_MODEL), parseConfig(LARGER[kind], "the larger model")];
  const models = [{ name: "demo", config: demo }, { name: nameOf(larger), config: larger }];
  const wholes = models.flatMap((model) =>
    (["f32", "f16", "4-bit"] as const).flatMap((format) =>
      SIZES[kind].prompts.map((prompt): WholeModel => ({ ...model, format, prompt }))
    )
  );
  return wholes.flatMap((whole) => [prefillContest(whole), decodeContest(whole)]);
}

function nameOf({ hidden_size, num_hidden_layers, vocab_size }: ModelConfig): string {
  return `C${hidden_size} ${num_hidden_layers} layers V${vocab_size}`;
}

async function timingOf(gpu: Gpu, clock: "cpu" | "wall", rounds: number): Promise<Timing> {
  const now = clock === "cpu" ? processorMs : () => performance.now();
  const waits: number[] = [];
  for (let i = 0; i < EMPTY_WAITS; i++) {
    const start = now();
    await gpu.settle();
    waits.push(now() - start);
  }
  return { now, waitMs: Math.min(...waits), rounds, contestMs: 20_000, sampleMs: 200 };
}

function describe(results: readonly ContestResult[]): string {
  const rows = results.flatMap(({ op, shape, scores }) =>
    scores.map(({ name, bestMs, medianMs, gflops, tokensPerSecond, error, ratio, goal }, i) => [
      i === 0 ? op : "",
      i === 0 ? shape : "",
      name,
      formatMs(bestMs),
      formatMs(medianMs),
      gflops.toFixed(1),
      tokensPerSecond?.toFixed(1) ?? "",
      error.toExponential(1),
      i === 0 ? "" : ratio === null ? "WRONG" : `${ratio.toFixed(2)}x`,
      goal === null ? "" : `${goal}x ${ratio !== null && ratio >= goal ? "met" : "missed"}`,
    ])
  );
  const head = [
    "contest",
    "shape",
    "by",
    "best",
    "median",
    "GFLOP/s",
    "tokens/s",
    "error",
    "ours is",
    "goal",
  ];
  return formatTable([head, ...rows], "lllrrrrrrr");
}

if (import.meta.main) {
  const from = Deno.env.get("INIT_CWD");
  if (from !== undefined && from !== "") Deno.chdir(from);
  const io = terminalIo();
  try {
    Deno.exit(await main(Deno.args, io));
  } catch (error) {
    if (!(error instanceof UserError)) throw error;
    io.err(error.message);
    Deno.exit(exitCodeOf(error));
  }
}
