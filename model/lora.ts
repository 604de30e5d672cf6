import {
  type Adapter,
  type AdapterConfig,
  isTarget,
  type LoraPair,
  loraRank,
  loraScaling,
} from "../checkpoint/peft.ts";
import { UserError } from "../errors.ts";
import { fillUniform } from "../kernels/elementwise/fill_random.ts";
import type { Gpu, Purpose } from "../kernels/gpu.ts";
import type { Tensor } from "../kernels/tensor.ts";
import type { ExpertLinears } from "./experts.ts";
import type { Linear, Lora } from "./linear.ts";
import { chooseTargets, settledTargets } from "./lora_targets.ts";
import type { LanguageModel } from "./language_model.ts";
import { partsOf } from "./parameter.ts";
import { readNamed } from "./read_back.ts";
import { layoutOf } from "./tensors.ts";

/**
 * Puts fresh LoRA factors on linears: A uniform within 1 / sqrt(K), B zero, so that nothing changes at first. They are
 * made on the device, by the seed and the linear's number in the model. Linears that are trained whole get none.
 *
 * @param config what to put where; every linear of every layer where its `target_modules` is null
 * @param options.isStrict whether what means nothing in the model is refused; it is unless told otherwise
 * @returns the config with names of the linears that have got LoRA
 * @throws {UserError} if the config names what the model does not have, or leaves no linear
 * @see Hu et al. 2021, arXiv:2106.09685, section 4.1; the bounds are PEFT's
 */
export function addLora(
  model: LanguageModel,
  config: AdapterConfig,
  seed: number,
  { isStrict = true }: { readonly isStrict?: boolean } = {},
): AdapterConfig {
  const { gpu } = model;
  const linears = model.linears();
  const whole = new Set([
    ...linears.filter(({ weightGrad }) => weightGrad).map(({ name }) => name),
    ...model.experts().filter(({ weightGrad }) => weightGrad).flatMap(({ modules }) => modules),
  ]);
  const chosen = chooseTargets(model.config, config, (module) => whole.has(module), { isStrict });
  putFactors(model, chosen, config, { isTrained: true });
  for (const { name, lora } of linears) {
    if (!lora || !chosen.includes(name)) continue;
    const { A, rank, stream } = lora;
    const bound = 1 / Math.sqrt(A.width);
    fillUniform(gpu, A.slice(0, rank), { seed: seed ^ SEED_MARK, stream, low: -bound, high: bound });
  }
  using _ = gpu.memory.purpose("adapters");
  model.experts().forEach((layer, i) => {
    if (!layer.modules.some((module) => chosen.includes(module))) return;
    const { rank, scaling } = alikeOnExperts(config, layer, new Set(chosen));
    const experts = layer.modules.length;
    const [outputs, inputs] = layer.weight.shape as [number, number];
    const [padded, stream] = [paddedRank(rank), linears.length + i];
    const A = gpu.zeros([experts * padded, inputs], "f32", `${layer.name}.lora_A`);
    const B = gpu.zeros([outputs, padded], "f32", `${layer.name}.lora_B`);
    const bound = 1 / Math.sqrt(inputs);
    fillUniform(gpu, A, { seed: seed ^ SEED_MARK, stream, low: -bound, high: bound });
    for (let row = rank; row < experts * padded && padded > rank; row += padded) {
      gpu.clear(A.slice(row, row + padded - rank));
    }
    const dropout = config.lora_dropout;
    layer.lora = withGradients(gpu, layer, { A, B, rank, scaling, dropout, stream, isTrained: true });
  });
  return settledTargets(model.config, config, chosen);
}

/**
 * Gives the rank and scaling that the experts of a layer have for one purpose.
 * @param targets modules with LoRA
 * @throws {UserError} if they differ, or some have no LoRA: the factors of all are in one tensor
 */
