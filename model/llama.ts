import { embed, embedBackward } from "../kernels/embedding/embedding.ts";
import type { Gpu } from "../kernels/gpu.ts";
import { crossEntropy } from "../kernels/loss/cross_entropy.ts";
import { matmul, matmulBackwardInput, matmulBackwardWeight } from "../kernels/matmul/matmul.ts";
import { rmsNorm, rmsNormBackward } from "../kernels/norm/rms_norm.ts";
import { sumInto } from "../kernels/shared/sum.ts";
import { ROW_ALIGNMENT, rowRanges, type Tensor } from "../kernels/tensor.ts";
import type { Format } from "../kernels/wgsl.ts";
import type { DeviceBatch } from "./batch.ts";
import { type Block, type BlockSaved, freeSaved, type Norm, type Pass } from "./block.ts";
import type { LlamaConfig } from "./config.ts";
import type { DropoutKey, Linear } from "./linear.ts";
import type { Parameter } from "./parameter.ts";
import { type RopeTables, ropeTables } from "./rope.ts";

/** A table of embeddings (V, C) or the head's matrix, and its gradient where it is trained. */
export interface Table {
  readonly weight: Tensor;
  readonly grad: Tensor | undefined;
}

/** What a model is made of; `load.ts` makes these from a checkpoint. */
export interface LlamaParts {
  readonly config: LlamaConfig;
  /** How activations are stored. */
  readonly format: Format;
  readonly embed_tokens: Table;
  readonly blocks: readonly Block[];
  readonly norm: Norm;
  /** The same object as `embed_tokens` where the config ties them. */
  readonly lm_head: Table;
}

export interface GradientOptions {
  /** Factor of the loss whose gradient is made: 1 / targets of the whole step, times any loss scale. */
  readonly gradScale: number;
  /** Recompute each layer in the backward pass instead of keeping its activations. */
  readonly checkpointing: boolean;
  readonly dropout?: DropoutKey;
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

/** A LLaMA model on the device, forward and backward. */
export class Llama {
  readonly gpu: Gpu;
  readonly parts: LlamaParts;
  #rope: { length: number; cos: Tensor; sin: Tensor } | undefined;

  constructor(gpu: Gpu, parts: LlamaParts) {
    this.gpu = gpu;
    this.parts = parts;
  }

  get config(): LlamaConfig {
    return this.parts.config;
  }

  /** Every linear of every layer, in the order of the checkpoint. */
  linears(): Linear[] {
    return this.parts.blocks.flatMap(({ weights: w }) => [
      w.q_proj,
      w.k_proj,
      w.v_proj,
      w.o_proj,
      w.gate_proj,
      w.up_proj,
      w.down_proj,
    ]);
  }

  /** What is trained: LoRA factors and base weights that have gradients, each once. */
  parameters(): Parameter[] {
    const { embed_tokens, lm_head, norm, blocks } = this.parts;
    const parameters: Parameter[] = [];
    const add = (name: string, value: Tensor | undefined, grad: Tensor | undefined) => {
      if (value && grad) parameters.push({ name, value, grad });
    };
    add("model.embed_tokens.weight", embed_tokens.weight, embed_tokens.grad);
    blocks.forEach(({ weights: w }, i) => {
      add(`model.layers.${i}.input_layernorm.weight`, w.input_layernorm.weight, w.input_layernorm.grad);
      const norm2 = w.post_attention_layernorm;
      add(`model.layers.${i}.post_attention_layernorm.weight`, norm2.weight, norm2.grad);
    });
    for (const { name, weight, bias, weightGrad, biasGrad, lora } of this.linears()) {
      if (weightGrad) add(`${name}.weight`, weight as Tensor, weightGrad);
      add(`${name}.bias`, bias, biasGrad);
      add(`${name}.lora_A.weight`, lora?.A, lora?.gradA);
      add(`${name}.lora_B.weight`, lora?.B, lora?.gradB);
    }
    add("model.norm.weight", norm.weight, norm.grad);
    if (lm_head !== embed_tokens) add("lm_head.weight", lm_head.weight, lm_head.grad);
    return parameters;
  }

  /**
   * Adds the gradient of the batch's summed loss, times `gradScale`, to every parameter's, and the summed loss to
   * `lossSum`. Nothing is read back.
   */
  lossAndGradients(device: DeviceBatch, options: GradientOptions): void {
    const { gpu } = this;
    const { blocks, embed_tokens } = this.parts;
    const { checkpointing } = options;
    const pass = this.#pass(device, options.dropout);
    using _ = gpu.purpose("activations");
    gpu.at("embedding");
    const inputs: Tensor[] = [embed(gpu, device.tokens, embed_tokens.weight, this.parts.format)];
    const kept: (BlockSaved | undefined)[] = [];
    for (const [i, block] of blocks.entries()) {
      gpu.at(`forward, layer ${i + 1}`);
      const x = inputs.at(-1)!;
      if (checkpointing) gpu.assign(x, "checkpoints");
      const { out, saved } = block.forward(gpu, x, pass);
      if (checkpointing) freeSaved(saved);
      kept.push(checkpointing ? undefined : saved);
      inputs.push(out);
    }
    let gradient = this.#lossBackward(inputs.pop()!, device, options);
    for (const [i, block] of [...blocks.entries()].reverse()) {
      gpu.at(`backward, layer ${i + 1}`);
      const x = inputs.pop()!;
      gradient = block.backward(gpu, gradient, x, kept[i] ?? block.recompute(gpu, x, pass), pass);
      x.free();
    }
    gpu.at("embedding, backward");
    if (embed_tokens.grad) embedBackward(gpu, device.batch.tokens, gradient, embed_tokens.grad);
    gradient.free();
  }

