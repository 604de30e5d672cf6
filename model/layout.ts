/** Modules of an architecture's checkpoints, with their shapes. */

/** A linear of a layer. LoRA and 4 bits go on these. */
export interface LinearSpec {
  readonly kind: "linear";
  /** Module within the layer, such as `self_attn.q_proj`. */
  readonly name: string;
  readonly part: "attention" | "mlp";
  /** (outputs N, inputs K) */
  readonly shape: readonly [number, number];
  readonly hasBias: boolean;
  /** Factor of all that it gives; 1 unless given. */
  readonly scale?: number | undefined;
  /** Whether the backward pass of a checkpointed layer makes its product again. */
  readonly isRecomputed: boolean;
  /** Whether a norm reads its product, which any backward pass then makes once more, chunk by chunk. */
  readonly isNormed?: boolean | undefined;
}

/** A norm of a layer, or the last one: never in 4 bits, without LoRA and weight decay. */
export interface NormSpec {
  readonly kind: "norm";
  /** Module within the layer, such as `input_layernorm`; the whole name of the last one. */
  readonly name: string;
  /** Elements that are normed together. */
  readonly width: number;
  /** Added under the root. */
  readonly eps: number;
  /** Whether it is LayerNorm, which has a bias; else RMSNorm. */
  readonly hasBias: boolean;
  /** Added to each weight of an RMSNorm, which is 1 - offset in a fresh model; 0 unless given. */
  readonly offset?: number | undefined;
}

/** Module names of one architecture. All layers are alike. */
export interface Layout {
  readonly embeddings: string;
  /** Prefix of the layers' numbers, such as `model.layers`. */
  readonly layers: string;
  /** Modules of a layer, in the order in which they are loaded. */
  readonly modules: readonly (LinearSpec | NormSpec)[];
  /** The last norm. */
  readonly norm: NormSpec;
  readonly head: string;
}
