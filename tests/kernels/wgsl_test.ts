/**
 * Every `.wgsl` file compiles in every specialisation that training and writing use, on the compiler that will run it;
 * none is left over; and none can be broken without a run failing by its name.
 */
import { cast } from "../../kernels/elementwise/elementwise.ts";
import { fillBits } from "../../kernels/elementwise/fill_random.ts";
import { Gpu, type Sharing } from "../../kernels/gpu.ts";
import { matmul } from "../../kernels/matmul/matmul.ts";
import { matvec } from "../../kernels/matvec/matvec.ts";
import { assemble, type Format, type Kernel, readInterface } from "../../kernels/wgsl.ts";
import { adapterConfig } from "../../checkpoint/peft.ts";
import { addLora } from "../../model/lora.ts";
import { makeBatch } from "../../model/batch.ts";
import { parseConfig } from "../../model/config.ts";
import type { ModelConfig } from "../../model/model_config.ts";
import { freshWeights } from "../../model/load/fresh.ts";
import { generate } from "../../model/generate.ts";
import { loadModel } from "../../model/load/load.ts";
import { Trainer } from "../../train/trainer.ts";
import { dequantiseNf4, quantiseNf4 } from "../../kernels/nf4/nf4.ts";
import { assert, assertEquals, assertThrows } from "../support/assert_close.ts";
import { integers, normal } from "../support/random.ts";

async function wgslFiles(folder: string): Promise<string[]> {
  const files: string[] = [];
  for await (const { name, isDirectory } of Deno.readDir(folder)) {
    if (isDirectory) files.push(...await wgslFiles(`${folder}/${name}`));
    // Kernels on matrix units are beyond this compiler: dawn_test.ts runs them.
    else if (name.endsWith(".wgsl") && !name.endsWith("_matrix.wgsl")) files.push(`${folder}/${name}`);
  }
  return files.sort();
}

const SHAPE = {
  vocab_size: 68,
  hidden_size: 64,
  intermediate_size: 72,
  num_hidden_layers: 1,
  num_attention_heads: 2,
  attention_bias: true,
};
const LLAMA: ModelConfig = parseConfig({ ...SHAPE, model_type: "llama" }, "tests");
const GPT_NEOX: readonly ModelConfig[] = ["gelu", "gelu_new"].map((hidden_act) =>
  parseConfig({ ...SHAPE, model_type: "gpt_neox", hidden_act }, "tests")
);

/**
 * One training step and two tokens of text with everything on: LoRA with dropout, biases, trained norms, embeddings and
 * head, both NF4 forms, states in 8 bits and in 32.
 */
async function trainAndWrite(config: ModelConfig, sharing: Sharing, format: Format): Promise<void> {
  using gpu = await Gpu.open({ sharing });
  const weights = freshWeights(config, 1);
  const model = await loadModel(gpu, weights, {
    config,
    format,
    loadIn4bit: true,
    doubleQuant: sharing === "subgroup",
    isTrained: (name) => /embed|norm|head|bias/.test(name),
  });
  addLora(model, adapterConfig({ r: 4, lora_alpha: 4, lora_dropout: 0.1, target_modules: null }), 1);
  const trainer = new Trainer(model, {
    maxGradNorm: 1,
    attention: () => ({ groupSize: 8 }),
    checkpointing: true,
    lossScaling: false,
    seed: 1,
    noiseAlpha: 5,
    beta1: 0.9,
    beta2: 0.999,
    epsilon: 1e-8,
    weightDecay: 0,
    // The embeddings are large enough for 8 bits, the rest is not.
    optimizerStates: { bits: 8, paged: false },
  });
  await trainer.step([makeBatch([{ inputIds: integers(1, 20, 36) }])], 1e-3);
  const dequantised = dequantiseNf4(gpu, quantiseNf4(gpu, gpu.tensor([4, 64], normal(1, 256))));
  fillBits(gpu, gpu.empty([4], "u32"), 1);
  const long = gpu.zeros([4, 1024], format);
  matmul(gpu, long, long);
  matvec(gpu, long, long);
  await generate(model, [1, 2], { maxNewTokens: 2 });
  await gpu.read(cast(gpu, dequantised, format));
}

Deno.test("Training and writing compile every .wgsl file without a complaint", async () => {
  const compiled: string[] = [];
  const original = GPUDevice.prototype.createShaderModule;
  const problems: Promise<string[]>[] = [];
  GPUDevice.prototype.createShaderModule = function (descriptor) {
    const module = original.call(this, descriptor);
    compiled.push(descriptor.code);
    problems.push(
      module.getCompilationInfo().then(({ messages }) =>
        messages.map(({ message }) => `${descriptor.label}: ${message}`)
      ),
    );
    return module;
  };
  try {
    for (const sharing of ["subgroup", "workgroup"] as const) {
      for (const format of ["f32", "bf16", "f16"] as const) await trainAndWrite(LLAMA, sharing, format);
    }
    for (const config of GPT_NEOX) await trainAndWrite(config, "subgroup", "bf16");
  } finally {
    GPUDevice.prototype.createShaderModule = original;
  }
  assertEquals((await Promise.all(problems)).flat(), []);
  const unused: string[] = [];
  for (const file of await wgslFiles("kernels")) {
    // The first line is the file's own comment, which unrolling leaves as it is.
    const [header] = (await Deno.readTextFile(file)).split("\n");
    assert(header!.startsWith("// "), `${file} must begin with a comment that says what it computes`);
    if (!compiled.some((code) => code.includes(header!))) unused.push(file);
  }
  assertEquals(unused, [], "files that no step compiles");
});

Deno.test("A kernel file with one name misspelt stops the run, naming the kernel", async () => {
  for (const file of await wgslFiles("kernels")) {
    const source = await Deno.readTextFile(file);
    if (!/@compute/.test(source)) continue;
    using gpu = await Gpu.open();
    const kernel: Kernel = { name: file, wgsl: source.replace("fn main(", "fn main_misspelt(") };
    const { bindings } = readInterface(source);
    const tensors = bindings.filter(({ type }) => type !== "uniform").map(() => gpu.zeros([4]));
    const constants = Object.fromEntries(
      [...source.matchAll(/^\s*#for \w+ in 0\.\.([A-Z]\w*)/gm)].map(([, name]) => [name!, 4]),
    );
    const uniforms = Object.fromEntries(readInterface(source).uniforms.map(({ name }) => [name, 0]));
    gpu.run(kernel, tensors, { grid: [1], uniforms, constants });
    await assertThrows(() => gpu.read(gpu.zeros([1])), `Kernel "${file}" does not compile`);
  }
});

Deno.test("#for unrolls, nests and takes constants; what it cannot unroll it names", async () => {
  const kernel = (wgsl: string): Kernel => ({ name: "k", wgsl });
  const nested = "#for g in 0..2\n#for e in 1..N\na$g_$e\n#end\n#end";
  assertEquals(assemble(kernel(nested), { constants: { N: 3 } }), "a0_1\na0_2\na1_1\na1_2");
  assertEquals(assemble(kernel("#for i in 0..N/4\nb$i\n#end"), { constants: { N: 8 } }), "b0\nb1");
  await assertThrows(() => assemble(kernel("#for i in 0..M\n#end"), {}), `kernel "k"`, `"M"`);
  await assertThrows(() => assemble(kernel("#for i in 0..2\n"), {}), "without #end");
  await assertThrows(() => assemble(kernel("#end"), {}), "without #for");
});
