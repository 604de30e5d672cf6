import { fromF32, toF32 } from "../checkpoint/dtype.ts";
import type { AttentionRule } from "../kernels/attention/map.ts";
import { embed, embedBackward } from "../kernels/embedding/embedding.ts";
import type { Gpu } from "../kernels/gpu.ts";
import { crossEntropy } from "../kernels/loss/cross_entropy.ts";
import { softCapInPlace } from "../kernels/loss/soft_cap.ts";
import { matmul, matmulBackwardInput, matmulBackwardWeight } from "../kernels/matmul/matmul.ts";
import { sumInto } from "../kernels/shared/sum.ts";
import { bytesPerElement, rowRanges, type Tensor } from "../kernels/tensor.ts";
import type { Format } from "../kernels/wgsl.ts";
import { type Batch, type DeviceBatch, uploadBatch } from "./batch.ts";
import { type RowRange, rowsWithin } from "../kernels/shared/row_chunks.ts";
import type { ModelConfig } from "./model_config.ts";
import type { DecoderLayer, DecoderSaved } from "./decoder_layer.ts";
import type { Pass } from "./pass.ts";
import type { DropoutKey, Linear } from "./linear.ts";
import { addEmbeddingNoise } from "./noise.ts";
import { type Norm, norm, normBackward } from "./norm.ts";
import type { Parameter } from "./parameter.ts";
import type { ExpertLinears } from "./experts.ts";
import { LayerRopes } from "./layer_ropes.ts";

/** A table of embeddings (V, C) or the head's matrix, and its gradient where it is trained. */
export interface Table {
  /** Module name in the checkpoint, such as `model.embed_tokens`. */
  readonly name: string;
  readonly weight: Tensor;
  readonly grad: Tensor | undefined;
}

/** Parts of a model; `load.ts` makes these from a checkpoint. */
export interface ModelParts {
  readonly config: ModelConfig;
  /** Storage format of activations. */
  readonly format: Format;
  readonly embeddings: Table;
  readonly layers: readonly DecoderLayer[];
  readonly norm: Norm;
  /** The same object as `embeddings` where the config ties them. */
  readonly head: Table;
}

export interface GradientOptions {
  /** Factor of the loss whose gradient is made: 1 / targets of the whole step, times any loss scale. */
  readonly gradScale: number;
  /** Recompute each layer in the backward pass instead of keeping its activations. */
  readonly checkpointing: boolean;
  /** With checkpointing: the layers' inputs wait in host memory in between. */
  readonly offload?: boolean;
  readonly dropout?: DropoutKey;
  /** Noise on the embeddings, in NEFTune's measure, drawn by the key of `dropout`; none unless given. */
  readonly noiseAlpha?: number | undefined;
  /** (1) f32: the sum of the batch's losses is added to it, in nats. */
  readonly lossSum: Tensor;
}

/** Losses of all rows and the tokens found likeliest. */
export interface Predictions {
  /** (rows) nats; 0 where a row has no label. */
  readonly losses: Float32Array;
  /** (rows) */
  readonly argmax: Uint32Array;
}

/** Logits of one chunk of rows at most: the head is never applied to all rows at once. */
const LOGITS_BYTES = 64 * 2 ** 20;
/** The three widest tensors of a chunk of rows in a layer, at most: enough rows to fill any GPU. */
export const CHUNK_BYTES = 192 * 2 ** 20;

/** A layer's input that waits for the backward pass. */
interface Kept {
  /** Gives it back; the caller frees it. */
  take(): Promise<Tensor>;
}

/** Some rows on their way from the last layer to the loss. */
interface HeadChunk extends RowRange {
  /** (end - start, C) Output of the last layer, a part of that of all rows. */
  readonly x: Tensor;
  /** (end - start, C) */
  readonly normed: Tensor;
  /** The norm's statistics, for its backward pass. */
  readonly stats: Tensor;
  /** (end - start, V rounded up to a multiple of 4) f32 */
  readonly logits: Tensor;
}

/** A model on the device, forward and backward. */
export class LanguageModel {
  /** The device that it is on. */
  readonly gpu: Gpu;
  /**
   * Layers, embeddings, norm and head.
   * @internal
   */
  readonly parts: ModelParts;
  /** Bytes of the three widest tensors, such as gate, up and their product, in one chunk of rows. */
  chunkBytes: number = CHUNK_BYTES;
  /** Whether the weights of a layer are decoded together while it is worked on: faster, in more memory. */
  decodesLayers = false;
  readonly #ropes: LayerRopes;

