/** Changes of settings that make a run fit in a device's memory, each tried by a dry run. */
import type { ModelConfig } from "../../model/model_config.ts";
import { stateBits, type TrainArgs } from "../../train_args/schema.ts";
import { lengthChange, longestContext } from "./longest_context.ts";
import { resolvePlacement } from "./placement.ts";
import type { StepCost, StepOptions } from "./step_cost.ts";

/** A change of settings towards less memory. */
export interface Suggestion {
  /** Settings that change. */
  readonly change: Partial<TrainArgs>;
  /** The device's peak with this and the changes before it. */
  readonly peakBytes: number;
  /** Bytes by which that is lower than before this change. */
  readonly savedBytes: number;
  /** Whether that is enough. */
  readonly fits: boolean;
}

/** Whether a run's settings say the rank: an adapter that it starts from has its own. */
function choosesRank({ low_rank_training, adapter_name_or_path }: TrainArgs): boolean {
  return low_rank_training && adapter_name_or_path === null;
}

/** Changes in order, those that cost least first: what each would set, or nothing where it is set already. */
const CHANGES: readonly ((args: TrainArgs) => Partial<TrainArgs> | undefined)[] = [
  ({ per_device_train_batch_size: batch, gradient_accumulation_steps: passes }) =>
    batch > 1 ? { per_device_train_batch_size: 1, gradient_accumulation_steps: batch * passes } : undefined,
  ({ gradient_checkpointing }) => gradient_checkpointing ? undefined : { gradient_checkpointing: true },
  ({ offload_activations: offload }) => offload === false ? { offload_activations: "auto" } : undefined,
  ({ optim }) =>
    optim.startsWith("paged")
      ? undefined
      : { optim: stateBits(optim) === 8 ? "paged_adamw_8bit" : "paged_adamw_32bit" },
  ({ bf16, fp16 }) => bf16 || fp16 ? undefined : { bf16: true },
  ({ load_in_4bit, low_rank_training }) =>
    low_rank_training && !load_in_4bit ? { load_in_4bit: true } : undefined,
  ({ double_quant, load_in_4bit }) => load_in_4bit && !double_quant ? { double_quant: true } : undefined,
  ({ low_rank_training }) => low_rank_training ? undefined : { low_rank_training: true, load_in_4bit: true },
  (args) => choosesRank(args) && args.lora_rank > 32 ? { lora_rank: 32 } : undefined,
  (args) => choosesRank(args) && args.lora_rank > 8 ? { lora_rank: 8 } : undefined,
];

/**
 * Finds changes that make a run fit, in the order to make them, each on top of those before. Those that save nothing are left
 * out; the last resort is a shorter sequence. Nothing that is given makes it fit if the last one does not.
 */
export async function findSuggestions(
  args: TrainArgs,
  base: ModelConfig,
  cost: StepCost,
  memoryBytes: number,
  options: StepOptions = {},
): Promise<Suggestion[]> {
  const suggestions: Suggestion[] = [];
  let now = args;
  let bytes = cost.peak.heldBytes;
  const isEnough = async (change: Partial<TrainArgs>): Promise<boolean> => {
    const changed = { ...now, ...change };
    const { cost } = await resolvePlacement(changed, base, memoryBytes, adapted(options, changed));
    const peakBytes = cost.peak.heldBytes;
    if (peakBytes >= bytes) return false;
    const fits = peakBytes <= memoryBytes;
    suggestions.push({ change, peakBytes, savedBytes: bytes - peakBytes, fits });
    now = changed;
    bytes = peakBytes;
    return fits;
  };
  for (const propose of CHANGES) {
    const change = propose(now);
    if (change && await isEnough(change)) return suggestions;
  }
  const longest = await longestContext(now, base, memoryBytes, {
    ...options,
    below: Math.max(...options.lengths ?? [now.max_seq_length]),
  });
  if (longest > 0) await isEnough(lengthChange(now, longest));
  return suggestions;
}

/** The same sequences as far as other settings let them be: fewer of them, cut where they are too long. */
function adapted({ lengths, evalLengths, ...options }: StepOptions, args: TrainArgs): StepOptions {
  const some = (all: readonly number[], count: number) =>
    all.slice(0, count).map((length) => Math.min(length, args.max_seq_length));
  return {
    ...options,
    ...(lengths && { lengths: some(lengths, args.per_device_train_batch_size) }),
    ...(evalLengths && { evalLengths: some(evalLengths, args.per_device_eval_batch_size) }),
  };
}
