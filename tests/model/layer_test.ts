import { TYPICAL_LIMITS } from "../../kernels/dry_device.ts";
import { Gpu } from "../../kernels/gpu.ts";
import type { Format } from "../../kernels/wgsl.ts";
import { adapterConfig } from "../../checkpoint/peft.ts";
import { addLora } from "../../model/lora.ts";
import { freeBatch, makeBatch } from "../../model/batch.ts";
import { rowChunks, rowsWithin } from "../../kernels/shared/row_chunks.ts";
import { parseConfig } from "../../model/config.ts";
import type { ModelConfig } from "../../model/model_config.ts";
import { freshWeights } from "../../model/load/fresh.ts";
import type { GradientOptions, LanguageModel } from "../../model/language_model.ts";
import { loadModel } from "../../model/load/load.ts";
import { readNamed } from "../../model/read_back.ts";
import { assert, assertClose, assertEquals } from "../support/assert_close.ts";
import { integers } from "../support/random.ts";
import { ALL_SHARINGS, sharingTest } from "../support/sharing.ts";

const SHAPE = {
  vocab_size: 75,
  hidden_size: 64,
  intermediate_size: 104,
  num_hidden_layers: 2,
  num_attention_heads: 4,
  max_position_embeddings: 256,
  attention_bias: true,
};

function llama(kvHeads: number, head_dim = 16): ModelConfig {
  const changes = { model_type: "llama", num_key_value_heads: kvHeads, mlp_bias: true, head_dim };
  return parseConfig({ ...SHAPE, ...changes }, "tests");
}

function gptNeox(isParallel: boolean): ModelConfig {
  return parseConfig({ ...SHAPE, model_type: "gpt_neox", use_parallel_residual: isParallel }, "tests");
}

/**
 * Many keys and values (their gradients wait for their chunk), and few (the queries' do); heads that together are narrower
 * than the hidden size (wider ones: parity/golden_test); the other architecture.
 */
const CONFIGS = {
  "4 kv heads": llama(4),
  "1 kv head": llama(1),
  "1 kv head, heads of 8": llama(1, 8),
  "norms on q and k": parseConfig(
    { ...SHAPE, model_type: "qwen3", num_key_value_heads: 2, head_dim: 16 },
    "tests",
  ),
  "norms behind the blocks": parseConfig(
    { ...SHAPE, model_type: "olmo2", num_key_value_heads: 2, head_dim: 16 },
    "tests",
  ),
  "fused linears": parseConfig({
    ...SHAPE,
    model_type: "phi3",
    attention_bias: false,
    num_key_value_heads: 2,
  }, "tests"),
  "norms around the blocks, two rotations": parseConfig(
    {
      ...SHAPE,
      model_type: "gemma3_text",
      num_key_value_heads: 2,
      head_dim: 16,
      sliding_window: 48,
      sliding_window_pattern: 2,
    },
    "tests",
  ),
  "soft caps": parseConfig(
    { ...SHAPE, model_type: "gemma2", num_key_value_heads: 1, head_dim: 16, sliding_window: 48 },
    "tests",
  ),
  "GPT-NeoX": gptNeox(true),
  "GPT-NeoX, MLP after attention": gptNeox(false),
};

async function makeModel(gpu: Gpu, config: ModelConfig, format: Format): Promise<LanguageModel> {
  const model = await loadModel(gpu, freshWeights(config, 7), {
    config,
    format,
    quantisation: "nf4-double",
    isTrained: (name) => /norm|embed|bias|lm_head/.test(name),
  });
  addLora(model, adapterConfig({ r: 6, lora_alpha: 12, lora_dropout: 0.2, target_modules: null }), 3);
  // Fresh B are zero, and so would be the gradients of A.
  for (const { lora } of model.linears()) {
    const { shape, size } = lora!.B;
    gpu.write(
      lora!.B,
      Float32Array.from({ length: size }, (_, i) => i % shape[1]! < 6 ? Math.sin(i) / 8 : 0),
    );
  }
  return model;
}