  /**
   * Takes what `assemble` made.
   * @internal
   */
  constructor(gpu: Gpu, parts: ModelParts) {
    this.gpu = gpu;
    this.parts = parts;
    this.#ropes = new LayerRopes(gpu, parts.config);
  }

  /** Its shape, context extended. */
  get config(): ModelConfig {
    return this.parts.config;
  }

  /** Brings a batch to the device. @param rule who sees whom in layers without a window; full attention unless given */
  upload(batch: Batch, rule: AttentionRule = {}): DeviceBatch {
    return uploadBatch(this.gpu, batch, rule, this.config.layers.map((layer) => layer.sliding_window));
  }

  /**
   * Every linear of every layer, in the order of the checkpoint.
   * @internal
   */
  linears(): Linear[] {
    return this.parts.layers.flatMap(({ linears }) => linears);
  }

  /**
   * The experts' linears of every layer, those for one purpose together.
   * @internal
   */
  experts(): ExpertLinears[] {
    return this.parts.layers.flatMap(({ experts }) => experts);
  }

  /** Lists what is trained: LoRA factors and base weights that have gradients, each once. */
  parameters(): Parameter[] {
    const { embeddings, head, norm, layers } = this.parts;
    const parameters: Parameter[] = [];
    const add = (
      name: string,
      value: Tensor | undefined,
      grad: Tensor | undefined,
      parts?: readonly string[],
    ) => {
      if (value && grad) parameters.push({ name, value, grad, parts });
    };
    const addNorm = ({ name, weight, bias, weightGrad, biasGrad }: Norm) => {
      add(`${name}.weight`, weight, weightGrad);
      add(`${name}.bias`, bias, biasGrad);
    };
    add(`${embeddings.name}.weight`, embeddings.weight, embeddings.grad);
    layers.forEach(({ norms }) => norms.forEach(addNorm));
    for (const { name, weight, bias, weightGrad, biasGrad } of this.linears()) {
      if (weightGrad) add(`${name}.weight`, weight as Tensor, weightGrad);
      add(`${name}.bias`, bias, biasGrad);
    }
    // In the order of their memory.
    for (const { linears } of layers) {
      linears.forEach(({ name, lora }) => add(`${name}.lora_A.weight`, lora?.A, lora?.gradA));
      linears.forEach(({ name, lora }) => add(`${name}.lora_B.weight`, lora?.B, lora?.gradB));
    }
    layers.forEach(({ routers }) =>
      routers.forEach(({ name, weight, weightGrad }) => {
        if (weightGrad) add(`${name}.weight`, weight as Tensor, weightGrad);
      })
    );
    for (const { name, modules, weight, weightGrad, lora } of this.experts()) {
      const tensors = (suffix: string) => modules.map((module) => `${module}.${suffix}`);
      if (weightGrad) add(`${name}.weight`, weight as Tensor, weightGrad, tensors("weight"));
      add(`${name}.lora_A.weight`, lora?.A, lora?.gradA, tensors("lora_A.weight"));
      add(`${name}.lora_B.weight`, lora?.B, lora?.gradB, tensors("lora_B.weight"));
    }
    addNorm(norm);
    if (head !== embeddings) add(`${head.name}.weight`, head.weight, head.grad);
    return parameters;
  }

