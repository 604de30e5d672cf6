import { ALONE, type Communicator } from "../../distributed/communicator.ts";
import { Gpu, type GpuOptions } from "../../kernels/gpu.ts";
import { assemble, readInterface } from "../../kernels/wgsl.ts";
import { quantisationOf } from "../../model/quantisation.ts";
import { makeBatch, type Sequence } from "../../model/batch.ts";
import { parseConfig } from "../../model/config.ts";
import type { ModelConfig } from "../../model/model_config.ts";
import { freshWeights } from "../../model/load/fresh.ts";
import { loadModel } from "../../model/load/load.ts";
import { shapeConfig } from "../../model/shapes.ts";
import { describeAttention } from "../../train/describe.ts";
import type { TrainInfo } from "../../train/hooks.ts";
import { planTraining, requireFit } from "../../train/plan/plan.ts";
import { longestContext } from "../../train/plan/longest_context.ts";
import { CHUNK_BYTES } from "../../model/language_model.ts";
import { resolvePlacement } from "../../train/plan/placement.ts";
import { runTraining } from "../../train/run.ts";
import { addFreshLora, trainedNames } from "../../train/lora.ts";
import { formatOf, type Placement, trainerOptions } from "../../train/options.ts";
import { type PlanDevice, planDevice, stepCost, TYPICAL_DEVICE } from "../../train/plan/step_cost.ts";
import { Trainer } from "../../train/trainer.ts";
import { loadTrainArgs, type TrainArgs } from "../../train_args/load.ts";
import { assert, assertEquals, assertThrows } from "../support/assert_close.ts";
import { namesIn, withFolder } from "../support/files.ts";
import { integers } from "../support/random.ts";
import { playRanks } from "../support/ranks.ts";

const GIB = 2 ** 30;

const SMALL: ModelConfig = parseConfig({
  model_type: "llama",
  vocab_size: 75,
  hidden_size: 64,
  intermediate_size: 176,
  num_hidden_layers: 3,
  num_attention_heads: 4,
  num_key_value_heads: 2,
  max_position_embeddings: 1024,
  torch_dtype: "float32",
}, "tests");
/** Another shape: head and embeddings are one, biases everywhere, a large vocabulary. */
const TIED: ModelConfig = parseConfig({
  ...SMALL.raw,
  vocab_size: 1500,
  num_hidden_layers: 2,
  num_key_value_heads: 4,
  tie_word_embeddings: true,
  attention_bias: true,
  mlp_bias: true,
}, "tests");

/** Heads wider than the hidden size, and narrower. */
const WIDE: ModelConfig = parseConfig({ ...SMALL.raw, head_dim: 32 }, "tests");
const NARROW: ModelConfig = parseConfig({ ...SMALL.raw, head_dim: 8, num_key_value_heads: 1 }, "tests");

/** Another architecture. */
const NEOX: ModelConfig = parseConfig({
  ...SMALL.raw,
  model_type: "gpt_neox",
  intermediate_size: 256,
}, "tests");

/** Norms on q and k, and a window in two of three layers. */
const NORMED: ModelConfig = parseConfig({
  ...SMALL.raw,
  model_type: "qwen3",
  head_dim: 32,
  use_sliding_window: true,
  max_window_layers: 1,
  sliding_window: 48,
}, "tests");

/** Norms behind the blocks and over all heads of q and k. */
const BEHIND: ModelConfig = parseConfig({ ...SMALL.raw, model_type: "olmo2" }, "tests");

/** Factors and a divisor, biases, a tied head. */
const SCALED: ModelConfig = parseConfig({
  ...TIED.raw,
  model_type: "granite",
  attention_multiplier: 0.1,
  embedding_multiplier: 12,
  residual_multiplier: 0.2,
  logits_scaling: 8,
}, "tests");

/** A layer of four without rotation. */
const UNROTATED: ModelConfig = parseConfig({
  ...SMALL.raw,
  model_type: "smollm3",
  num_hidden_layers: 4,
}, "tests");

/** Fused linears. */
const FUSED: ModelConfig = parseConfig({
  ...SMALL.raw,
  model_type: "phi3",
  attention_bias: false,
  mlp_bias: false,
  intermediate_size: 256,
  partial_rotary_factor: 0.5,
}, "tests");