interface Way {
  readonly format?: Format;
  /** Rows of a chunk; all unless given. */
  readonly chunkRows?: number;
  readonly options?: Partial<GradientOptions>;
}

/** Kinds of layers that rotate by angles of their own. */
function rotationsOf({ layers }: ModelConfig): number {
  return new Set(layers.map(({ rope }) => JSON.stringify(rope))).size;
}

/** Loss and gradients of a batch of 150 and 43 rows, by the parameters' names. */
async function gradientsOf(
  gpu: Gpu,
  config: ModelConfig,
  { format = "f32", chunkRows, options }: Way = {},
): Promise<Map<string, Float32Array>> {
  const model = await makeModel(gpu, config, format);
  if (chunkRows) model.chunkBytes = chunkRows * 3 * config.intermediate_size * (format === "f32" ? 4 : 2);
  const lossSum = gpu.zeros([1]);
  const inputs = [150, 43].map((length, i) => ({ inputIds: integers(5 + i, length, config.vocab_size) }));
  const device = model.upload(makeBatch(inputs), { groupSize: 64 });
  // Else larger buffers of other models may serve for what stays.
  gpu.memory.resetPeak();
  const before = gpu.memory.liveBytes;
  const dropout = { seed: 4, pass: 2 };
  await model.lossAndGradients(device, { gradScale: 1, checkpointing: true, dropout, lossSum, ...options });
  const left = gpu.memory.liveBytes - before;
  // The angles of the positions are made once and stay.
  const angles = rotationsOf(config) * 2 * 150 * config.rotary_dim / 2 * 4;
  assertEquals([left, gpu.host.liveBytes], [angles, 0], "bytes left in use");
  freeBatch(device);
  const all = [
    { name: "loss", value: lossSum },
    ...model.parameters().map(({ name, grad }) => ({ name, value: grad })),
  ];
  return await readNamed(gpu, all);
}

function assertSame(
  actual: ReadonlyMap<string, Float32Array>,
  expected: ReadonlyMap<string, Float32Array>,
  tolerance: number,
) {
  assertEquals([...actual.keys()], [...expected.keys()]);
  for (const [name, values] of expected) {
    const largest = values.reduce((most, value) => Math.max(most, Math.abs(value)), 0);
    assertClose(name, actual.get(name)!, values, { rtol: tolerance, atol: tolerance * largest });
  }
}

