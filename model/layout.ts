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
  /**
   * Name of the linears of a layer, one behind the other in the layout, that read the same rows: they are held side by side,
   * and few rows are multiplied with all of them in one dispatch. Undefined for one that reads rows alone.
   */
  readonly group?: string | undefined;
  /** Where it is one expert's; undefined where all tokens go through it. */
  readonly expert?: ExpertSpec | undefined;
  /** Whether a norm reads its product, which any backward pass then makes once more, chunk by chunk. */
  readonly isNormed?: boolean | undefined;
}

/** Place of a linear among those that the experts of a layer have for one purpose. They are held together. */
export interface ExpertSpec {
  /** Name of them all within the layer, such as `mlp.experts.up_proj`. */
  readonly stack: string;
  /** E: how many there are. */
  readonly experts: number;
  /** k: experts of each token. */
  readonly perToken: number;
}

/** Gives each token of a layer its experts: never in 4 bits, without LoRA. */
export interface RouterSpec {
  readonly kind: "router";
  /** Module within the layer, such as `mlp.gate`. */
  readonly name: string;
  /** (experts E, inputs C) */
  readonly shape: readonly [number, number];
  readonly hasBias: false;
}

/** A module of a layer. */
export type ModuleSpec = LinearSpec | NormSpec | RouterSpec;

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

/** Module names of one architecture. */
export interface Layout {
  readonly embeddings: string;
  /** Prefix of the layers' numbers, such as `model.layers`. */
  readonly layers: string;
  /** Modules of a layer, in the order in which they are loaded; experts of one stack one behind the other. */
  readonly modules: readonly ModuleSpec[];
  /** Modules of one layer, where layers are not alike. */
  modulesOf?(layer: number): readonly ModuleSpec[];
  /** The last norm. */
  readonly norm: NormSpec;
  readonly head: string;
}