/** Experts in two of three layers. */
const ROUTED: ModelConfig = parseConfig({
  ...SMALL.raw,
  model_type: "qwen3_moe",
  num_experts: 12,
  num_experts_per_tok: 2,
  moe_intermediate_size: 32,
  mlp_only_layers: [1],
}, "tests");

/** Norms around the blocks, soft caps on scores and logits, a tied head, a window in two of three layers. */
const CAPPED: ModelConfig = parseConfig({
  ...SMALL.raw,
  model_type: "gemma2",
  head_dim: 32,
  sliding_window: 48,
}, "tests");

async function settings(given: Record<string, string | number | boolean>): Promise<TrainArgs> {
  const required = { model_name_or_path: "-", train_file: "-", output_dir: "-" };
  const texts = Object.entries({ ...required, ...given }).map(([name, value]) => [name, String(value)]);
  return (await loadTrainArgs(null, Object.fromEntries(texts))).args;
}

interface Case {
  readonly name: string;
  readonly config?: ModelConfig;
  readonly given: Record<string, string | number | boolean>;
  /** Tokens of the sequences of a pass. */
  readonly lengths: readonly number[];
  /** Starts of documents packed into each sequence. */
  readonly documents?: readonly number[];
  readonly paged?: boolean;
}

const CASES: readonly Case[] = [
  { name: "LoRA, f32", given: { load_in_4bit: false, lora_rank: 6, lora_dropout: 0 }, lengths: [200] },
  {
    name: "LoRA with dropout",
    given: { load_in_4bit: false, lora_rank: 8, lora_dropout: 0.1 },
    lengths: [300],
  },
  { name: "QLoRA, bf16", given: { bf16: true, lora_dropout: 0 }, lengths: [700] },
  { name: "QLoRA, f32, scales in 32 bits", given: { double_quant: false }, lengths: [130], config: TIED },
  { name: "QLoRA, fp16, rank 4", given: { fp16: true, lora_rank: 4 }, lengths: [257] },
  { name: "LoRA on two linears", given: { target_modules: "q_proj,down_proj" }, lengths: [96], config: TIED },
  { name: "QLoRA, wide heads", given: { lora_dropout: 0 }, lengths: [200], config: WIDE },
  {
    name: "LoRA, narrow heads, activations kept",
    given: { load_in_4bit: false, gradient_checkpointing: false },
    lengths: [130],
    config: NARROW,
  },
  { name: "every weight, wide heads", given: { low_rank_training: false }, lengths: [150], config: WIDE },
  { name: "every weight", given: { low_rank_training: false }, lengths: [150] },
  {
    name: "QLoRA of GPT-NeoX with norms, bf16",
    given: { bf16: true, trainable_params: "embed,norm" },
    lengths: [300],
    config: NEOX,
  },
  { name: "every weight of GPT-NeoX", given: { low_rank_training: false }, lengths: [150], config: NEOX },
  {
    name: "QLoRA of a model with norms on q and k, bf16",
    given: { bf16: true, trainable_params: "norm" },
    lengths: [300],
    config: NORMED,
  },
  {
    name: "every weight, norms on q and k, activations kept",
    given: { low_rank_training: false, gradient_checkpointing: false },
    lengths: [150],
    config: NORMED,
  },
  { name: "QLoRA of fused linears, bf16", given: { bf16: true }, lengths: [300], config: FUSED },
  {
    name: "every weight of fused linears",
    given: { low_rank_training: false },
    lengths: [150],
    config: FUSED,
  },
  {
    name: "LoRA of fused linears, activations kept",
    given: { load_in_4bit: false, gradient_checkpointing: false },
    lengths: [150],
    config: FUSED,
  },
  {
    name: "QLoRA of a model with norms behind the blocks, bf16",
    given: { bf16: true, trainable_params: "norm" },
    lengths: [300],
    config: BEHIND,
  },
  {
    name: "every weight, norms behind the blocks, activations kept",
    given: { low_rank_training: false, gradient_checkpointing: false },
    lengths: [150],
    config: BEHIND,
  },
  { name: "every weight, factors", given: { low_rank_training: false }, lengths: [150], config: SCALED },
  { name: "QLoRA, a layer without rotation", given: { bf16: true }, lengths: [200], config: UNROTATED },
  {
    name: "QLoRA of a model with norms around the blocks and soft caps, bf16",
    given: { bf16: true, trainable_params: "norm" },
    lengths: [300],
    config: CAPPED,
  },
  {
    name: "every weight, norms around the blocks and soft caps",
    given: { low_rank_training: false },
    lengths: [150],
    config: CAPPED,
  },
  {
    name: "QLoRA with experts, bf16",
    given: { bf16: true, lora_dropout: 0.1 },
    lengths: [300],
    config: ROUTED,
  },
  { name: "every weight, experts", given: { low_rank_training: false }, lengths: [150], config: ROUTED },
  {
    name: "LoRA on attention, experts, activations kept",
    given: { load_in_4bit: false, gradient_checkpointing: false, target_modules: "q_proj,v_proj" },
    lengths: [200],
    config: ROUTED,
  },
  {
    name: "every weight, tied, bf16",
    given: { low_rank_training: false, bf16: true },
    lengths: [90],
    config: TIED,
  },
  {
    name: "LoRA and embeddings, norms, head",
    given: { trainable_params: "embed,norm,lm_head" },
    lengths: [180],
  },
  { name: "no checkpointing", given: { gradient_checkpointing: false, bf16: true }, lengths: [400] },
  { name: "a batch of two", given: { per_device_train_batch_size: 2, bf16: true }, lengths: [300, 170] },
  {
    name: "packed documents, full attention",
    given: { use_full_attn: true },
    lengths: [256],
    documents: [0, 60],
  },
  { name: "two passes a step", given: { gradient_accumulation_steps: 2 }, lengths: [220] },
  { name: "inputs on the host", given: { offload_activations: true, bf16: true }, lengths: [640] },
  { name: "states on the host", given: { optim: "paged_adamw_32bit" }, lengths: [128], paged: true },
  { name: "states in 8 bits", given: { optim: "adamw_8bit", lora_rank: 64 }, lengths: [128] },
  {
    name: "all on the host, 8 bits",
    given: { optim: "paged_adamw_8bit", lora_rank: 64, offload_activations: true },
    lengths: [512],
    paged: true,
  },
];

