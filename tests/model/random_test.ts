/** Random models are what loading a bf16 checkpoint gives, but for the values; those are of a size to compute with. */
import { Gpu } from "../../kernels/gpu.ts";
import { Nf4Weight } from "../../kernels/nf4/nf4.ts";
import { Tensor } from "../../kernels/tensor.ts";
import type { Weight } from "../../kernels/weight.ts";
import type { LanguageModel } from "../../model/language_model.ts";
import { randomModel, type RandomOptions } from "../../model/load/random.ts";
import { assert, assertEquals, assertThrows } from "../support/assert_close.ts";
import { changedWeights, load, logitsOf, sequence, smallConfig } from "./support.ts";

const config = smallConfig({ attention_bias: true, hidden_size: 64, vocab_size: 51 });
const OPTIONS: RandomOptions = { format: "f32", quantisation: "none" };

/** Name, shape and type of every tensor of the model. */
function inventory(model: LanguageModel): unknown[] {
  const describe = (tensor: Weight | undefined) =>
    tensor && [tensor.label, tensor.shape, tensor instanceof Tensor && tensor.dtype];
  const linears = model.linears().map(({ weight, bias, weightGrad, biasGrad }) => [
    ...((weight instanceof Nf4Weight)
      ? [weight.codes, weight.absmax, weight.nested?.scales, weight.nested?.map].map(describe)
      : [describe(weight)]),
    ...[bias, weightGrad, biasGrad].map(describe),
  ]);
  const { embeddings, head, norm } = model.parts;
  return [
    linears,
    [embeddings, head].map(({ weight, grad }) => [weight, grad].map(describe)),
    [norm.weight, norm.weightGrad].map(describe),
  ];
}

Deno.test("The tensors are those of a loaded bf16 checkpoint: names, shapes, types and bytes", async () => {
  using gpu = await Gpu.open({ poison: true });
  const checkpoint = changedWeights(config, { dtype: "BF16" });
  for (const quantisation of ["none", "nf4", "nf4-double"] as const) {
    for (const trained of [/^$/, /embed|norm|head/, /./]) {
      const options = { quantisation, isTrained: (name: string) => trained.test(name) };
      const bytes: number[] = [];
      const models: LanguageModel[] = [];
      for (
        const make of [
          () => load(gpu, config, checkpoint, options),
          () => randomModel(gpu, config, { ...OPTIONS, ...options }),
        ]
      ) {
        const before = gpu.memory.liveBytes;
        models.push(await make());
        bytes.push(gpu.memory.liveBytes - before);
      }
      const label = `${quantisation}, trained ${trained}`;
      assertEquals(inventory(models[1]!), inventory(models[0]!), label);
      assertEquals(bytes[1], bytes[0], `${label}: bytes`);
    }
  }
});

Deno.test("Matrices have a root mean square of 1 / sqrt(inputs), norms are one, and each tensor is another", async () => {
  using gpu = await Gpu.open({ poison: true });
  for (const quantisation of ["none", "nf4-double", "nf4"] as const) {
    const model = await randomModel(gpu, config, { ...OPTIONS, quantisation });
    const seen = new Set<string>();
    for (const { name, weight, bias } of model.linears()) {
      const values = await gpu.read(
        (weight instanceof Nf4Weight) ? weight.dequantise(gpu) : weight as Tensor,
      );
      const rms = Math.sqrt(values.reduce((sum, value) => sum + value ** 2, 0) / values.length);
      assert(Math.abs(rms * Math.sqrt(weight.shape[1]!) - 1) < 0.1, `${name}: ${rms}`);
      seen.add(String(values.subarray(0, 8)));
      if (bias) {
        assert((await gpu.read(bias)).every((value) => value === 0), `the bias of ${name} is not zero`);
      }
    }
    assertEquals(seen.size, 14, "tensors of values of their own");
    assert((await gpu.read(model.parts.norm.weight)).every((value) => value === 1), "norms are not one");
    const logits = await logitsOf(model, [sequence(config, 20)]);
    const rms = Math.sqrt(logits.reduce((sum, value) => sum + value ** 2, 0) / logits.length);
    assert(rms > 0.1 && rms < 10, `logits of ${rms}`);
  }
});

Deno.test("A seed gives the same model every time, another seed another", async () => {
  using gpu = await Gpu.open({ poison: true });
  const logits: string[] = [];
  for (const seed of [1, 1, 2]) {
    const model = await randomModel(gpu, config, { ...OPTIONS, quantisation: "nf4-double", seed });
    logits.push(String(await logitsOf(model, [sequence(config, 5)])));
  }
  assertEquals(logits[1], logits[0]);
  assert(logits[2] !== logits[0], "seed 2 gives the model of seed 1");
});

Deno.test("Rows that 4 bits cannot pack are refused as in loading", async () => {
  using gpu = await Gpu.open();
  const odd = smallConfig({ intermediate_size: 44 });
  const make = () => randomModel(gpu, odd, { ...OPTIONS, quantisation: "nf4-double" });
  await assertThrows(make, "mlp.down_proj.weight", "no multiple of 8", "load_in_4bit: false");
});