  /**
   * Adds the gradient of the batch's summed loss, times `gradScale`, to every parameter's, and the summed loss to
   * `lossSum`. Waits only where host memory is JavaScript's (kernels/host.ts).
   * @internal
   */
  async lossAndGradients(device: DeviceBatch, options: GradientOptions): Promise<void> {
    const { gpu } = this;
    const { layers, embeddings } = this.parts;
    const { checkpointing, offload = false } = options;
    const passes = this.#passes(device, options.dropout, checkpointing);
    using _ = gpu.memory.purpose("activations");
    gpu.memory.at("embedding");
    const factor = embeddingFactor(this.parts);
    let x = embed(gpu, device.tokens, embeddings.weight, this.parts.format, factor);
    if (options.noiseAlpha && options.dropout) {
      // As if drawn before the factor.
      addEmbeddingNoise(gpu, x, device.batch, factor * options.noiseAlpha, options.dropout);
    }
    const kept: { readonly x: Kept; readonly saved?: DecoderSaved }[] = [];
    for (const [i, layer] of layers.entries()) {
      gpu.memory.at(`forward, layer ${i + 1}`);
      if (checkpointing) {
        const out = await layer.forward(gpu, x, passes[i]!);
        // The last layer's turn comes at once.
        kept.push({ x: await this.#keep(x, offload && i < layers.length - 1) });
        x = out;
      } else {
        const { out, saved } = await layer.forwardKeeping(gpu, x, passes[i]!);
        kept.push({ x: onDevice(x), saved });
        x = out;
      }
      gpu.submit();
      await gpu.yieldToEvents();
    }
    const gradient = this.#lossBackward(x, device, options);
    for (const [i, layer] of [...layers.entries()].reverse()) {
      gpu.memory.at(`backward, layer ${i + 1}`);
      const { x: checkpoint, saved } = kept.pop()!;
      const x = await checkpoint.take();
      await layer.backward(gpu, gradient, x, passes[i]!, saved);
      x.free();
      gpu.submit();
      await gpu.yieldToEvents();
    }
    gpu.memory.at("embedding, backward");
    if (embeddings.grad) embedBackward(gpu, device.batch.tokens, gradient, embeddings.grad, factor);
    gradient.free();
  }

  /** Stores a layer's input for the backward pass; on the host its memory on the device is free in between. */
  async #keep(x: Tensor, offload: boolean): Promise<Kept> {
    const { gpu } = this;
    if (!offload) {
      gpu.memory.assign(x, "checkpoints");
      return onDevice(x);
    }
    const { shape, dtype } = x;
    const host = gpu.host.empty(shape, dtype, "checkpoint");
    await host.store(x);
    x.free();
    return {
      take: async () => {
        using _ = gpu.memory.purpose("checkpoints");
        const back = gpu.empty(shape, dtype, "checkpoint");
        await host.load(back);
        host.free();
        return back;
      },
    };
  }

  /** Loss and likeliest next token of every row. */
  async predict(device: DeviceBatch): Promise<Predictions> {
    const { gpu } = this;
    const hidden = await this.#forward(device);
    const losses = gpu.empty([device.batch.rows], "f32", "losses");
    const argmax = gpu.empty([device.batch.rows], "u32", "argmax");
    this.#forEachLogits(hidden, ({ logits, start, end }) => {
      const labels = device.labels.slice(start, end);
      const chunk = crossEntropy(gpu, logits, labels, { vocabSize: this.config.vocab_size });
      gpu.copy(chunk.loss, losses.slice(start, end));
      gpu.copy(chunk.argmax, argmax.slice(start, end));
      chunk.loss.free();
      chunk.argmax.free();
    });
    hidden.free();
    const [lossBytes, argmaxBytes] = await gpu.readBytes([losses, argmax]);
    losses.free();
    argmax.free();
    return { losses: new Float32Array(lossBytes!.buffer), argmax: new Uint32Array(argmaxBytes!.buffer) };
  }

  /** Logits of every row, (rows, V): for comparing models and for small inputs. */
  async logits(device: DeviceBatch): Promise<Float32Array> {
    const hidden = await this.#forward(device);
    const { vocab_size } = this.config;
    const result = new Float32Array(device.batch.rows * vocab_size);
    const chunks: { start: number; logits: Tensor }[] = [];
    this.#forEachLogits(hidden, ({ logits, start }) => {
      const copy = this.gpu.empty(logits.shape, "f32", "logits");
      this.gpu.copy(logits, copy);
      chunks.push({ start, logits: copy });
    });
    hidden.free();
    for (const { start, logits } of chunks) {
      const values = await this.gpu.read(logits);
      for (let row = 0; row < logits.rows; row++) {
        const from = row * logits.width;
        result.set(values.subarray(from, from + vocab_size), (start + row) * vocab_size);
      }
      logits.free();
    }
    return result;
  }

  /** Output of the last layer (rows, C), before the last norm. */
  async #forward(device: DeviceBatch): Promise<Tensor> {
    const { gpu } = this;
    const passes = this.#passes(device, undefined);
    const { embeddings, format } = this.parts;
    let x = embed(gpu, device.tokens, embeddings.weight, format, embeddingFactor(this.parts));
    for (const [i, layer] of this.parts.layers.entries()) {
      const out = await layer.forward(gpu, x, passes[i]!);
      x.free();
      x = out;
      gpu.submit();
      await gpu.yieldToEvents();
    }
    return x;
  }

  /** Norm, head and loss, forward and backward by chunks of rows. @returns the gradient for x, in its memory */
  #lossBackward(x: Tensor, device: DeviceBatch, { gradScale, lossSum }: GradientOptions): Tensor {
    const { gpu } = this;
    const { head, norm: last } = this.parts;
    const alpha = logitScale(this.config);
    gpu.memory.at("head and loss");
    this.#forEachLogits(x, ({ x, normed, stats, logits, start, end }) => {
      const { vocab_size: vocabSize, final_logit_softcapping: cap } = this.config;
      const { loss, argmax } = crossEntropy(gpu, logits, device.labels.slice(start, end), {
        vocabSize,
        gradScale,
        cap,
      });
      sumInto(gpu, loss, lossSum);
      loss.free();
      argmax.free();
      const dNormed = matmulBackwardInput(gpu, logits, head.weight, { alpha, format: normed.format });
      if (head.grad) matmulBackwardWeight(gpu, logits, normed, { into: head.grad, alpha, beta: 1 });
      const dx = normBackward(gpu, dNormed, last, { x, stats });
      dNormed.free();
      gpu.copy(dx, x);
      dx.free();
    });
    return x;
  }

  /** Applies the last norm and the head to chunks of rows, whose tensors live for the call. */
  #forEachLogits(hidden: Tensor, use: (chunk: HeadChunk) => void): void {
    const { gpu } = this;
    const { head, norm: last } = this.parts;
    using _ = gpu.memory.purpose("cross-entropy");
    const { vocab_size, final_logit_softcapping: cap } = this.config;
    const rowBytes = Math.ceil(vocab_size / 4) * 16;
    const most = rowsWithin(Math.min(LOGITS_BYTES, gpu.maxBindingBytes), rowBytes);
    for (const { start, end } of rowRanges([hidden], most)) {
      const x = hidden.slice(start, end);
      const { y, stats } = norm(gpu, x, last);
      const logits = matmul(gpu, y, head.weight, { alpha: logitScale(this.config), format: "f32" });
      if (cap) softCapInPlace(gpu, logits, cap);
      use({ x, normed: y, stats, logits, start, end });
      for (const tensor of [logits, stats, y]) tensor.free();
    }
    gpu.submit();
  }

  /** Gives the pass of each layer. @param isRecomputed whether the backward pass runs each layer forward again */
  #passes(device: DeviceBatch, dropout: DropoutKey | undefined, isRecomputed = false): Pass[] {
    const { longest, part } = device.batch;
    const ropes = this.#ropes.forLength(longest);
    const chunkRows = rowsWithin(
      this.chunkBytes,
      3 * (this.config.mlp_width ?? this.config.intermediate_size) * bytesPerElement(this.parts.format),
    );
    return this.config.layers.map(({ sliding_window }, layer) => ({
      map: device.maps.get(sliding_window)!,
      exchange: device.exchanges.get(sliding_window)?.(isRecomputed),
      positions: device.positions,
      rope: ropes[layer]!,
      dropout: dropout && part ? { ...dropout, firstRow: part.start } : dropout,
      chunkRows,
      decodesLayers: this.decodesLayers,
    }));
  }
}

/** Factor of the logits. */
export function logitScale({ logits_scaling = 1 }: ModelConfig): number {
  return 1 / logits_scaling;
}

/** Factor of the embeddings where the first layer reads them. */
export function embeddingFactor({ config, format }: Pick<ModelParts, "config" | "format">): number {
  const { embedding_multiplier: factor = 1, is_embedding_multiplier_rounded: isRounded } = config;
  if (!isRounded || format === "f32") return factor;
  const dtype = format === "bf16" ? "BF16" : "F16";
  return toF32(fromF32(Float32Array.of(factor), dtype), dtype)[0]!;
}

function onDevice(x: Tensor): Kept {
  return { take: () => Promise.resolve(x) };
}
