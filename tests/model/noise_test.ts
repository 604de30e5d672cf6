import { Gpu } from "../../kernels/gpu.ts";
import { makeBatch } from "../../model/batch.ts";
import { noiseScales } from "../../model/noise.ts";
import { assert, assertClose, assertEquals, F32 } from "../support/assert_close.ts";
import { changedWeights, load, sequence, smallConfig } from "./support.ts";

const gpu = await Gpu.open({ poison: true });
const config = smallConfig();

Deno.test("noiseScales() goes by the tokens of each document, packed or not", () => {
  const scales = noiseScales({ documents: [0, 4, 5], rows: 21 }, 16, 10);
  const wanted = [...Array(4).fill(10 / 8), 10 / 4, ...Array(16).fill(10 / 16)];
  assertClose("scales", scales, wanted, F32);
});

Deno.test("noise changes the loss by its pass, the same checkpointed or not, and evaluation never has any", async () => {
  const model = await load(gpu, config, undefined, { isTrained: (name) => name.includes("embed") });
  const device = model.upload(makeBatch([sequence(config, 24), sequence(config, 9, 8)]));
  const gradient = model.parameters()[0]!.grad;
  const run = async (noiseAlpha: number | undefined, pass: number, checkpointing: boolean) => {
    const lossSum = gpu.zeros([1], "f32");
    gpu.clear(gradient);
    await model.lossAndGradients(device, {
      gradScale: 1,
      checkpointing,
      dropout: { seed: 4, pass },
      noiseAlpha,
      lossSum,
    });
    return [(await gpu.read(lossSum))[0]!, await gpu.read(gradient)] as const;
  };
  const [plain] = await run(undefined, 0, true);
  const { losses } = await model.predict(device);
  assertClose("evaluation", [losses.reduce((sum, loss) => sum + loss, 0)], [plain], { rtol: 1e-5, atol: 0 });
  const [noisy, noisyGradient] = await run(5, 0, true);
  assert(Math.abs(noisy / plain - 1) > 1e-4, `${noisy} with noise, ${plain} without`);
  const [again, kept] = await run(5, 0, false);
  assertEquals(again, noisy, "the same pass, activations kept");
  assertClose("gradient", kept, noisyGradient, { rtol: 1e-4, atol: 1e-5 });
  const [other] = await run(5, 1, true);
  assert(other !== noisy, "another pass, other noise");
  const after = await model.predict(device);
  assertEquals([...after.losses], [...losses], "evaluation after it");
});

Deno.test("noise is multiplied by the factor of the embeddings, as they are", async () => {
  const values = (table: Float32Array) => table.forEach((value, i) => table[i] = 4 * value);
  const larger = changedWeights(config, { changes: [{ name: "model.embed_tokens.weight", values }] });
  const lossOf = async (model: Awaited<ReturnType<typeof load>>, noiseAlpha: number) => {
    const lossSum = gpu.zeros([1], "f32");
    const dropout = { seed: 4, pass: 0 };
    const device = model.upload(makeBatch([sequence(config, 24)]));
    await model.lossAndGradients(device, { gradScale: 1, checkpointing: true, dropout, noiseAlpha, lossSum });
    return (await gpu.read(lossSum))[0]!;
  };
  const multiplied = await load(gpu, { ...config, embedding_multiplier: 4 }, changedWeights(config));
  assertEquals(await lossOf(multiplied, 5), await lossOf(await load(gpu, config, larger), 20));
});
