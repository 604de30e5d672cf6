/** Interface of an architecture: everything that sets models of one `model_type` apart from those of another. */
import type { DecoderLayer } from "./decoder_layer.ts";
import type { LayerModules } from "./layer_modules.ts";
import type { Layout } from "./layout.ts";
import type { ModelConfig } from "./model_config.ts";

/** @template C its configuration */
export interface Architecture<C extends ModelConfig = ModelConfig> {
  /** `model_type`s of `config.json` that it serves. */
  readonly modelTypes: readonly string[];
  /** How llama.cpp has it; undefined where no GGUF file can be written. */
  readonly gguf?: GgufForm<C>;
  /** Keys of `config.json` for the positions. */
  readonly positionKeys: PositionKeys;
  /** `config.json` of models that people extend, by the names of `--shape`. */
  readonly shapes: Readonly<Record<string, Readonly<Record<string, unknown>>>>;

  /**
   * Checks a `config.json` and fills in Hugging Face's defaults.
   * @param path for messages
   * @throws {UserError} naming the key that is missing, or has a value that is not supported
   */
  parseConfig(raw: Readonly<Record<string, unknown>>, path: string): C;

  /** Names and shapes of its tensors. */
  layout(config: C): Layout;

  /** Puts a layer's modules together. */
  makeLayer(modules: LayerModules, config: C): DecoderLayer;
}

/** Keys of `config.json` for the positions. */
export interface PositionKeys {
  readonly theta: "rope_theta" | "rotary_emb_base";
  /** Share of a head that rotates. */
  readonly share: "partial_rotary_factor" | "rotary_pct";
  /** Key within `rope_parameters` of the map that context extension changes; `rope_parameters` is that map unless given. */
  readonly map?: string;
  /** Whether `max_position_embeddings` counts the tokens after linear scaling; before it unless given. */
  readonly countsScaled?: boolean;
  /** Whether its longrope is two lists of factors and nothing else, with `original_max_position_embeddings` beside the map. */
  readonly isOriginalBeside?: boolean;
}

/** The keys that most architectures have. */
export const POSITION_KEYS: PositionKeys = { theta: "rope_theta", share: "partial_rotary_factor" };

/** How llama.cpp has an architecture. @template C its configuration */
export interface GgufForm<C extends ModelConfig = ModelConfig> {
  /** `general.architecture` */
  readonly architecture: string;
  /** llama.cpp's names of a layer's modules, by ours; of experts, whose tensors it has as one, by that of their stack. */
  readonly modules: Readonly<Record<string, string>>;
  /** Modules whose rows llama.cpp wants in another order: it rotates neighbouring elements of a head there. */
  readonly interleaved: readonly string[];
  /** Whether llama.cpp has the windows of its layers; not unless given. */
  readonly hasWindows?: boolean;

  /** Numbers of the metadata that not all architectures have, f32, by keys after the architecture's name. */
  numbers?(config: C): Readonly<Record<string, number>>;

  /** The same for whole numbers, u32. */
  counts?(config: C): Readonly<Record<string, number>>;

  /** Says what of a model llama.cpp would compute otherwise; undefined if nothing. */
  problem?(config: C): string | undefined;
  /** The tensors by which llama.cpp divides frequencies; those of Llama-3.1, `rope_freqs`, unless given. */
  readonly factors?: "longrope";
  /** Whether llama.cpp wants to know the window, 0 for none; it has no key for it unless given. */
  readonly hasWindowKey?: boolean;
}
