import type { Gpu } from "../kernels/gpu.ts";
import type { Tensor } from "../kernels/tensor.ts";
import type { Attended, SelfAttention } from "./attention.ts";
import { blockInput, blockInputBackward, blockOutput, blockOutputBackward } from "./block_norms.ts";
import { chunksOf, free, type Rows } from "./chunks.ts";
import type { NewRows, Pass } from "./pass.ts";
import type { ExpertLinears } from "./experts.ts";
import type { LayerModuleLists } from "./layer_modules.ts";
import { type DropoutKey, type Linear, type LinearOptions, withFloats } from "./linear.ts";
import { withRows } from "./linear_input.ts";
import type { Mlp } from "./mlp.ts";
import type { Norm } from "./norm.ts";

/** Parts of a layer. */
export interface DecoderLayerParts {
  /** With its norms. */
  readonly attention: SelfAttention;
  /** Before the MLP; none where undefined. */
  readonly mlpNorm?: Norm | undefined;
  readonly mlp: Mlp;
  /** Of what the MLP gives; none unless given. */
  readonly mlpOutputNorm?: Norm | undefined;
  /** Whether attention and MLP both read the layer's input, in place of one after the other. */
  readonly isParallel: boolean;
}

/** Tensors that a layer's backward pass reads besides its input, all (rows, ...). */
export interface DecoderSaved extends Attended {
  /** (rows, C) x + attention; undefined where the MLP reads x. */
  readonly h: Tensor | undefined;
  /** What the MLP's first half gives: inputs of the activation, (rows, F) each, and the routing where it has experts. */
  readonly mlpInputs: readonly Tensor[];
}

/**
 * A layer of any architecture: h = x + attention(norm(x)); out = h + mlp(norm(h)), where it is parallel
 * out = h + mlp(norm(x)). A norm may be of what a block gives, h = x + norm(attention(x)), or there may be one of each.
 *
 * All but attention itself goes over chunks of rows, and each chunk goes all the way, through the MLP and back, before the
 * next one starts: nothing of width F exists for all rows, nor do norms, h, or any gradient that can take the place of
 * what it comes from. Besides the temporaries of a chunk there are at most, counted in tensors of (rows, C), where q and o
 * are a of one each, and k and v s of one (the columns at the right are those of a = 1):
 *
 * | moment                            | what is alive                                     | count         | s = 1 | s = 1/4 |
 * | --------------------------------- | ------------------------------------------------- | ------------- | ----- | ------- |
 * | forward, attention                | x, q, k, v, o                                     | 1 + 2 a + 2 s | 5     | 3.5     |
 * | forward, MLP                      | x, out in the memory of o, or besides it          | 2 (or 2 + a)  | 2     | 2       |
 * | backward, attention run again     | x, dOut, q, k, v, o                               | 2 + 2 a + 2 s | 6     | 4.5     |
 * | backward, MLP and output linear   | the same; dOut becomes dH, and o becomes dO       | 2 + 2 a + 2 s | 6     | 4.5     |
 * | backward, attention               | besides these dk and dv, or dq where that is less |               | 7     | 5       |
 *
 * x is the layer's checkpoint; dH becomes dx. Without checkpointing h and the activation's inputs of all rows are there too.
 */
export class DecoderLayer implements LayerModuleLists {
  /** In the order of the checkpoint. */
  readonly linears: readonly Linear[];
  readonly norms: readonly Norm[];
  readonly routers: readonly Linear[];
  readonly experts: readonly ExpertLinears[];
  readonly #attention: SelfAttention;
  readonly #mlpNorm: Norm | undefined;
  readonly #mlp: Mlp;
  readonly #mlpOutputNorm: Norm | undefined;
  readonly #isParallel: boolean;

  constructor({ linears, norms, routers, experts }: LayerModuleLists, parts: DecoderLayerParts) {
    this.linears = linears;
    this.norms = norms;
    this.routers = routers;
    this.experts = experts;
    this.#attention = parts.attention;
    this.#mlpNorm = parts.mlpNorm;
    this.#mlp = parts.mlp;
    this.#mlpOutputNorm = parts.mlpOutputNorm;
    this.#isParallel = parts.isParallel;
  }

  /** @param x (rows, C), borrowed  @returns (rows, C) */
  async forward(gpu: Gpu, x: Tensor, pass: Pass): Promise<Tensor> {
    using _ = this.#decoded(gpu, x, pass);
    const { q, k, v, o, lse } = await this.#attention.attend(gpu, x, pass);
    free(q, k, v, lse);
    // Heads that together are as wide as x, as most models have them, need no second tensor.
    const out = o.width === x.width ? o : gpu.empty(x.shape, x.dtype, "layer output");
    for (const rows of chunksOf(x, pass.chunkRows)) {
      const h = this.#addAttention(gpu, x, o, pass.dropout, rows);
      const inputs = this.#mlpInputs(gpu, this.#isParallel ? rows.of(x) : h, pass.dropout, rows.start);
      this.#addMlp(gpu, h, inputs, pass.dropout, rows, out);
      free(h, ...inputs);
    }
    if (out !== o) o.free();
    return out;
  }

