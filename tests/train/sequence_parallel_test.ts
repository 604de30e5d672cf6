import { type AttentionRule, firstKeys } from "../../kernels/attention/map.ts";
import { Gpu } from "../../kernels/gpu.ts";
import { adapterConfig } from "../../checkpoint/peft.ts";
import { dryCommunicator } from "../../distributed/dry_communicator.ts";
import { addLora } from "../../model/lora.ts";
import { type Batch, freeBatch, makeBatch, type Sequence } from "../../model/batch.ts";
import { parseConfig } from "../../model/config.ts";
import type { ModelConfig } from "../../model/model_config.ts";
import { freshWeights } from "../../model/load/fresh.ts";
import { loadModel } from "../../model/load/load.ts";
import { readNamed } from "../../model/read_back.ts";
import { cutRows, SequenceParallel } from "../../train/sequence_parallel.ts";
import { assertClose, assertEquals, assertThrows } from "../support/assert_close.ts";
import { integers, normal } from "../support/random.ts";
import { playRanks } from "../support/ranks.ts";

/** Grouped queries of an odd number of kv heads: the middle one serves both halves of the heads. */
const CONFIG: ModelConfig = parseConfig({
  model_type: "llama",
  vocab_size: 75,
  hidden_size: 48,
  intermediate_size: 104,
  num_hidden_layers: 2,
  num_attention_heads: 6,
  num_key_value_heads: 3,
  max_position_embeddings: 512,
}, "tests");

interface Way {
  readonly config?: ModelConfig;
  readonly rule?: AttentionRule;
  readonly checkpointing?: boolean;
  readonly isFull?: boolean;
}

/** Loss and gradients of a batch, or of a rank's rows of it. */
async function gradientsOf(
  batch: (rule: AttentionRule) => Batch,
  { config = CONFIG, rule = { groupSize: 32 }, checkpointing = true, isFull = false }: Way,
): Promise<Map<string, Float32Array>> {
  using gpu = await Gpu.open({ poison: true });
  const model = await loadModel(gpu, freshWeights(config, 7), {
    config,
    format: "f32",
    quantisation: "none",
    isTrained: (name) => isFull || name.includes("norm") || name.includes("embed"),
  });
  if (!isFull) {
    addLora(model, adapterConfig({ r: 8, lora_alpha: 16, lora_dropout: 0.1, target_modules: null }), 3);
    [...model.linears(), ...model.experts()].forEach(({ lora }, i) =>
      gpu.write(lora!.B, normal(i, lora!.B.size, 0.05))
    );
  }
  model.chunkBytes = 64 * 3 * config.intermediate_size * 4;
  const lossSum = gpu.zeros([1]);
  const device = model.upload(batch(rule), rule);
  await model.lossAndGradients(device, {
    gradScale: 1,
    checkpointing,
    dropout: { seed: 4, pass: 2 },
    noiseAlpha: 5,
    lossSum,
  });
  freeBatch(device);
  assertEquals(gpu.host.liveBytes, 0, "bytes left in host memory");
  return await readNamed(gpu, [
    { name: "loss", value: lossSum },
    ...model.parameters().map(({ name, grad }) => ({ name, value: grad })),
  ]);
}

/** Compares the gradients of one rank with the sums of those of several. */
async function assertSame(sequences: readonly Sequence[], size: number, way: Way = {}): Promise<void> {
  const whole = makeBatch(sequences);
  const expected = await gradientsOf(() => whole, way);
  const parts = await playRanks(size, (ranks) => {
    const parallel = new SequenceParallel(ranks, size);
    return gradientsOf((rule) => parallel.share(whole, rule), way);
  });
  for (const [name, values] of expected) {
    const sum = values.map((_, i) => parts.reduce((sum, part) => sum + part.get(name)![i]!, 0));
    const largest = values.reduce((most, value) => Math.max(most, Math.abs(value)), 0);
    assertClose(name, sum, values, { rtol: 1e-5, atol: 1e-5 * largest });
  }
}

function sequencesOf(...lengths: number[]): Sequence[] {
  return lengths.map((length, i) => ({ inputIds: integers(5 + i, length, CONFIG.vocab_size) }));
}

