/** The model with what is trained: loaded, and written. */
import { configJson } from "../model/config_json.ts";
import { configForPositions } from "../model/positions.ts";
import type { ModelConfig } from "../model/model_config.ts";
import { type Adapter, type AdapterConfig, readAdapter, writeAdapter } from "../checkpoint/peft.ts";
import { copyTokenizer, writeModel } from "../checkpoint/save_model.ts";
import type { TokenizerPlaces } from "../data/tokenizer_files.ts";
import type { Gpu } from "../kernels/gpu.ts";
import type { LanguageModel } from "../model/language_model.ts";
import { type Fingerprint, fingerprintMetadata } from "../model/load/fingerprint.ts";
import { freshWeights } from "../model/load/fresh.ts";
import { loadModel } from "../model/load/load.ts";
import { openModelWeights } from "../model/load/model_weights.ts";
import { adaptBase, grownWeights } from "../model/load/vocabulary.ts";
import { applyAdapter, exportAdapter } from "../model/lora.ts";
import { torchDtype } from "../model/number_formats.ts";
import { partsOf } from "../model/parameter.ts";
import { tensorSources } from "../model/read_back.ts";
import { countParameters, layoutOf } from "../model/tensors.ts";
import type { TrainArgs } from "../train_args/schema.ts";
import type { Start } from "./inputs.ts";
import { addFreshLora, trainedNames } from "./lora.ts";
import { formatOf } from "./options.ts";
import { quantisationOf } from "../model/quantisation.ts";
import { textAloneNotes } from "../model/wrapper.ts";

/** A model ready to be trained. */
export interface Trainee {
  readonly model: LanguageModel;
  /** The content of its adapter_config.json; undefined in full fine-tuning. */
  readonly adapter: AdapterConfig | undefined;
  /** Tensors of the base model that the adapter which the run starts from replaces. */
  readonly replacements: Adapter["extra"];
  /** Lines for the user about the adapter that the run starts from. */
  readonly notes: readonly string[];
  /** Trained parameters, in words: `LoRA rank 64 on 224 linears, embeddings, norms`. */
  readonly method: string;
  readonly trainableParameters: number;
  readonly totalParameters: number;
}

/**
 * Loads the base model and puts on it what is trained.
 * @param base with the vocabulary that is trained, its positions not yet settled
 * @throws {UserError} if weights cannot be read, or do not fit the model or the settings
 */
export async function loadTrainee(
  gpu: Gpu,
  args: TrainArgs,
  base: ModelConfig,
  { weights, adapter: place }: Start,
): Promise<Trainee> {
  const start = adaptBase(
    configForPositions(base, args),
    place && await readAdapter(place.path, { files: place.files }),
  );
  const { config } = start;
  const isTrained = trainedNames(config, args);
  const stored = weights
    ? await openModelWeights(weights.path, base, { files: weights.files })
    : freshWeights(base, args.seed);
  const grown = grownWeights(stored, config, base);
  let model: LanguageModel;
  try {
    model = await loadModel(gpu, grown, {
      config,
      format: formatOf(args),
      quantisation: quantisationOf(args),
      isTrained,
      ...(start.adapter ? { replacements: start.adapter.extra } : {}),
    });
  } finally {
    grown.close();
  }
  if (start.adapter) applyAdapter(model, start.adapter, { isTrained: true });
  const adapter = start.adapter?.config ?? (args.low_rank_training ? addFreshLora(model, args) : undefined);
  const replacements: Adapter["extra"] = start.adapter?.extra ?? new Map();
  return {
    model,
    adapter,
    replacements,
    notes: [
      ...start.notes,
      ...(adapter ? [] : textAloneNotes(config)),
      ...keptNotes([...replacements.keys()].filter((name) => !isTrained(name))),
    ],
    method: describeMethod(model, adapter),
    ...countTrained(model, config),
  };
}

/** Says which weights that an adapter trained whole are not trained on. */
function keptNotes(names: readonly string[]): string[] {
  if (names.length === 0) return [];
  const some = names.slice(0, 3).join(", ") + (names.length > 3 ? ", ..." : "");
  return [
    `The adapter's own ${some} stay as they are: name them in modules_to_save to train them on`,
  ];
}

function describeMethod(model: LanguageModel, adapter: AdapterConfig | undefined): string {
  if (!adapter) return "all weights";
  const experts = model.experts().filter(({ lora }) => lora);
  const linears = model.linears().filter(({ lora }) => lora).length +
    experts.reduce((sum, { modules }) => sum + modules.length, 0);
  const { embeddings, head } = layoutOf(model.config);
  const groups: Record<string, string> = { [embeddings]: "embeddings", [head]: "head", norm: "norms" };
  const extras = Object.entries(groups).filter(([part]) =>
    model.parameters().some(({ name }) => !name.includes(".lora_") && name.includes(part))
  );
  return [`LoRA rank ${adapter.r} on ${linears} linears`, ...extras.map(([, word]) => word)].join(", ");
}

function countTrained(model: LanguageModel, config: ModelConfig) {
  const ofLinears = model.linears().reduce((sum, { lora: pair }) => {
    return sum + (pair ? pair.rank * (pair.A.width + pair.B.rows) : 0);
  }, 0);
  const lora = model.experts().reduce((sum, { modules, lora: pair }) => {
    return sum + (pair ? pair.rank * (modules.length * pair.A.width + pair.B.rows) : 0);
  }, ofLinears);
  const whole = model.parameters().filter(({ name }) => !name.includes(".lora_"));
  return {
    trainableParameters: lora + whole.reduce((sum, { value }) => sum + value.size, 0),
    totalParameters: lora + countParameters(config),
  };
}

/** The base model that a result is of. */
export interface TrainedBase {
  /** Its folder, or its name on the hub, as the settings have it. */
  readonly name: string;
  /** Its folder on this machine. */
  readonly folder: string;
  readonly fingerprint: Fingerprint;
  /** The tokenizer's files, and which of them an adapter brought. */
  readonly tokenizer: TokenizerPlaces;
}

/** Writes the adapter, or in full fine-tuning the model, into an empty folder. */
export async function writeTrainee(
  folder: string,
  { model, adapter, replacements }: Trainee,
  base: TrainedBase,
): Promise<void> {
  if (!adapter) {
    const json = configJson(model.config);
    await writeModel(folder, {
      config: { ...json, ...torchDtype(json, ["F32"]) },
      tensors: tensorSources(model.gpu, model.parameters().flatMap(partsOf)),
      filesFrom: base.folder,
    });
    return;
  }
  const exported = await exportAdapter(model, adapter, replacements);
  await writeAdapter(folder, exported, { metadata: fingerprintMetadata(base.name, base.fingerprint) });
  // What the adapter started from brought its own tokenizer: so does it.
  const { paths, ofAdapter } = base.tokenizer;
  await copyTokenizer(new Map(ofAdapter.map((name) => [name, paths.get(name)!])), folder);
}
