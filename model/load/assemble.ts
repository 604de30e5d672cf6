import type { Gpu } from "../../kernels/gpu.ts";
import type { Weight } from "../../kernels/matmul/matmul.ts";
import type { Tensor } from "../../kernels/tensor.ts";
import type { Format } from "../../kernels/wgsl.ts";
import { LlamaBlock } from "../llama/block.ts";
import type { ModelConfig } from "../config.ts";
import { GptNeoxBlock } from "../gpt_neox/block.ts";
import { GPT_NEOX_LINEARS } from "../gpt_neox/config.ts";
import type { Layer } from "../layer.ts";
import type { Linear } from "../linear.ts";
import { LanguageModel, type Table } from "../language_model.ts";
import { LLAMA_LINEARS } from "../llama/config.ts";
import type { Norm } from "../norm.ts";
import { LAYER_NORMS, layoutOf, type LinearSpec } from "../tensors.ts";

/** Where a model's weights come from: a checkpoint, or random numbers. Names are those of the checkpoint. */
export interface WeightSource {
  /** Embeddings or head (V, C), in the source's own format, or f32 where they are trained. */
  table(name: string, shape: readonly [number, number]): Promise<Tensor>;
  /** A norm's weight or a bias, f32. */
  vector(name: string, length: number): Promise<Tensor>;
  /** A linear's matrix (N, K): dense or NF4. */
  matrix(name: string, shape: readonly [number, number]): Promise<Weight>;
  /** Whether the tensor is trained: then it gets a gradient. */
  isTrained(name: string): boolean;
}

/** Builds the model tensor by tensor, in the order of the checkpoint. @param format how activations are stored */
export async function assembleModel(
  gpu: Gpu,
  config: ModelConfig,
  format: Format,
  source: WeightSource,
): Promise<LanguageModel> {
  using _base = gpu.memory.purpose("base");
  const layout = layoutOf(config);
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
  const norm = async (name: string): Promise<Norm> => {
    const weight = await source.vector(`${name}.weight`, config.hidden_size);
    const weightGrad = gradient(`${name}.weight`, weight);
    return { name, weight, weightGrad, ...await bias(name, config.hidden_size, layout.normHasBias), eps };
  };
  const linear = async (name: string, { shape, hasBias }: LinearSpec): Promise<Linear> => {
    const weight = await source.matrix(`${name}.weight`, shape);
    const weightGrad = gradient(`${name}.weight`, weight);
    return { name, weight, weightGrad, ...await bias(name, shape[0], hasBias), lora: undefined };
  };
  const eps = config.model_type === "gpt_neox" ? config.layer_norm_eps : config.rms_norm_eps;
  const embeddings = await table(layout.embeddings);
  const layers: Layer[] = [];
  for (let number = 0; number < config.num_hidden_layers; number++) {
    const within = `${layout.layers}.${number}`;
    const input_layernorm = await norm(`${within}.${LAYER_NORMS[0]}`);
    const linears: Linear[] = [];
    for (const spec of layout.linears) linears.push(await linear(`${within}.${spec.name}`, spec));
    const post_attention_layernorm = await norm(`${within}.${LAYER_NORMS[1]}`);
    layers.push(makeLayer(config, { input_layernorm, post_attention_layernorm }, linears));
  }
  return new LanguageModel(gpu, {
    config,
    format,
    embeddings,
    layers,
    norm: await norm(layout.norm),
    head: config.tie_word_embeddings ? embeddings : await table(layout.head),
  });
}

/** A layer of the config's architecture. @param linears in the order of the checkpoint */
function makeLayer(
  config: ModelConfig,
  norms: Readonly<Record<typeof LAYER_NORMS[number], Norm>>,
  linears: readonly Linear[],
): Layer {
  const named = <N extends string>(names: readonly N[]) =>
    Object.fromEntries(names.map((name, i) => [name, linears[i]])) as Record<N, Linear>;
  return config.model_type === "gpt_neox"
    ? new GptNeoxBlock({ ...norms, ...named(GPT_NEOX_LINEARS) }, config)
    : new LlamaBlock({ ...norms, ...named(LLAMA_LINEARS) }, config);
}