/** Bytes that loading and two steps on a device take, besides what was there, and bytes on the host; kernels compiled in the steps. */
async function measure(
  gpu: Gpu,
  args: TrainArgs,
  { config = SMALL, lengths, documents }: Case,
  at: Placement,
  ranks: Communicator = ALONE,
) {
  gpu.memory.resetPeak();
  const before = gpu.memory.liveBytes;
  const model = await loadModel(gpu, freshWeights(config, 7), {
    config,
    format: formatOf(args),
    quantisation: quantisationOf(args),
    isTrained: trainedNames(config, args),
  });
  if (args.low_rank_training) addFreshLora(model, args);
  const trainer = new Trainer(model, { ...trainerOptions(args, at), ranks });
  const compiled = gpu.pipelineCount;
  const sequences = lengths.map((length, i): Sequence => ({
    inputIds: integers(i, length, config.vocab_size),
    ...(documents ? { documents: Uint32Array.from(documents) } : {}),
  }));
  for (let step = 0; step < 2; step++) {
    const batches = new Array(args.gradient_accumulation_steps).fill(makeBatch(sequences));
    await trainer.step(batches, 1e-3);
  }
  return {
    liveBytes: gpu.memory.peak.liveBytes - before,
    hostBytes: gpu.host.peakBytes,
    kernels: gpu.pipelineCount - compiled,
  };
}

/** With copies by JavaScript a tensor on its way to the host may take its memory a little longer, or not. */
const DEVICES: readonly { options: GpuOptions; names: readonly string[]; tolerance: number }[] = [
  { options: {}, names: CASES.slice(0, -1).map(({ name }) => name), tolerance: 0 },
  // By itself: what others leave idle would serve some of its requests.
  { options: { hostCopies: "commands" }, names: [CASES.at(-1)!.name], tolerance: 0 },
  {
    options: { maxBindingBytes: 2 ** 16, hostCopies: "javascript" },
    names: ["LoRA with dropout", "inputs on the host", "all on the host, 8 bits"],
    tolerance: 0.05,
  },
];

