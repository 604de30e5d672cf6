import type { Gpu } from "../../kernels/gpu.ts";
import { isPackedIn4bit } from "../../model/config.ts";
import type { LanguageModel } from "../../model/language_model.ts";
import type { ModelConfig } from "../../model/model_config.ts";
import { randomModel } from "../../model/load/random.ts";
import { configForPositions } from "../../model/positions.ts";
import { quantisationOf } from "../../model/quantisation.ts";
import type { TrainArgs } from "../../train_args/schema.ts";
import { addFreshLora, trainedNames } from "../lora.ts";
import { formatOf } from "../options.ts";

/**
 * Makes a model of random weights with everything that a run by these settings has on it: steps cost the same with any.
 * @param base the model's own configuration, its positions not yet settled
 * @throws {UserError} if the settings do not fit the model
 */
export async function randomTrainee(gpu: Gpu, args: TrainArgs, base: ModelConfig): Promise<LanguageModel> {
  const config = configForPositions(base, args);
  const model = await randomModel(gpu, config, {
    format: formatOf(args),
    quantisation: quantisationOf({
      load_in_4bit: args.load_in_4bit || isPackedIn4bit(base.raw),
      double_quant: args.double_quant,
    }),
    isTrained: trainedNames(config, args),
  });
  if (args.low_rank_training) addFreshLora(model, args);
  return model;
}
