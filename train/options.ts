/** Settings in the form that the trainer has them. */
import type { Format } from "../kernels/wgsl.ts";
import { groupSize, stateBits, type TrainArgs } from "../train_args/schema.ts";
import type { SettledOptions } from "./trainer.ts";

/** The number format of activations under the settings. */
export function formatOf({ bf16, fp16 }: Pick<TrainArgs, "bf16" | "fp16">): Format {
  return bf16 ? "bf16" : fp16 ? "f16" : "f32";
}

/** Places of what the device may have no room for: `auto`, resolved. */
export interface Placement {
  /** Whether layers' inputs wait on the host between forward and backward pass. */
  readonly offloadActivations: boolean;
  /** Whether the optimizer states are on the host, if the optimiser's name says `paged`. */
  readonly pageStates: boolean;
  /** Bytes of a chunk of rows, see `LanguageModel.chunkBytes`; the model's own unless given. */
  readonly chunkBytes?: number | undefined;
  /** See `LanguageModel.decodesLayers`; false unless given. */
  readonly decodesLayers?: boolean | undefined;
}

/** LongLoRA's rule for fine-tuning: groups of a quarter of a length that is a multiple of this, else `sft_group_size`. */
const QUARTERED = 4096;

/** The attention mask's rule for a batch, by the length of its longest sequence. */
function attentionRule(args: TrainArgs): SettledOptions["attention"] {
  if (args.attention === "full") return () => ({});
  const { group_shift: shift, sft_group_size } = args;
  if (sft_group_size === null) {
    const rule = { groupSize: groupSize(args, args.max_seq_length), shift };
    return () => rule;
  }
  return ({ longest }) => ({
    groupSize: longest % QUARTERED === 0 ? longest / 4 : sft_group_size,
    shift,
  });
}

/**
 * Makes the trainer's options of the settings.
 * @param placement on the device, as far as the settings leave it open, unless given
 */
export function trainerOptions(
  args: TrainArgs,
  placement: Placement = { offloadActivations: args.offload_activations === true, pageStates: false },
): Omit<SettledOptions, "ranks"> {
  return {
    maxGradNorm: args.max_grad_norm,
    attention: attentionRule(args),
    checkpointing: args.gradient_checkpointing,
    offloadActivations: placement.offloadActivations,
    chunkBytes: placement.chunkBytes,
    decodesLayers: placement.decodesLayers,
    optimizerStates: {
      bits: stateBits(args.optim),
      paged: placement.pageStates && args.optim.startsWith("paged"),
    },
    lossScaling: args.fp16,
    shardStates: args.zero_stage > 0,
    wire: args.ddp_comm_hook === "bf16" ? "bf16" : "f32",
    sequenceParallelSize: args.sequence_parallel_size,
    seed: args.seed,
    noiseAlpha: args.neftune_noise_alpha ?? undefined,
    beta1: args.adam_beta1,
    beta2: args.adam_beta2,
    epsilon: args.adam_epsilon,
    weightDecay: args.weight_decay,
  };
}