for (const { options, names, tolerance } of DEVICES) {
  Deno.test(`The plan is what a run takes, ${JSON.stringify(options)}`, async () => {
    using gpu = await Gpu.open(options);
    const ring = gpu.memory.liveBytes;
    for (const each of CASES.filter(({ name }) => names.includes(name))) {
      const { config = SMALL, given, lengths, paged = false } = each;
      const args = await settings({ max_seq_length: Math.max(...lengths), ...given });
      const placement = { pageStates: paged, offloadActivations: args.offload_activations === true };
      const { peak, hostBytes, kernels } = await stepCost(args, config, {
        device: planDevice(gpu),
        listsKernels: true,
        lengths,
        placement,
      });
      await gpu.compile(kernels);
      const hostBefore = gpu.host.liveBytes;
      gpu.host.resetPeak();
      const measured = await measure(gpu, args, each, placement);
      assertEquals(hostBytes, measured.hostBytes - hostBefore, each.name);
      assertEquals(measured.kernels, 0, `${each.name}: kernels that the plan does not name`);
      if (tolerance === 0) assertEquals(peak.phase, gpu.memory.peak.phase, each.name);
      const error = (peak.liveBytes - ring) / measured.liveBytes - 1;
      assert(Math.abs(error) <= tolerance, `${each.name}: the plan is off by ${100 * error} %`);
      for (const { heldBytes, liveBytes } of [peak, gpu.memory.peak]) {
        assert(
          heldBytes <= liveBytes * 17 / 16,
          `${each.name}: ${heldBytes} bytes held for ${liveBytes} in use`,
        );
      }
    }
  });
}

/** Most storage buffers that a kernel of a step or an evaluation binds, and that kernel. */
async function mostBound(args: TrainArgs, config: ModelConfig, device: PlanDevice, length: number) {
  const { kernels } = await stepCost(args, config, { device, lengths: [length], listsKernels: true });
  return kernels.map((form) => {
    const { bindings } = readInterface(assemble(form.kernel, form));
    return { buffers: bindings.filter(({ type }) => type !== "uniform").length, kernel: form.kernel.name };
  }).reduce((most, each) => each.buffers > most.buffers ? each : most);
}

Deno.test("No kernel of a step binds more buffers than the device lets it", async () => {
  const component = { component: "f16", result: "f32", M: 16, N: 16, K: 16 };
  const devices: Partial<PlanDevice>[] = [
    { sharing: "workgroup" },
    { sharing: "subgroup" },
    { sharing: "workgroup", info: { ...TYPICAL_DEVICE.info, matrices: [component] } },
    // As floats first, or not, and rows as f16 first where the device has matrix units.
    {
      info: { ...TYPICAL_DEVICE.info, matrices: [component] },
      tuning: {
        "matmul nt nf4 medium 16-bit": "matrix 128x128 of halves",
        "matmul nt nf4 large 16-bit": "matrix 128x128 of halves",
      },
    },
  ];
  // Depths that are not split among workgroups, so that results are added to something at once.
  const wide = parseConfig({ ...SMALL.raw, hidden_size: 256, intermediate_size: 320 }, "tests");
  const found = new Set<number>();
  for (const maxStorageBuffersPerShaderStage of [8, 9, 10]) {
    for (const given of [{ load_in_4bit: true }, { load_in_4bit: true, optim: "adamw_8bit" }]) {
      for (const device of devices) {
        for (const [config, length] of [[wide, 100], [wide, 1000], [ROUTED, 200], [CAPPED, 200]] as const) {
          const args = await settings({ max_seq_length: length, lora_rank: 6, bf16: true, ...given });
          const limits = {
            ...TYPICAL_DEVICE.limits,
            maxComputeWorkgroupStorageSize: 49152,
            maxStorageBuffersPerShaderStage,
          };
          const { buffers, kernel } = await mostBound(
            args,
            config,
            { ...TYPICAL_DEVICE, ...device, limits },
            length,
          );
          assert(buffers <= maxStorageBuffersPerShaderStage, `"${kernel}" binds ${buffers} buffers`);
          found.add(buffers);
        }
      }
    }
  }
  assert(found.has(9), "a kernel that binds as many as it may");
});