function alikeOnExperts(
  config: AdapterConfig,
  { modules }: ExpertLinears,
  targets: { has(module: string): boolean },
): { readonly rank: number; readonly scaling: number } {
  const without = modules.find((module) => !targets.has(module));
  if (without !== undefined) {
    throw new UserError(
      `Cannot put LoRA on some experts of a layer alone: "${
        modules.find((each) => targets.has(each))
      }" gets it, ` +
        `"${without}" does not. Name all of them, or none`,
      { kind: "usage" },
    );
  }
  const [first, ...others] = modules as [string, ...string[]];
  const [rank, scaling] = [loraRank(config, first), loraScaling(config, first)];
  const other = others.find((each) =>
    loraRank(config, each) !== rank || loraScaling(config, each) !== scaling
  );
  if (other === undefined) return { rank, scaling };
  throw new UserError(
    `Cannot put LoRA of different ranks or alphas on the experts of one layer: "${first}" and "${other}" differ by ` +
      "rank_pattern or alpha_pattern",
    { kind: "usage" },
  );
}

/** Mixed into the seed, so that factors do not start from the numbers that dropout draws. */
const SEED_MARK = 0x4c6f5241;

/**
 * Puts the LoRA factors of a PEFT adapter on the model's linears.
 * @param options.isTrained whether they get gradients, and training drops as many of their inputs as the adapter says
 * @throws {UserError} if the adapter has a module or shape that the model does not have
 */
export function applyAdapter(
  model: LanguageModel,
  adapter: Adapter,
  { isTrained }: { readonly isTrained: boolean },
): void {
  const { config, lora } = adapter;
  const { gpu } = model;
  const linears = new Map(model.linears().map((layer) => [layer.name, layer]));
  const experts = model.experts();
  const expertShapes = new Map(experts.flatMap((layer) => {
    const { modules, weight: { shape: [rows, width] } } = layer;
    return modules.map((module) => [module, { layer, shape: [rows! / modules.length, width!] }] as const);
  }));
  requireAll(adapter, [...linears.keys(), ...expertShapes.keys()]);
  for (const [module, pair] of lora) {
    const expert = expertShapes.get(module);
    if (expert) {
      requireFit(config, module, pair, expert.shape);
      requireFrozen(module, expert.layer);
      continue;
    }
    const layer = linears.get(module);
    requireFit(config, module, pair, layer?.weight.shape);
    if (layer) requireFrozen(module, layer);
  }
  putFactors(model, [...lora.keys()], config, { isTrained });
  for (const [module, pair] of lora) {
    const factors = linears.get(module)?.lora;
    if (!factors) continue;
    const { a, b } = paddedFactors([pair]);
    gpu.write(factors.A, a);
    gpu.write(factors.B, b);
  }
  using _ = gpu.memory.purpose("adapters");
  experts.forEach((layer, i) => {
    if (!layer.modules.some((module) => lora.has(module))) return;
    const { rank, scaling } = alikeOnExperts(config, layer, lora);
    const factors = uploadFactors(model.gpu, layer.name, ...layer.modules.map((module) => lora.get(module)!));
    const [dropout, stream] = [isTrained ? config.lora_dropout : 0, linears.size + i];
    layer.lora = withGradients(model.gpu, layer, { ...factors, rank, scaling, dropout, stream, isTrained });
  });
}

/** @throws {UserError} if a linear that the adapter has LoRA on is trained whole */
function requireFrozen(module: string, { weightGrad }: Pick<Linear, "weightGrad">): void {
  if (!weightGrad) return;
  throw new UserError(
    `Cannot train "${module}" whole: the adapter has LoRA on it. Leave it out of trainable_params and modules_to_save`,
    { kind: "usage" },
  );
}

/**
 * Checks that every linear of the model that the adapter's config targets has its factors, or a whole weight.
 * @throws {UserError} naming those without
 */
