/** The plan of a training run, before anything is loaded: what it takes, whether that fits, and what would make it fit. */
import { formatMemory } from "../../text.ts";
import { EXIT, UserError } from "../../errors.ts";
import type { ModelConfig } from "../../model/model_config.ts";
import type { TrainArgs } from "../../train_args/schema.ts";
import type { Rates } from "./throughput.ts";
import { findRemedies, type Remedy, resolvePlacement } from "./remedies.ts";
import type { Placement } from "../setup.ts";
import { type PlanDevice, secondsOf, type StepCost, type StepOptions, TYPICAL_DEVICE } from "./step_cost.ts";

/** A step's cost, and what it means for a given memory. */
export interface Plan extends StepCost {
  /** The device that the plan is for. */
  readonly device: PlanDevice;
  /** Where the run keeps what may wait in host memory. */
  readonly placement: Placement;
  /** Bytes that may be used on the device; `null` where nobody knows. */
  readonly memoryBytes: number | null;
  /** `null` where the memory is not known. */
  readonly fits: boolean | null;
  /** Seconds of an optimiser step at measured rates; `null` without them. */
  readonly seconds: number | null;
  /** In order, each on top of those before; the last one fits unless nothing does. Empty if it fits already. */
  readonly remedies: readonly Remedy[];
}

/** What is planned for besides the settings. */
export interface PlanOptions extends Omit<StepOptions, "placement"> {
  /** Measured speeds, for the time of a step; without them there is none. */
  readonly rates?: Rates | null;
}

/**
 * Plans a training run; whether it fits is decided by `max_memory`.
 *
 * @param base the model's own configuration, its positions not yet settled
 * @throws {UserError} if the settings do not fit the model
 */
export async function planTraining(
  args: TrainArgs,
  base: ModelConfig,
  { rates = null, ...options }: PlanOptions = {},
): Promise<Plan> {
  const { max_memory: memoryBytes } = args;
  const { placement, cost } = await resolvePlacement(args, base, memoryBytes, options);
  const fits = memoryBytes === null ? null : cost.peak.heldBytes <= memoryBytes;
  return {
    ...cost,
    device: options.device ?? TYPICAL_DEVICE,
    placement,
    memoryBytes,
    fits,
    seconds: rates && secondsOf(cost, rates),
    remedies: memoryBytes !== null && !fits ? await findRemedies(args, base, cost, memoryBytes, options) : [],
  };
}

/** Lets a plan pass that fits. @throws {UserError} with numbers and changes, if it does not */
export function requireFit({ fits, memoryBytes, peak, remedies }: Plan): void {
  if (fits !== false) return;
  throw new UserError(
    [
      `Cannot train in max_memory ${formatMemory(memoryBytes!)}: a step takes ${
        formatMemory(peak.heldBytes)
      } on the device ` +
      `(${peak.moment}). ${remediesText(remedies)}`,
      ...remedies.map(({ change, savedBytes, peakBytes }) =>
        `  ${describeChange(change)}: saves ${formatMemory(savedBytes)}, leaves ${formatMemory(peakBytes)}`
      ),
    ].join("\n"),
    { exitCode: EXIT.doesNotFit },
  );
}

/** What the remedies together do, in a sentence. */
export function remediesText(remedies: readonly Remedy[]): string {
  if (remedies.length === 0) return "No change of settings would make it fit";
  return remedies.at(-1)!.fits
    ? "In this order, until it fits:"
    : "These changes together are not enough, it takes a smaller model:";
}

/** Settings as in YAML: `bf16: true, lora_rank: 8`. */
export function describeChange(change: Partial<TrainArgs>): string {
  return Object.entries(change).map(([name, value]) => `${name}: ${value}`).join(", ");
}