Deno.test("What is kept for reuse is planned too", async () => {
  using gpu = await Gpu.open();
  const each = CASES.find(({ name }) => name === "QLoRA, bf16")!;
  const args = await settings({ max_seq_length: each.lengths[0]!, ...each.given });
  const placement = { pageStates: false, offloadActivations: false };
  const { peak } = await stepCost(args, SMALL, { device: planDevice(gpu), lengths: each.lengths });
  await measure(gpu, args, each, placement);
  assertEquals({ ...gpu.memory.peak, heldBytes: 0 }, { ...peak, heldBytes: 0 });
  const error = peak.heldBytes / gpu.memory.peakBytes - 1;
  assert(Math.abs(error) < 0.005, `off by ${100 * error} %`);
});

Deno.test("The plan is what each rank takes of a batch that they share", async () => {
  const cases: readonly Case[] = [
    { name: "three ranks, bf16", given: { bf16: true, sequence_parallel_size: 3 }, lengths: [800] },
    {
      name: "two ranks, windows, activations kept",
      given: { sequence_parallel_size: 2, gradient_checkpointing: false },
      lengths: [300, 150],
      config: NORMED,
    },
  ];
  const placement = { pageStates: false, offloadActivations: false };
  for (const each of cases) {
    const { config = SMALL, lengths, name } = each;
    const batch = { per_device_train_batch_size: lengths.length, max_seq_length: Math.max(...lengths) };
    const args = await settings({ ...batch, ...each.given });
    const size = args.sequence_parallel_size;
    const measured = await playRanks(size, async (ranks) => {
      using gpu = await Gpu.open();
      return { ...await measure(gpu, args, each, placement, ranks), peak: gpu.memory.peak };
    });
    using gpu = await Gpu.open();
    const cost = await stepCost(args, config, { device: planDevice(gpu), lengths });
    const largest = measured.reduce((most, rank) => rank.peak.heldBytes > most.peak.heldBytes ? rank : most);
    assertEquals(
      [cost.hostBytes, cost.tokens],
      [largest.hostBytes, lengths.reduce((a, b) => a + b)],
      name,
    );
    // In later steps idle buffers, which may be somewhat larger, serve requests of another size.
    const live = cost.peak.liveBytes / largest.peak.liveBytes - 1;
    assert(Math.abs(live) < 0.006, `${name}: off by ${100 * live} % in use`);
    for (const [i, { peak }] of measured.entries()) {
      const error = cost.ranks[i]!.peakBytes / peak.heldBytes - 1;
      assert(Math.abs(error) < 0.005, `${name}, rank ${i}: off by ${100 * error} %`);
    }
    const { exchanges } = cost.traffic;
    // Keys and values in the forward pass, their gradients in the backward pass; what was received is kept in between.
    assertEquals(exchanges, 2 * config.num_hidden_layers, name);
    assert(size < 3 || cost.hostBytes > 0, "nothing is kept");
  }
});

/** Settings of the goals: S2-Attn, LoRA on all linears of a 4-bit base, bf16, states that may go to the host. */
function goalSettings(tokens: number, rank: number, gib: number): Promise<TrainArgs> {
  return settings({
    max_seq_length: tokens,
    lora_rank: rank,
    lora_dropout: 0,
    bf16: true,
    optim: "paged_adamw_32bit",
    max_memory: `${gib}GiB`,
  });
}

const GOALS = [
  ["llama2-7b", 8192, 64, 10],
  ["llama2-13b", 8192, 64, 16],
  ["llama2-7b", 12288, 64, 12],
  ["llama3-8b", 81920, 32, 24],
  ["llama2-70b", 32768, 64, 80],
] as const;

for (const [shape, tokens, rank, gib] of GOALS) {
  Deno.test(`${shape} trains at ${tokens} tokens in ${gib} GiB`, async () => {
    const args = await goalSettings(tokens, rank, gib);
    const placement = { pageStates: true, offloadActivations: true };
    const { peak, hostBytes } = await stepCost(args, shapeConfig(shape), { placement });
    assert(peak.heldBytes <= gib * GIB, `${peak.heldBytes / GIB} GiB at ${peak.phase}`);
    assert(peak.heldBytes <= peak.liveBytes * 17 / 16, "bytes wait for reuse");
    // Checkpoints of all layers but the last in bf16, and two means in f32.
    const { hidden_size, num_hidden_layers } = shapeConfig(shape);
    assert(hostBytes > 2 * (num_hidden_layers - 1) * tokens * hidden_size, `${hostBytes} bytes on the host`);
  });
}