  /** Loss and likeliest next token of every row. */
  async predict(device: DeviceBatch): Promise<Predictions> {
    const { gpu } = this;
    const hidden = this.#forward(device);
    const losses = gpu.empty([device.batch.rows], "f32", "losses");
    const argmax = gpu.empty([device.batch.rows], "u32", "argmax");
    this.#forEachLogits(hidden, (logits, { start, end }) => {
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
    const hidden = this.#forward(device);
    const { vocab_size } = this.config;
    const result = new Float32Array(device.batch.rows * vocab_size);
    const chunks: { start: number; logits: Tensor }[] = [];
    this.#forEachLogits(hidden, (logits, { start }) => {
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

  /** Final hidden states (rows, C), after the last norm. */
  #forward(device: DeviceBatch): Tensor {
    const { gpu } = this;
    const pass = this.#pass(device, undefined);
    let x = embed(gpu, device.tokens, this.parts.embed_tokens.weight, this.parts.format);
    for (const block of this.parts.blocks) {
      const { out, saved } = block.forward(gpu, x, pass);
      freeSaved(saved);
      x.free();
      x = out;
    }
    const { y, rstd } = rmsNorm(gpu, x, this.parts.norm.weight, this.config.rms_norm_eps);
    x.free();
    rstd.free();
    return y;
  }

  /** Norm, head and loss, forward and backward by chunks of rows; frees `x`. @returns the gradient for x (rows, C) */
  #lossBackward(x: Tensor, device: DeviceBatch, { gradScale, lossSum }: GradientOptions): Tensor {
    const { gpu } = this;
    const { norm, lm_head } = this.parts;
    gpu.at("head and loss");
    const { y, rstd } = rmsNorm(gpu, x, norm.weight, this.config.rms_norm_eps);
    const dNormed = gpu.empty(y.shape, y.dtype, "dNormed");
    this.#forEachLogits(y, (logits, { start, end }) => {
      const options = { vocabSize: this.config.vocab_size, gradScale };
      const { loss, argmax } = crossEntropy(gpu, logits, device.labels.slice(start, end), options);
      sumInto(gpu, loss, lossSum);
      loss.free();
      argmax.free();
      matmulBackwardInput(gpu, logits, lm_head.weight, { into: dNormed.slice(start, end) });
      if (lm_head.grad) {
        matmulBackwardWeight(gpu, logits, y.slice(start, end), { into: lm_head.grad, beta: 1 });
      }
    });
    const saved = { x, weight: norm.weight, rstd };
    const dx = rmsNormBackward(gpu, dNormed, saved, norm.grad ? { dWeight: norm.grad } : {});
    for (const tensor of [dNormed, y, rstd, x]) tensor.free();
    return dx;
  }

  /** Applies the head to chunks of rows; the logits (rows, V rounded up to a multiple of 4) f32 live for the call. */
  #forEachLogits(hidden: Tensor, use: (logits: Tensor, rows: { start: number; end: number }) => void): void {
    const { gpu } = this;
    using _ = gpu.purpose("cross-entropy");
    const rowBytes = Math.ceil(this.config.vocab_size / 4) * 16;
    const fit = Math.floor(Math.min(LOGITS_BYTES, gpu.maxBindingBytes) / rowBytes / ROW_ALIGNMENT) *
      ROW_ALIGNMENT;
    for (const range of rowRanges([hidden], Math.max(fit, ROW_ALIGNMENT))) {
      const chunk = hidden.slice(range.start, range.end);
      const logits = matmul(gpu, chunk, this.parts.lm_head.weight, { format: "f32" });
      use(logits, range);
      logits.free();
    }
  }

  #pass(device: DeviceBatch, dropout: DropoutKey | undefined): Pass {
    const longest = maxOf(device.batch.positions) + 1;
    // Dynamic scaling turns by other angles for every length: what ran before must not matter.
    const fits = this.config.rope_scaling?.type === "dynamic"
      ? this.#rope?.length === longest
      : this.#rope && this.#rope.length >= longest;
    if (!this.#rope || !fits) {
      this.#rope?.cos.free();
      this.#rope?.sin.free();
      let tables: RopeTables | undefined;
      const made = () => tables ??= ropeTables(this.config, longest);
      const shape = [longest, this.config.head_dim / 2];
      this.#rope = {
        length: longest,
        cos: this.gpu.tensor(shape, () => made().cos, { label: "rope cos" }),
        sin: this.gpu.tensor(shape, () => made().sin, { label: "rope sin" }),
      };
    }
    const { cos, sin } = this.#rope;
    return { map: device.map, positions: device.positions, cos, sin, dropout };
  }
}

function maxOf(values: Uint32Array): number {
  let most = 0;
  for (const value of values) most = Math.max(most, value);
  return most;
}
