/** A whole step of QLoRA on matrix units beside the same on plain kernels. As dawn_test.ts, skipped where there are no such units. */
import { adapterConfig, type LoraPair } from "../../checkpoint/peft.ts";
import type { Gpu } from "../../kernels/gpu.ts";
import type { Risk } from "../../kernels/refusal.ts";
import { makeBatch } from "../../model/batch.ts";
import { parseConfig } from "../../model/config.ts";
import { applyAdapter } from "../../model/lora.ts";
import { freshWeights } from "../../model/load/fresh.ts";
import { loadModel } from "../../model/load/load.ts";
import { assert } from "../support/assert_close.ts";
import { dawnTest, matrices, openDawn, openWithMatrices } from "../support/dawn.ts";
import { integers, normal } from "../support/random.ts";

const CONFIG = parseConfig({
  model_type: "llama",
  vocab_size: 76,
  hidden_size: 64,
  intermediate_size: 136,
  num_hidden_layers: 1,
  num_attention_heads: 4,
  num_key_value_heads: 2,
  max_position_embeddings: 256,
}, "tests");
const ROWS = 150;
const ON_MATRICES: readonly Risk[] = [
  "matmul by matrices",
  "attention by matrices",
  "attention gradients by matrices",
];

/** Loss and gradients of LoRA's factors, by name, of a step in bf16 over a base in 4 bits. */
async function gradientsOn(gpu: Gpu): Promise<{ loss: number; gradients: Map<string, Float32Array> }> {
  const model = await loadModel(gpu, freshWeights(CONFIG, 1), {
    config: CONFIG,
    format: "bf16",
    quantisation: "nf4-double",
  });
  const config = adapterConfig({ r: 8, lora_alpha: 16, lora_dropout: 0.3, target_modules: null });
  const lora = new Map(
    model.linears().map(({ name, weight }, i): [string, LoraPair] => {
      const [outputs, inputs] = weight.shape as [number, number];
      return [name, {
        A: { shape: [8, inputs], data: normal(2 * i, 8 * inputs, 0.2) },
        B: { shape: [outputs, 8], data: normal(2 * i + 1, outputs * 8, 0.2) },
      }];
    }),
  );
  applyAdapter(model, { config, lora, extra: new Map() }, { isTrained: true });
  const lossSum = gpu.zeros([1]);
  const device = model.upload(makeBatch([{ inputIds: integers(2, ROWS, CONFIG.vocab_size) }]));
  const dropout = { seed: 7, pass: 3 };
  await model.lossAndGradients(device, { gradScale: 1, checkpointing: true, dropout, lossSum });
  const gradients = new Map<string, Float32Array>();
  for (const { name, lora } of model.linears()) {
    gradients.set(`A of ${name}`, await gpu.read(lora!.gradA!));
    gradients.set(`B of ${name}`, await gpu.read(lora!.gradB!));
  }
  return { loss: (await gpu.read(lossSum))[0]!, gradients };
}

dawnTest("the gradients of QLoRA on matrix units are those of plain kernels", matrices, async () => {
  using plain = await openDawn({ poison: true, sharing: "workgroup", refused: new Set(ON_MATRICES) });
  const expected = await gradientsOn(plain);
  for (const ofHalves of [false, true]) {
    const kernels = new Set<string>();
    const onDispatch = ({ kernel }: { readonly kernel: string }) => kernels.add(kernel);
    using gpu = await openWithMatrices({ sharing: "workgroup", onDispatch }, ofHalves);
    const { loss, gradients } = await gradientsOn(gpu);
    const label = ofHalves ? "rows as f16 first" : "in the tile";
    assert(kernels.has("half_rows") === ofHalves, `${label}: ${[...kernels]}`);
    assert(Math.abs(loss / expected.loss - 1) < 2 ** -9, `${label}: a loss of ${loss}, not ${expected.loss}`);
    for (const [name, values] of gradients) {
      const wanted = expected.gradients.get(name)!;
      const rms = Math.sqrt(wanted.reduce((sum, value) => sum + value ** 2, 0) / wanted.length);
      const error = values.reduce((most, value, i) => Math.max(most, Math.abs(value - wanted[i]!)), 0);
      // Activations are rounded to 2^-9 on either side, now one way and now the other: 0.13 at most with seven seeds of
      // dropout. Elements dropped on one side alone make it 2.
      assert(error < 0.2 * rms, `${label}: ${name} is off by ${error} of ${rms}`);
    }
  }
});