/** Longest context of Llama-3.1-8B with QLoRA of rank 32 in so many GB, as unsloth's table has it. */
const UNSLOTH = [[8, 2972], [12, 21848], [16, 40724], [24, 78475], [48, 191728], [80, 342733]] as const;

for (const [gb, tokens] of UNSLOTH) {
  Deno.test(`llama3-8b trains at ${tokens} tokens with full attention in ${gb} GB`, async () => {
    const args = { ...await goalSettings(tokens, 32, 1), attention: "full" } as const;
    const placement = { pageStates: true, offloadActivations: true };
    const { peak } = await stepCost(args, shapeConfig("llama3-8b"), { placement });
    assert(peak.heldBytes <= gb * 1e9, `${peak.heldBytes / 1e9} GB at ${peak.phase}`);
  });
}

Deno.test("What may wait on the host goes there only where it must, the states first", async () => {
  const args = await goalSettings(2048, 64, 1);
  const base = shapeConfig("llama2-7b");
  const at = async (memoryBytes: number | null, own = args) => {
    const { cost, placement } = await resolvePlacement(own, base, memoryBytes);
    return { bytes: cost.peak.heldBytes, placed: [placement.pageStates, placement.offloadActivations] };
  };
  const { bytes, placed } = await at(null);
  assertEquals(placed, [false, false]);
  const paged = await at(bytes - 1);
  assertEquals(paged.placed, [true, false]);
  const all = await at(paged.bytes - 1);
  assertEquals(all.placed, [true, true]);
  assertEquals((await at(0)).placed, [true, true]);
  assertEquals((await at(0, { ...args, optim: "adamw_torch", offload_activations: false })).placed, [
    false,
    false,
  ]);
  assertEquals((await at(null, { ...args, offload_activations: true })).placed, [false, true]);
});

Deno.test("Chunks of rows are as large as the memory allows, and the run's are the plan's", async () => {
  const args = await settings({ max_seq_length: 4096, load_in_4bit: false });
  const config = { ...SMALL, intermediate_size: 2 ** 15 };
  const plan = (max_memory: number | null) => planTraining({ ...args, max_memory }, config);
  const least = await plan(null);
  assertEquals(least.placement.chunkBytes, undefined);
  const most = await plan(2 ** 40);
  const more = await plan(most.peak.heldBytes - 1);
  const sizes = [most, more].map(({ placement }) => placement.chunkBytes! / CHUNK_BYTES);
  assertEquals(sizes, [8, 4], "of 2^29 bytes three times, in turns of 192 MiB");
  assertEquals((await plan(least.peak.heldBytes)).placement, least.placement);
  assert(most.peak.heldBytes > more.peak.heldBytes && more.peak.heldBytes > least.peak.heldBytes, "memory");
  assert(most.dispatches < more.dispatches && more.dispatches < least.dispatches, "dispatches");
  const again = await stepCost({ ...args, max_memory: null }, config, { placement: most.placement });
  assertEquals(again, { ...again, peak: most.peak, dispatches: most.dispatches });
});

const LONG_STEP = {
  max_seq_length: 8192,
  lora_rank: 64,
  lora_dropout: 0.1,
  bf16: true,
  optim: "adamw_torch",
} as const;

Deno.test("A step of llama2-7b at 8192 tokens is 2,500 dispatches at most where it has 10 GiB", async () => {
  const args = await settings(LONG_STEP);
  const plan = (max_memory: number | null) => planTraining({ ...args, max_memory }, shapeConfig("llama2-7b"));
  const [least, most] = [await plan(null), await plan(10 * GIB)];
  assert(most.dispatches <= 2500, `${most.dispatches} dispatches`);
  assertEquals(most.placement.decodesLayers, true);
  assert(
    least.dispatches <= 10_200 && least.peak.heldBytes < 9.1 * GIB,
    `${least.dispatches} in the least memory`,
  );
});