export function requireAll({ config, lora, extra }: Adapter, linears: Iterable<string>): void {
  const targets = [...linears].filter((module) => isTarget(config, module));
  const missing = targets.filter((module) => !lora.has(module) && !extra.has(`${module}.weight`));
  if (missing.length === 0) return;
  const names = missing.slice(0, 3).join(", ") + (missing.length > 3 ? ", ..." : "");
  throw new UserError(
    `Cannot use the adapter on this model: ${missing.length} of the ${targets.length} linears that its target_modules ` +
      `name have no factors in it (${names}). It is cut short, or of another model`,
  );
}

/**
 * Checks the factors of one module against the model.
 * @param shape (N, K) of the module's weight; undefined where the model has no such linear
 * @throws {UserError} if there is none, or the factors are of another shape or rank
 */
export function requireFit(
  config: AdapterConfig,
  module: string,
  { A, B }: LoraPair,
  shape: readonly number[] | undefined,
): asserts shape {
  const rank = loraRank(config, module);
  const fits = shape && A.shape[0] === rank && A.shape[1] === shape[1] && B.shape[0] === shape[0] &&
    B.shape[1] === rank;
  if (fits) return;
  throw new UserError(
    `Cannot use the adapter on this model: its "${module}" has A [${A.shape}] and B [${B.shape}], ` +
      (shape
        ? `the model's weight is [${shape}]`
        : "the model has no such linear in its layers; LoRA elsewhere is not supported"),
  );
}

/**
 * Reads back what was trained: LoRA factors and whole weights, as PEFT stores them.
 * @param carried whole weights that the run started from, kept where they were not trained on
 */
export async function exportAdapter(
  model: LanguageModel,
  config: AdapterConfig,
  carried: Adapter["extra"] = new Map(),
): Promise<Adapter> {
  const parameters = model.parameters().flatMap(partsOf);
  const values = await readNamed(model.gpu, parameters);
  const lora = new Map<string, LoraPair>();
  for (const { name, lora: factors } of model.linears()) {
    if (factors) {
      lora.set(
        name,
        trimLora(factors, values.get(`${name}.lora_A.weight`)!, values.get(`${name}.lora_B.weight`)!),
      );
    }
  }
  for (const { modules, lora: factors } of model.experts()) {
    for (const module of factors ? modules : []) {
      const [A, B] = [values.get(`${module}.lora_A.weight`)!, values.get(`${module}.lora_B.weight`)!];
      lora.set(module, trimLora(factors!, A, B));
    }
  }
  const extra = new Map(carried);
  for (const { name, value } of parameters) {
    if (/\.lora_[AB]\.weight$/.test(name)) continue;
    extra.set(name, { shape: value.shape, data: values.get(name)!, dtype: "F32" });
  }
  const { embeddings, head } = layoutOf(model.config);
  const table = extra.get(`${embeddings}.weight`);
  // PEFT would leave the head as the base has it.
  if (model.config.tie_word_embeddings && table) extra.set(`${head}.weight`, table);
  return { config, lora, extra };
}

/** Uploads the factors, their rank padded with zeros; those of several linears of one shape one behind the other. */
export function uploadFactors(
  gpu: Gpu,
  module: string,
  ...pairs: readonly LoraPair[]
): { readonly A: Tensor; readonly B: Tensor } {
  const [rank, inputs] = pairs[0]!.A.shape as [number, number];
  const [outputs, padded] = [pairs[0]!.B.shape[0]!, paddedRank(rank)];
  const { a, b } = paddedFactors(pairs);
  return {
    A: gpu.tensor([pairs.length * padded, inputs], a, { label: `${module}.lora_A` }),
    B: gpu.tensor([pairs.length * outputs, padded], b, { label: `${module}.lora_B` }),
  };
}

/** Factors of linears of one shape, one behind the other, their rank padded with zeros. */
function paddedFactors(
  pairs: readonly LoraPair[],
): { readonly a: Float32Array<ArrayBuffer>; readonly b: Float32Array<ArrayBuffer> } {
  const [rank, inputs] = pairs[0]!.A.shape as [number, number];
  const outputs = pairs[0]!.B.shape[0]!;
  const padded = paddedRank(rank);
  const a = new Float32Array(pairs.length * padded * inputs);
  const b = new Float32Array(pairs.length * outputs * padded);
  pairs.forEach(({ A, B }, i) => {
    a.set(A.data, i * padded * inputs);
    for (let row = 0; row < outputs; row++) {
      b.set(B.data.subarray(row * rank, (row + 1) * rank), (i * outputs + row) * padded);
    }
  });
  return { a, b };
}

