import type { Gpu } from "../kernels/gpu.ts";
import type { Weight } from "../kernels/matmul/matmul.ts";
import type { Tensor } from "../kernels/tensor.ts";
import type { Format } from "../kernels/wgsl.ts";
import { Block, type Norm } from "./block.ts";
import type { LlamaConfig } from "./config.ts";
import type { Linear } from "./linear.ts";
import { Llama, type Table } from "./llama.ts";
import { hasBias, LINEAR_NAMES, linearModule, type LinearName, linearShape } from "./tensors.ts";

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
  config: LlamaConfig,
  format: Format,
  source: WeightSource,
): Promise<Llama> {
  using _base = gpu.purpose("base");
  const gradient = (name: string, { shape }: Weight): Tensor | undefined => {
    using _ = gpu.purpose("gradients");
    return source.isTrained(name) ? gpu.zeros(shape, "f32", `gradient of ${name}`) : undefined;
  };
  const table = async (name: string): Promise<Table> => {
    const weight = await source.table(name, [config.vocab_size, config.hidden_size]);
    return { weight, grad: gradient(name, weight) };
  };
  const norm = async (name: string): Promise<Norm> => {
    const weight = await source.vector(name, config.hidden_size);
    return { weight, grad: gradient(name, weight) };
  };
  const linear = async (layer: number, name: LinearName): Promise<Linear> => {
    const module = linearModule(layer, name);
    const shape = linearShape(config, name);
    const weight = await source.matrix(`${module}.weight`, shape);
    const bias = hasBias(config, name) ? await source.vector(`${module}.bias`, shape[0]) : undefined;
    return {
      name: module,
      weight,
      bias,
      weightGrad: gradient(`${module}.weight`, weight),
      biasGrad: bias && gradient(`${module}.bias`, bias),
      lora: undefined,
    };
  };
  const embed_tokens = await table("model.embed_tokens.weight");
  const blocks: Block[] = [];
  for (let layer = 0; layer < config.num_hidden_layers; layer++) {
    const linears: Partial<Record<LinearName, Linear>> = {};
    const input_layernorm = await norm(`model.layers.${layer}.input_layernorm.weight`);
    for (const name of LINEAR_NAMES) linears[name] = await linear(layer, name);
    const post_attention_layernorm = await norm(`model.layers.${layer}.post_attention_layernorm.weight`);
    const all = linears as Record<LinearName, Linear>;
    blocks.push(new Block({ input_layernorm, post_attention_layernorm, ...all }, config));
  }
  return new Llama(gpu, {
    config,
    format,
    embed_tokens,
    blocks,
    norm: await norm("model.norm.weight"),
    lm_head: config.tie_word_embeddings ? embed_tokens : await table("lm_head.weight"),
  });
}