Deno.test("On matrix units a step has no dispatches more than copies in f16", async () => {
  const args = { ...await settings(LONG_STEP), max_memory: 10 * GIB };
  const config = shapeConfig("llama2-7b");
  const matrices = [{ component: "f16", result: "f32", M: 16, N: 16, K: 16 }];
  const device = {
    info: { ...TYPICAL_DEVICE.info, matrices },
    limits: { ...TYPICAL_DEVICE.limits, maxComputeWorkgroupStorageSize: 49152 },
  };
  const [plain, onMatrices] = [
    await planTraining(args, config),
    await planTraining(args, config, { device }),
  ];
  // Of attention q, k and v for each of two forward passes; these and the gradient of o for dq, and for dk and dv.
  const ofAttention = 14;
  // Rows of the products: of q, k and v, o, gate and up, and down; all but the last again; each gradient by itself.
  const ofProducts = 4 + 3 + 7;
  const ofHead = 20;
  const copies = (ofAttention + ofProducts) * config.num_hidden_layers + ofHead;
  assert(onMatrices.dispatches <= plain.dispatches + copies, `${onMatrices.dispatches}, ${plain.dispatches}`);
  // 2 bytes read and 2 written of each element of them; besides, LoRA's ranks in f32, and the head's rows.
  const { hidden_size: C, intermediate_size: F } = config;
  const columns = (3 * C + F) + 3 * C + (5 * C + 2 * F);
  const rowBytes = 4 * 8192 * columns * config.num_hidden_layers;
  const more = onMatrices.trafficBytes - plain.trafficBytes;
  assert(more <= 1.06 * rowBytes, `${more / 1e9} GB more, for rows ${rowBytes / 1e9}`);
});

Deno.test("Where a run does not fit, each change saves something and the last one makes it fit", async () => {
  const args = await settings({
    max_seq_length: 700,
    per_device_train_batch_size: 3,
    load_in_4bit: false,
    gradient_checkpointing: false,
    offload_activations: false,
  });
  const plan = async (memoryBytes: number) => await planTraining({ ...args, max_memory: memoryBytes }, SMALL);
  const { peak } = await stepCost(args, SMALL);
  assertEquals((await plan(peak.heldBytes)).fits, true);
  for (const share of [0.9, 0.3, 0.2, 0.12]) {
    const memoryBytes = share * peak.heldBytes;
    const { fits, suggestions } = await plan(memoryBytes);
    assertEquals([fits, suggestions.map(({ fits }) => fits)], [
      false,
      suggestions.map((_, i) => i === suggestions.length - 1),
    ]);
    let [changed, bytes] = [args, peak.heldBytes];
    for (const { change, savedBytes, peakBytes } of suggestions) {
      assert(
        savedBytes > 0 && bytes - savedBytes === peakBytes,
        `${JSON.stringify(change)} saves ${savedBytes}`,
      );
      changed = { ...changed, ...change };
      bytes = peakBytes;
    }
    const { cost } = await resolvePlacement(changed, SMALL, memoryBytes);
    assertEquals(cost.peak.heldBytes, bytes, "the changes together");
    assert(bytes <= memoryBytes, "the changes make it fit");
  }
  await assertThrows(async () => requireFit(await plan(1000)), "Cannot train in max_memory", "not enough");
});

Deno.test("The longest context fits, and no longer one does, though what a longer one holds may be less", async () => {
  const args = { ...await goalSettings(64, 32, 1), offload_activations: false } as const;
  const base = shapeConfig("llama2-7b");
  for (const gib of [6, 10]) {
    const tokens = await longestContext(args, base, gib * GIB);
    const at = async (length: number) => {
      const changed = { ...args, max_seq_length: length, model_max_length: length };
      return (await stepCost(changed, base, { placement: { pageStates: true, offloadActivations: false } }))
        .peak;
    };
    assert((await at(tokens)).heldBytes <= gib * GIB, `${tokens} tokens do not fit in ${gib} GiB`);
    for (const more of [1.02, 1.05, 1.08]) {
      const { heldBytes } = await at(Math.ceil(more * tokens));
      assert(heldBytes > gib * GIB, `${tokens} tokens in ${gib} GiB are too few: ${more} times as many fit`);
    }
  }
  assertEquals(await longestContext(args, base, GIB), 0);
});