const WAYS: Readonly<Record<string, readonly [size: number, sequences: readonly Sequence[], way?: Way]>> = {
  "a sequence, checkpointing off": [2, sequencesOf(256), { checkpointing: false }],
  "four ranks, groups of an odd length that do not divide the sequence": [
    4,
    sequencesOf(333),
    { rule: { groupSize: 41 } },
  ],
  "fewer rows than a binding is aligned to": [2, sequencesOf(41), { rule: { groupSize: 8 } }],
  "sequences of a batch, cut anywhere": [3, sequencesOf(70, 7, 200, 33)],
  "packed documents, some around the borders": [
    2,
    [{ inputIds: integers(3, 256, 75), documents: Uint32Array.of(0, 17, 100, 126, 131, 240) }],
  ],
  "no shift": [2, sequencesOf(128), { rule: { groupSize: 32, shift: false } }],
  "all weights": [2, sequencesOf(192), { isFull: true }],
  "experts": [
    3,
    sequencesOf(333),
    {
      config: parseConfig({
        ...CONFIG.raw,
        model_type: "qwen3_moe",
        num_experts: 4,
        num_experts_per_tok: 2,
        moe_intermediate_size: 16,
      }, "tests"),
    },
  ],
  "windows in some layers, two rotations": [
    2,
    sequencesOf(256),
    {
      config: parseConfig({
        model_type: "gemma3_text",
        vocab_size: 75,
        hidden_size: 48,
        intermediate_size: 104,
        num_hidden_layers: 3,
        num_attention_heads: 4,
        num_key_value_heads: 1,
        head_dim: 16,
        max_position_embeddings: 512,
        sliding_window: 50,
        layer_types: ["sliding_attention", "full_attention", "sliding_attention"],
      }, "tests"),
    },
  ],
};

for (const [what, [size, sequences, way]] of Object.entries(WAYS)) {
  Deno.test(`Ranks that share a batch have the gradients of one: ${what}`, async () => {
    await assertSame(sequences, size, way);
  });
}

Deno.test("Rows are cut where groups end, as evenly as they let it", () => {
  const cut = (starts: number[], rows: number, groupSize: number, ranks: number) =>
    cutRows({ starts, rows }, { groupSize }, ranks);
  assertEquals(cut([0], 400, 100, 2), [0, 200, 400]);
  assertEquals(cut([0], 400, 100, 3), [0, 100, 300, 400]);
  assertEquals(cut([0], 370, 41, 4), [0, 82, 205, 287, 370]);
  assertEquals(cut([0, 70, 77, 277], 310, 32, 3), [0, 109, 205, 310]);
  assertEquals(cut([0], 100, 100, 4), [0, 0, 100, 100, 100]);
  // No rank has more groups than it must.
  for (let groups = 1; groups < 40; groups++) {
    for (let ranks = 1; ranks <= groups; ranks++) {
      const cuts = cut([0], 7 * groups, 7, ranks);
      const most = cuts.slice(1).reduce((most, end, i) => Math.max(most, end - cuts[i]!), 0);
      assertEquals(most, 7 * Math.ceil(groups / ranks), `${groups} groups of ${ranks} ranks`);
    }
  }
});

Deno.test("What cannot be shared is refused by all ranks", async () => {
  const batch = makeBatch(sequencesOf(256));
  const refused = (rule: AttentionRule, layers: AttentionRule, ...parts: string[]) =>
    playRanks(4, (ranks) =>
      assertThrows(() => {
        const { part } = new SequenceParallel(ranks, 4).share(batch, rule);
        part!.exchange(firstKeys({ ...batch, ...layers }));
      }, ...parts));
  await refused({}, {}, "sequence_parallel_size above 1 needs S2-Attn", "Set use_full_attn: false");
  await refused({ groupSize: 64 }, { window: 66 }, "window reaches 65 tokens back", "a rank has 64");
  await assertThrows(() => refused({ groupSize: 64 }, { window: 65 }), "nothing was thrown");
  await assertThrows(
    () => new SequenceParallel(dryCommunicator(0, 6), 4),
    "sequence_parallel_size 4 does not divide the 6 ranks of this job",
  );
});
