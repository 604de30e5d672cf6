/** Places of what may wait in host memory, found by dry runs. */
import { CHUNK_BYTES } from "../../model/language_model.ts";
import type { ModelConfig } from "../../model/model_config.ts";
import type { TrainArgs } from "../../train_args/schema.ts";
import type { Placement } from "../options.ts";
import { type StepCost, stepCost, type StepOptions } from "./step_cost.ts";

/** A step with the places that `auto` and `paged` stand for. */
export interface PlacedCost {
  readonly placement: Placement;
  readonly cost: StepCost;
}

/**
 * Finds where to keep what may wait in host memory: on the device if it fits there, else as little as must go. States go
 * before checkpoints, which travel in every pass. If nothing fits, as much goes as may.
 *
 * @param memoryBytes that may be used on the device; `null` where nobody knows: then all stays there that may
 */
export async function resolvePlacement(
  args: TrainArgs,
  base: ModelConfig,
  memoryBytes: number | null,
  options: StepOptions = {},
): Promise<PlacedCost> {
  const { offload_activations: offload, gradient_checkpointing, optim } = args;
  const pages = optim.startsWith("paged") ? [false, true] : [false];
  const offloads = offload === true
    ? [true]
    : offload === "auto" && gradient_checkpointing
    ? [false, true]
    : [false];
  const places = offloads.flatMap((offloadActivations) =>
    pages.map((pageStates): Placement => ({ pageStates, offloadActivations }))
  );
  let found: PlacedCost | undefined;
  for (const placement of places) {
    found = { placement, cost: await stepCost(args, base, { ...options, placement }) };
    if (memoryBytes === null || found.cost.peak.heldBytes <= memoryBytes) break;
  }
  return found!;
}

/**
 * Lets a step that fits take more memory, as far as there is, for the same work in fewer dispatches: weights that are
 * decoded once for a whole layer, then larger chunks of rows.
 * @param placed a step that fits `memoryBytes`
 */
export async function withMoreMemory(
  placed: PlacedCost,
  args: TrainArgs,
  base: ModelConfig,
  memoryBytes: number,
  options: StepOptions = {},
): Promise<PlacedCost> {
  let best = placed;
  const tries = async (change: Partial<Placement>): Promise<boolean> => {
    const placement = { ...best.placement, ...change };
    const cost = await stepCost(args, base, { ...options, placement });
    const isBetter = cost.dispatches < best.cost.dispatches && cost.peak.heldBytes <= memoryBytes;
    if (isBetter) best = { placement, cost };
    return isBetter;
  };
  await tries({ decodesLayers: true });
  let chunkBytes = 2 * CHUNK_BYTES;
  while (await tries({ chunkBytes })) chunkBytes *= 2;
  return best;
}