  /** Runs {@linkcode forward} and keeps what spares {@linkcode backward} from running it again. */
  async forwardKeeping(gpu: Gpu, x: Tensor, pass: Pass): Promise<{ out: Tensor; saved: DecoderSaved }> {
    using _ = this.#decoded(gpu, x, pass);
    const attended = await this.#attention.attend(gpu, x, pass);
    const rows = chunksOf(x, Infinity)[0]!;
    const h = this.#addAttention(gpu, x, attended.o, pass.dropout, rows);
    const mlpInputs = this.#mlpInputs(gpu, this.#isParallel ? x : h, pass.dropout, rows.start);
    const out = gpu.empty(x.shape, x.dtype, "layer output");
    this.#addMlp(gpu, h, mlpInputs, pass.dropout, rows, out);
    if (this.#isParallel) h.free();
    return { out, saved: { ...attended, h: this.#isParallel ? undefined : h, mlpInputs } };
  }

  /**
   * Adds the layer's gradients to what they hold, frees `saved`.
   * @param dOut (rows, C): overwritten
   * @param saved what the forward pass kept; computed again unless given
   * @returns dx (rows, C), in the memory of `dOut`
   */
  async backward(gpu: Gpu, dOut: Tensor, x: Tensor, pass: Pass, saved?: DecoderSaved): Promise<Tensor> {
    using _ = this.#decoded(gpu, x, pass);
    const { q, k, v, o, lse } = saved ?? await this.#attention.attend(gpu, x, pass);
    const { dropout } = pass;
    const stats = gpu.empty([x.rows, 2 * this.#attention.shape.heads], "f32", "attention stats");
    for (const rows of chunksOf(x, saved ? Infinity : pass.chunkRows)) {
      const d = rows.of(dOut);
      const outputBackward = () => this.#attention.outputBackward(gpu, d, { o, lse, stats }, dropout, rows);
      if (this.#isParallel) {
        // Both halves get the gradient of the output: attention before the MLP adds its own to it.
        outputBackward();
        this.#mlpBackward(gpu, d, rows.of(x), saved?.mlpInputs, dropout, rows);
      } else {
        const h = saved?.h ?? this.#addAttention(gpu, x, o, dropout, rows);
        this.#mlpBackward(gpu, d, h, saved?.mlpInputs, dropout, rows);
        h.free();
        outputBackward();
      }
    }
    lse.free();
    await this.#attention.backward(gpu, { q, k, v, dO: o, stats }, x, dOut, pass);
    free(q, k, v, o, stats);
    return dOut;
  }

  /** Runs {@linkcode forward} on tokens that follow others, whose keys and values are cached. @param x (rows, C): overwritten */
  decode(gpu: Gpu, x: Tensor, rows: NewRows): void {
    const o = this.#attention.attendNew(gpu, x, rows);
    const up = () => this.#mlp.up(gpu, blockInput(x, this.#mlpNorm), undefined, 0);
    // Where both halves read x, the MLP reads it before attention is added to it.
    const early = this.#isParallel ? up() : undefined;
    this.#attention.output(gpu, o, undefined, { addTo: x });
    const inputs = early ?? up();
    this.#down(gpu, inputs, undefined, { addTo: x });
    free(o, ...inputs);
  }

  /** The layer's weights as floats, if the pass has them so, until it is disposed of. */
  #decoded(gpu: Gpu, x: Tensor, { chunkRows, decodesLayers }: Pass): Disposable | undefined {
    const rows = Math.min(x.rows, chunkRows);
    return decodesLayers ? withFloats(gpu, this.linears, { rows, format: x.format }) : undefined;
  }

  /** h = x + attention: (end - start, C) of the chunk alone. */
  #addAttention(gpu: Gpu, x: Tensor, o: Tensor, dropout: DropoutKey | undefined, rows: Rows): Tensor {
    return this.#attention.output(gpu, rows.of(o), dropout, { firstRow: rows.start, addend: rows.of(x) });
  }

  /** Computes the inputs of the activation from what the MLP reads, (end - start, C). */
  #mlpInputs(gpu: Gpu, input: Tensor, dropout: DropoutKey | undefined, firstRow: number): Tensor[] {
    return withRows(
      gpu,
      blockInput(input, this.#mlpNorm),
      (y) => this.#mlp.up(gpu, y, dropout, firstRow),
    );
  }

  /** Computes what the MLP adds to the residual stream. */
  #down(
    gpu: Gpu,
    inputs: readonly Tensor[],
    dropout: DropoutKey | undefined,
    options: LinearOptions,
  ): Tensor {
    return blockOutput(gpu, this.#mlpOutputNorm, options, (to) => this.#mlp.down(gpu, inputs, dropout, to));
  }

  /** out = h + mlp: writes the chunk's rows of `out`. */
  #addMlp(
    gpu: Gpu,
    h: Tensor,
    inputs: readonly Tensor[],
    dropout: DropoutKey | undefined,
    rows: Rows,
    out: Tensor,
  ): void {
    this.#down(gpu, inputs, dropout, { firstRow: rows.start, into: rows.of(out), addend: h });
  }

  /** Adds the gradient of what the MLP reads to `dOut`, both (end - start, C). @param kept freed; computed again unless given */
  #mlpBackward(
    gpu: Gpu,
    dOut: Tensor,
    input: Tensor,
    kept: readonly Tensor[] | undefined,
    dropout: DropoutKey | undefined,
    rows: Rows,
  ): void {
    const firstRow = rows.start;
    const inputs = kept ?? this.#mlpInputs(gpu, input, dropout, firstRow);
    const gradients = blockOutputBackward(
      gpu,
      dOut,
      this.#mlpOutputNorm,
      () => this.#mlp.down(gpu, inputs, dropout, { firstRow }),
      (d) => this.#mlp.downBackward(gpu, d, inputs, dropout, firstRow),
    );
    const backward = (y: Tensor) => this.#mlp.upBackward(gpu, gradients, y, dropout, firstRow);
    blockInputBackward(gpu, input, this.#mlpNorm, backward, dOut);
  }
}
