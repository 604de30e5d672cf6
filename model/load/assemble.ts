import type { Gpu } from "../../kernels/gpu.ts";
import type { Weight } from "../../kernels/weight.ts";
import type { Tensor } from "../../kernels/tensor.ts";
import type { Format } from "../../kernels/wgsl.ts";
import { architectureOf } from "../architectures.ts";
import { LanguageModel, type Table } from "../language_model.ts";
import type { DecoderLayer } from "../decoder_layer.ts";
import { LayerModules } from "../layer_modules.ts";
import type { LinearSpec, ModuleSpec, NormSpec, RouterSpec } from "../layout.ts";
import type { ExpertLinears } from "../experts.ts";
import type { Linear } from "../linear.ts";
import type { ModelConfig } from "../model_config.ts";
import type { Norm } from "../norm.ts";
import { modulesOf } from "../tensors.ts";

/** Source of a model's weights: a checkpoint, or random numbers. Names are those of the checkpoint. */
export interface WeightSource {
  /** Embeddings or head (V, C), in the source's own format, or f32 where they are trained. */
  table(name: string, shape: readonly [number, number]): Promise<Tensor>;
  /** A norm's weight or a bias, f32. */
  vector(name: string, length: number): Promise<Tensor>;
  /** Form that a linear's matrix has on the device: a format, or a quantisation. Those of one form can be asked for at once. */
  formOf(name: string): string;
  /** Matrices of linears, of one form, side by side in memory. */
  matrices(wanted: readonly NamedMatrix[]): Promise<Weight[]>;
  /** Matrices of one shape (N, K), one behind the other: dense or NF4. @param label of them all */
  stack(names: readonly string[], shape: readonly [number, number], label: string): Promise<Weight>;
  /** Whether the tensor is trained: then it gets a gradient. */
  isTrained(name: string): boolean;
}

/** A matrix of a checkpoint. */
export interface NamedMatrix {
  readonly name: string;
  /** (N, K) */
  readonly shape: readonly [number, number];
}

/** Builds the model tensor by tensor, in the order of the checkpoint. @param format how activations are stored */
export async function assembleModel(
  gpu: Gpu,
  config: ModelConfig,
  format: Format,
  source: WeightSource,
): Promise<LanguageModel> {
  using _base = gpu.memory.purpose("base");
  const architecture = architectureOf(config);
  const layout = architecture.layout(config);
  const gradient = (name: string, { shape }: Weight): Tensor | undefined => {
    using _ = gpu.memory.purpose("gradients");
    return source.isTrained(name) ? gpu.zeros(shape, "f32", `gradient of ${name}`) : undefined;
  };
  const bias = async (module: string, length: number, exists: boolean) => {
    const value = exists ? await source.vector(`${module}.bias`, length) : undefined;
    return { bias: value, biasGrad: value && gradient(`${module}.bias`, value) };
  };
  const table = async (name: string): Promise<Table> => {
    const weight = await source.table(`${name}.weight`, [config.vocab_size, config.hidden_size]);
    return { name, weight, grad: gradient(`${name}.weight`, weight) };
  };
  const norm = async (name: string, { width, eps, hasBias, offset }: NormSpec): Promise<Norm> => {
    const weight = await source.vector(`${name}.weight`, width);
    const weightGrad = gradient(`${name}.weight`, weight);
    return { name, weight, weightGrad, ...await bias(name, width, hasBias), eps, offset };
  };
  const linears = async (within: string, specs: readonly LinearSpec[]): Promise<Linear[]> => {
    const wanted = specs.map(({ name, shape }) => ({ name: `${within}.${name}.weight`, shape }));
    const forms = new Set(wanted.map(({ name }) => source.formOf(name)));
    const weights = forms.size === 1 ? await source.matrices(wanted) : await eachOf(source, wanted);
    const made: Linear[] = [];
    for (const [i, spec] of specs.entries()) {
      const [name, weight] = [`${within}.${spec.name}`, weights[i]!];
      const weightGrad = gradient(`${name}.weight`, weight);
      const ofBias = await bias(name, spec.shape[0], spec.hasBias);
      made.push({ name, weight, weightGrad, ...ofBias, scale: spec.scale, lora: undefined });
    }
    return made;
  };
  const router = async (name: string, { shape }: RouterSpec): Promise<Linear> => {
    const weight = await source.table(`${name}.weight`, shape);
    const weightGrad = gradient(`${name}.weight`, weight);
    return { name, weight, weightGrad, bias: undefined, biasGrad: undefined, lora: undefined };
  };
  const stack = async (name: string, modules: readonly string[], { shape }: LinearSpec) => {
    const names = modules.map((module) => `${module}.weight`);
    const weight = await source.stack(names, shape, name);
    return { name, modules, weight, weightGrad: gradient(names[0]!, weight), lora: undefined };
  };
  const embeddings = await table(layout.embeddings);
  const layers: DecoderLayer[] = [];
  for (let number = 0; number < config.num_hidden_layers; number++) {
    const within = `${layout.layers}.${number}`;
    const ofLayer: Linear[] = [];
    const norms: Norm[] = [];
    const routers: Linear[] = [];
    const experts: ExpertLinears[] = [];
    const modules = modulesOf(layout, number);
    for (const spec of modules) {
      const name = `${within}.${spec.name}`;
      if (spec.kind === "norm") norms.push(await norm(name, spec));
      else if (spec.kind === "router") routers.push(await router(name, spec));
      else if (!spec.expert) {
        if (ofLayer.some((each) => each.name === name)) continue;
        const isBeside = (each: ModuleSpec) =>
          each === spec || spec.group !== undefined && each.kind === "linear" && each.group === spec.group;
        ofLayer.push(...await linears(within, modules.filter(isBeside) as LinearSpec[]));
      } else {
        const { stack: of } = spec.expert;
        if (experts.some((each) => each.name === `${within}.${of}`)) continue;
        const all = modules.filter((each) => each.kind === "linear" && each.expert?.stack === of);
        experts.push(await stack(`${within}.${of}`, all.map((each) => `${within}.${each.name}`), spec));
      }
    }
    const lists = { linears: ofLayer, norms, routers, experts };
    layers.push(architecture.makeLayer(new LayerModules(within, lists), config));
  }
  return new LanguageModel(gpu, {
    config,
    format,
    embeddings,
    layers,
    norm: await norm(layout.norm.name, layout.norm),
    head: config.tie_word_embeddings ? embeddings : await table(layout.head),
  });
}

/** Matrices of several forms, each for itself. */
async function eachOf(source: WeightSource, wanted: readonly NamedMatrix[]): Promise<Weight[]> {
  const weights: Weight[] = [];
  for (const one of wanted) weights.push(...await source.matrices([one]));
  return weights;
}
