/** The plan of a training run, before anything is loaded: what it takes, whether that fits, and what would make it fit. */
import { formatMemory } from "../../text.ts";
import { UserError } from "../../errors.ts";
import type { ModelConfig } from "../../model/model_config.ts";
import type { TrainArgs } from "../../train_args/schema.ts";
import type { Throughput } from "./throughput.ts";
import { resolvePlacement, withMoreMemory } from "./placement.ts";
import { type Network, predictScaling, type Scaling } from "./scaling.ts";
import { findSuggestions, type Suggestion } from "./suggestions.ts";
import type { Placement } from "../options.ts";
import {
  type PlanDevice,
  secondsOf,
  type StepCost,
  stepCost,
  type StepOptions,
  TYPICAL_DEVICE,
} from "./step_cost.ts";

/** A step's cost, and what it means for a given memory. */
export interface Plan extends StepCost {
  /** The device that the plan is for. */
  readonly device: PlanDevice;
  /** Places of what may wait in host memory. */
  readonly placement: Placement;
  /** Bytes that may be used on the device; `null` where nobody knows. */
  readonly memoryBytes: number | null;
  /** `null` where the memory is not known. */
  readonly fits: boolean | null;
  /** Seconds of an optimiser step at the measured throughput; `null` without that. */
  readonly seconds: number | null;
  /** The step of all ranks; `null` for a job of one, or where nobody asked. */
  readonly scaling: Scaling | null;
  /** Changes that make it fit, each on top of those before; the last one fits unless nothing does. Empty if it fits already. */
  readonly suggestions: readonly Suggestion[];
}

/** Options of a plan besides the settings. */
export interface PlanOptions extends Omit<StepOptions, "placement"> {
  /** As measured, for the time of a step; without it there is none. */
  readonly throughput?: Throughput | null;
  /** Ways of the messages between the ranks, to reckon a step of all of them; not reckoned unless given. */
  readonly network?: Network;
}

/** A network of 100 Gbit/s for each rank, and copies as PCI Express 4 has them. */
export const TYPICAL_NETWORK: Network = {
  bytesPerSecond: 12.5e9,
  latencySeconds: 20e-6,
  hostBytesPerSecond: 10e9,
};

/**
 * Plans a training run; whether it fits is decided by `max_memory`.
 *
 * @param base the model's own configuration, its positions not yet settled
 * @throws {UserError} if the settings do not fit the model
 */
export async function planTraining(
  args: TrainArgs,
  base: ModelConfig,
  { throughput = null, network, ...options }: PlanOptions = {},
): Promise<Plan> {
  const { max_memory: memoryBytes, sequence_parallel_size: sequenceParallel } = args;
  const { worldSize: ranks = sequenceParallel } = options;
  const least = await resolvePlacement(args, base, memoryBytes, options);
  const fits = memoryBytes === null ? null : least.cost.peak.heldBytes <= memoryBytes;
  const { placement, cost } = memoryBytes !== null && fits
    ? await withMoreMemory(least, args, base, memoryBytes, options)
    : least;
  const timed = (cost: StepCost) => ({ cost, seconds: throughput && secondsOf(cost, throughput) });
  const predict = async (network: Network) => {
    const alone = sequenceParallel === 1
      ? cost
      : await stepCost({ ...args, sequence_parallel_size: 1 }, base, { ...options, worldSize: 1, placement });
    const wireBytes = args.ddp_comm_hook === "bf16" && args.zero_stage === 0 ? 2 : 4;
    return predictScaling(timed(cost), timed(alone), { ranks, sequenceParallel, wireBytes }, network);
  };
  return {
    ...cost,
    device: options.device ?? TYPICAL_DEVICE,
    placement,
    memoryBytes,
    fits,
    seconds: timed(cost).seconds,
    scaling: network === undefined || ranks === 1 ? null : await predict(network),
    suggestions: memoryBytes !== null && !fits
      ? await findSuggestions(args, base, cost, memoryBytes, options)
      : [],
  };
}

/** Lets a plan pass that fits. @throws {UserError} with numbers and changes, if it does not */
export function requireFit({ fits, memoryBytes, peak, suggestions }: Plan): void {
  if (fits !== false) return;
  throw new UserError(
    [
      `Cannot train in max_memory ${formatMemory(memoryBytes!)}: a step takes ${
        formatMemory(peak.heldBytes)
      } on the device ` +
      `(${peak.phase}). ${describeSuggestions(suggestions)}`,
      ...suggestions.map(({ change, savedBytes, peakBytes }) =>
        `  ${describeChange(change)}: saves ${formatMemory(savedBytes)}, leaves ${formatMemory(peakBytes)}`
      ),
    ].join("\n"),
    { kind: "doesNotFit" },
  );
}

/** Says in a sentence what the suggestions do together. */
export function describeSuggestions(suggestions: readonly Suggestion[]): string {
  if (suggestions.length === 0) return "No change of settings would make it fit";
  return suggestions.at(-1)!.fits
    ? "In this order, until it fits:"
    : "These changes together are not enough, it takes a smaller model:";
}

/** Writes settings as in YAML: `bf16: true, lora_rank: 8`. */
export function describeChange(change: Partial<TrainArgs>): string {
  return Object.entries(change).map(([name, value]) => `${name}: ${value}`).join(", ");
}