/** Rows of quads need ranks that are multiples of 4: the rest is zeros. */
function paddedRank(rank: number): number {
  return Math.ceil(rank / 4) * 4;
}

/**
 * Puts factors of zeros on linears, and gradients where they are trained. All lie side by side in the order of
 * {@linkcode LanguageModel.parameters}, of a layer every A before every B: what treats all alike is then one dispatch, and
 * what reads the same rows finds their A together. Zeros that pad a rank have gradients of zero, so they stay.
 */
function putFactors(
  { gpu, parts }: LanguageModel,
  modules: readonly string[],
  config: AdapterConfig,
  { isTrained }: { readonly isTrained: boolean },
): void {
  const chosen = new Set(modules);
  const layers = parts.layers.map(({ linears }) => linears.filter(({ name }) => chosen.has(name)));
  const shapes = layers.flatMap((linears) =>
    (["A", "B"] as const).flatMap((factor) =>
      linears.map(({ name, weight }) => {
        const rank = paddedRank(loraRank(config, name));
        const [outputs, inputs] = weight.shape as [number, number];
        return { label: `${name}.lora_${factor}`, shape: factor === "A" ? [rank, inputs] : [outputs, rank] };
      })
    )
  );
  const make = (purpose: Purpose): Iterator<Tensor> => {
    using _ = gpu.memory.purpose(purpose);
    return gpu.zerosTogether(shapes).values();
  };
  const values = make("adapters");
  const gradients = isTrained ? make("gradients") : undefined;
  let stream = 0;
  for (const [number, layer] of parts.layers.entries()) {
    const linears = layers[number]!;
    const take = (from: Iterator<Tensor> | undefined) => linears.map(() => from?.next().value);
    const [A, B] = [take(values), take(values)] as [Tensor[], Tensor[]];
    const [gradA, gradB] = [take(gradients), take(gradients)];
    linears.forEach((linear, i) => {
      linear.lora = {
        A: A[i]!,
        B: B[i]!,
        gradA: gradA[i],
        gradB: gradB[i],
        rank: loraRank(config, linear.name),
        scaling: loraScaling(config, linear.name),
        dropout: isTrained ? config.lora_dropout : 0,
        stream: stream + layer.linears.indexOf(linear),
      };
    });
    stream += layer.linears.length;
  }
}

/** Zeros that pad the rank have gradients of zero, so they stay. */
function withGradients(
  gpu: Gpu,
  layer: Pick<Linear, "name">,
  { isTrained, ...lora }: Omit<Lora, "gradA" | "gradB"> & { readonly isTrained: boolean },
): Lora {
  using _ = gpu.memory.purpose("gradients");
  const gradient = ({ shape }: Tensor): Tensor | undefined =>
    isTrained ? gpu.zeros(shape, "f32", `gradient of ${layer.name} LoRA`) : undefined;
  return { ...lora, gradA: gradient(lora.A), gradB: gradient(lora.B) };
}

/** The factors without the zeros of {@linkcode paddedRank}. */
function trimLora({ A, B, rank }: Lora, a: Float32Array, b: Float32Array): LoraPair {
  const [inputs, padded] = [A.width, B.width];
  const outputs = b.length / padded;
  const trimmed = new Float32Array(outputs * rank);
  for (let row = 0; row < outputs; row++) {
    trimmed.set(b.subarray(row * padded, row * padded + rank), row * rank);
  }
  return {
    A: { shape: [rank, inputs], data: a.slice(0, rank * inputs) },
    B: { shape: [outputs, rank], data: trimmed },
  };
}