for (const [heads, config] of Object.entries(CONFIGS)) {
  for (const sharing of ALL_SHARINGS) {
    const title = `Gradients are the same in one chunk of rows and in several, ${heads}, ${sharing}`;
    sharingTest(sharing, title, async () => {
      using gpu = await Gpu.open({ poison: true, sharing });
      using narrow = await Gpu.open({ poison: true, sharing, maxBindingBytes: 53248 });
      const whole = await gradientsOf(gpu, config);
      for (const gradient of whole.values()) assert(gradient.some((value) => value !== 0), "no gradient");
      // Every row is computed as before; only sums over the rows are taken in another order.
      assertSame(await gradientsOf(gpu, config, { chunkRows: 64 }), whole, 2e-6);
      assertSame(await gradientsOf(narrow, config, { chunkRows: 128 }), whole, 2e-6);
    });
  }

  Deno.test(`Gradients are the same with activations made again, kept, or on the host, ${heads}`, async () => {
    using byCommands = await Gpu.open({ poison: true, hostCopies: "commands" });
    using byJavaScript = await Gpu.open({ poison: true, hostCopies: "javascript" });
    for (const format of config.num_key_value_heads === 1 ? ["f32", "f16"] as const : ["bf16"] as const) {
      const way = { format, chunkRows: 64 };
      const again = await gradientsOf(byCommands, config, way);
      const kept = await gradientsOf(byCommands, config, { ...way, options: { checkpointing: false } });
      // A GPU rounds weights of 4 bits to 16 first for more rows than a chunk has here.
      assertSame(kept, again, format === "f32" || byCommands.info.isSoftware ? 2e-6 : 2 ** -6);
      assertEquals(byCommands.host.peakBytes, 0);
      for (const gpu of [byCommands, byJavaScript]) {
        gpu.host.resetPeak();
        const away = await gradientsOf(gpu, config, { ...way, options: { offload: true } });
        for (const [name, values] of again) {
          assertEquals([...away.get(name)!], [...values], `${name} by ${gpu.host.copies}`);
        }
        const bytes = 193 * config.hidden_size * (format === "f32" ? 4 : 2);
        assertEquals(gpu.host.peakBytes, bytes, "the input of all layers but the last");
        gpu.host.resetPeak();
      }
    }
  });

  Deno.test(`A layer's backward pass needs the memory that its table says, ${heads}`, async () => {
    const rows = 8192;
    let [live, binding] = [0, 0];
    const gpu: Gpu = Gpu.dry({
      limits: TYPICAL_LIMITS,
      onDispatch: ({ bindings }) => {
        const { phase, liveBytes } = gpu.memory.use;
        if (/layer/.test(phase)) binding = Math.max(binding, ...bindings.map(({ size }) => size));
        if (/^backward/.test(phase)) live = Math.max(live, liveBytes);
      },
    });
    const model = await makeModel(gpu, config, "bf16");
    model.chunkBytes = 64 * 3 * config.intermediate_size * 2;
    const device = model.upload(makeBatch([{ inputIds: integers(1, rows, config.vocab_size) }]));
    const lossSum = gpu.zeros([1]);
    const { num_attention_heads, num_key_value_heads, head_dim, hidden_size } = config;
    const [h, s] = [num_attention_heads, num_key_value_heads].map((heads) => heads * head_dim / hidden_size);
    // Of lse or stats there are (rows, 2 heads) f32 at most: here a quarter of a tensor of (rows, C).
    const table = 2 + 2 * h! + 2 * s! + Math.min(h!, 2 * s!) + 0.25;
    // The angles of the positions are made by the first step.
    const angles = rotationsOf(config) * 2 * config.rotary_dim / hidden_size;
    const checkpoints = config.num_hidden_layers - 1;
    for (const offload of [true, false]) {
      const before = gpu.memory.liveBytes;
      live = 0;
      await model.lossAndGradients(device, { gradScale: 1, checkpointing: true, lossSum, offload });
      const tensors = (live - before) / (rows * config.hidden_size * 2);
      const expected = table + (offload ? 0 : checkpoints);
      assert(
        tensors > expected - 0.01 && tensors < expected + Math.max(0.6, 0.1 + angles),
        `${tensors} tensors for ${expected}, ${offload}`,
      );
    }
    assert(binding < rows * config.intermediate_size * 2, `a tensor of ${binding} bytes`);
  });
}

Deno.test("Chunks cover all rows, are of about one size, and start where bindings may", () => {
  for (const rows of [1, 63, 64, 65, 640, 1000, 4097]) {
    for (const most of [64, 128, 1024, Infinity]) {
      const chunks = rowChunks(rows, most);
      assertEquals([chunks[0]!.start, chunks.at(-1)!.end], [0, rows]);
      chunks.forEach(({ start, end }, i) => {
        assert(start % 64 === 0 && end > start && end - start <= most, `${start} to ${end}`);
        if (i > 0) assertEquals(start, chunks[i - 1]!.end);
      });
      assertEquals(chunks.length <= Math.ceil(rows / Math.min(most, rows)), true);
    }
  }
  assertEquals([rowsWithin(64 * 100, 100), rowsWithin(1, 100), rowsWithin(200 * 100, 100)], [64, 64, 192]);
});