Deno.test("Training refuses what does not fit before anything is uploaded", async () => {
  await withFolder(async (output_dir) => {
    const { args } = await loadTrainArgs(null, {
      model_name_or_path: "tests/golden/mha",
      train_file: "tests/golden/train.jsonl",
      model_max_length: "128",
      max_memory: "1500KB",
      max_steps: "1",
      output_dir,
    });
    let planned = "";
    const hooks = {
      onStart: ({ memory }: TrainInfo) => planned = memory,
      onStep() {},
      onSave() {},
      note() {},
      shouldStop: () => false,
    };
    await assertThrows(() => runTraining(args, hooks), "Cannot train in max_memory 1.4 MiB", "saves");
    await runTraining({ ...args, max_memory: 8e6 }, hooks);
    assert(/MiB on the device at the peak \(backward, layer 2\)$/.test(planned), planned);
  });
});

const WHOLE_RUNS: readonly (readonly [string, Record<string, string>])[] = [
  ["LoRA", {}],
  ["all weights, short sequences", {
    low_rank_training: "false",
    load_in_4bit: "false",
    max_seq_length: "32",
  }],
  ["trained embeddings", { trainable_params: "embed,norm", max_seq_length: "16" }],
  ["a large evaluation", {
    eval_strategy: "steps",
    eval_file: "tests/golden/train.jsonl",
    per_device_eval_batch_size: "4",
    load_best_model_at_end: "true",
  }],
];
for (const [name, given] of WHOLE_RUNS) {
  Deno.test(`A run takes what was planned to its end, evaluated and saved: ${name}`, async () => {
    await withFolder(async (folder) => {
      const { args } = await loadTrainArgs(null, {
        model_name_or_path: "tests/golden/mha",
        train_file: "tests/golden/train.jsonl",
        model_max_length: "128",
        lora_rank: "8",
        max_steps: "2",
        save_steps: "1",
        output_dir: `${folder}/free`,
        ...given,
      });
      const hooks = { onStart() {}, onStep() {}, onSave() {}, note() {}, shouldStop: () => false };
      const { peakBytes, plannedBytes } = await runTraining(args, hooks);
      const error = peakBytes / plannedBytes - 1;
      assert(
        Math.abs(error) <= 0.02,
        `${plannedBytes} bytes planned, ${peakBytes} counted: ${100 * error} %`,
      );
      // With no byte more than planned it ends as well, whatever is written.
      await runTraining({ ...args, output_dir: `${folder}/tight`, max_memory: plannedBytes }, hooks);
      for (const file of namesIn(`${folder}/free`).filter((file) => file.endsWith(".safetensors"))) {
        const [free, tight] = ["free", "tight"].map((run) =>
          Deno.readFileSync(`${folder}/${run}/${file}`).toBase64()
        );
        assertEquals(tight === free, true, file);
      }
    });
  });
}

Deno.test("A plan counts the pairs that each layer's window leaves, and says which layers have S2-Attn", async () => {
  const args = await settings({
    lora_rank: 4,
    group_size_ratio: 0.25,
    max_seq_length: 512,
    model_max_length: 512,
  });
  const [full, sliding] = ["full_attention", "sliding_attention"];
  const withLayers = (...layer_types: string[]) =>
    parseConfig({
      ...SMALL.raw,
      model_type: "qwen2",
      num_hidden_layers: 2,
      use_sliding_window: true,
      sliding_window: 100,
      layer_types,
    }, "tests");
  const attentionOf = async (config: ModelConfig) => (await stepCost(args, config)).flops.forward.attention;
  const [s2, windows] = [withLayers(full!, full!), withLayers(sliding!, sliding!)];
  const mixed = withLayers(sliding!, full!);
  const [inS2, inWindows] = [await attentionOf(s2), await attentionOf(windows)];
  assert(inS2 !== inWindows && inWindows > 0, `${inS2}, ${inWindows}`);
  assertEquals(await attentionOf(mixed), (inS2 + inWindows) / 2);
  assertEquals([s2, mixed, windows].map((config) => describeAttention(args, config)), [
    "S2-Attn in 4 groups of 128",
    "S2-Attn in 4 groups of 128 in 1 of 2 layers, a window of 100 tokens in the others",
    "a window of 100 tokens in every layer, S2-Attn in none",
  ]);
});
