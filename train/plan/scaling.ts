/**
 * The step of many ranks, reckoned from that of one: the time of its own work, and of its messages by their number and
 * bytes. The sum of gradients comes after all other work. Keys and values come between layers, and hold a rank up only as
 * far as they are late, see {@linkcode lateSeconds}.
 */
import { addFlops, totalFlops } from "../../model/flops.ts";
import type { StepCost } from "./step_cost.ts";

/** Ways that messages between ranks take. */
export interface Network {
  /** Bytes that a rank sends in a second while it receives as many. */
  readonly bytesPerSecond: number;
  /** Seconds that a message takes besides. */
  readonly latencySeconds: number;
  /** Bytes a second between a device and its host's memory, through which messages go. */
  readonly hostBytesPerSecond: number;
}

/** The ranks of a job. */
export interface Ranks {
  /** All of them. */
  readonly ranks: number;
  /** How many share a batch; divides them. */
  readonly sequenceParallel: number;
  /** Bytes of a number of the gradients between ranks; 4 unless given. */
  readonly wireBytes?: number;
}

/** An optimiser step of many ranks. */
export interface Scaling extends Omit<Ranks, "wireBytes"> {
  /** Tokens of the step, on all ranks. */
  readonly tokens: number;
  /** Bytes of gradients that are summed over all ranks. */
  readonly reducedBytes: number;
  /** Seconds of that. */
  readonly reduceSeconds: number;
  /** Messages of a rank with keys, values or their gradients, to and from the ranks around it at once. */
  readonly exchanges: number;
  /** Bytes of those. */
  readonly exchangedBytes: number;
  /** Seconds by which those hold a rank up; without measured rates, that they are on the wire. */
  readonly exchangeSeconds: number;
  /** Seconds of a rank's own work; `null` without measured rates. */
  readonly computeSeconds: number | null;
  /** Seconds of the step. */
  readonly stepSeconds: number | null;
  /** Part of the step that waits for messages. */
  readonly communicationShare: number | null;
  /** Tokens a second of a rank, against those of one that works alone. */
  readonly efficiency: number | null;
}

/** A step's cost, and its seconds without messages: `null` where nobody knows. */
export interface TimedCost {
  readonly cost: Pick<StepCost, "tokens" | "traffic" | "trainable" | "passes" | "flops">;
  readonly seconds: number | null;
}

/**
 * Reckons an optimiser step of many ranks.
 * @param share of a rank
 * @param alone of one rank that has the whole batch to itself, for the same tokens
 */
export function predictScaling(
  { cost, seconds }: TimedCost,
  alone: Pick<TimedCost, "seconds">,
  { ranks, sequenceParallel, wireBytes = 4 }: Ranks,
  network: Network,
): Scaling {
  const { exchanges, exchangedBytes } = cost.traffic;
  const { forward, recompute, backward } = cost.flops;
  const reducedBytes = ranks > 1 ? wireBytes * cost.trainable : 0;
  const reduceSeconds = allReduceSeconds(reducedBytes, ranks, network) +
    2 * (4 * reducedBytes / wireBytes) / network.hostBytesPerSecond;
  const wireSeconds = exchanges * network.latencySeconds + exchangedBytes / network.bytesPerSecond +
    HOST_BYTES * exchangedBytes / network.hostBytesPerSecond;
  const forwardShare = totalFlops(forward) / totalFlops(addFlops(forward, recompute, backward));
  const late = (share: number) =>
    lateSeconds(wireSeconds / 2 / cost.passes, (seconds ?? 0) * share / cost.passes, {
      messages: exchanges / 2 / cost.passes,
      hops: sequenceParallel - 1,
    });
  const exchangeSeconds = exchanges === 0
    ? 0
    : seconds === null
    ? wireSeconds
    : cost.passes * (late(forwardShare) + late(1 - forwardShare));
  const messageSeconds = reduceSeconds + exchangeSeconds;
  const stepSeconds = seconds === null ? null : seconds + messageSeconds;
  return {
    ranks,
    sequenceParallel,
    tokens: cost.tokens * ranks / sequenceParallel,
    reducedBytes,
    reduceSeconds,
    exchanges,
    exchangedBytes,
    exchangeSeconds,
    computeSeconds: seconds,
    stepSeconds,
    communicationShare: stepSeconds === null ? null : messageSeconds / stepSeconds,
    efficiency: stepSeconds === null || alone.seconds === null
      ? null
      : alone.seconds / (sequenceParallel * stepSeconds),
  };
}

/**
 * Seconds by which messages between layers make a pass longer. Ranks only wait for the one before (in the backward pass, the
 * one behind), and start together: the first of them waits for nobody, and each further one is late by one message, in
 * whichever layer. Only where a message takes longer than a layer does every layer wait for the rest of it.
 */
function lateSeconds(
  wireSeconds: number,
  workSeconds: number,
  { messages, hops }: { readonly messages: number; readonly hops: number },
): number {
  return Math.max(Math.min(hops, messages) * wireSeconds / messages, wireSeconds - workSeconds);
}

/** Bytes that are read from the device or written to it for one on the wire: those of all heads, of which half travel. */
const HOST_BYTES = 4;

/**
 * Seconds to sum `bytes` of every rank on all: the faster of a ring, 2 (N - 1) messages of a part each, and of recursive
 * halving and doubling, 2 log2 N messages. Both send 2 (N - 1) / N of the bytes, the least there can be.   Thakur,
 * Rabenseifner and Gropp 2005, Optimization of collective communication operations in MPICH, sections 4.1 and 4.5;
 * Patarasuk and Yuan 2009, Bandwidth optimal all-reduce algorithms for clusters of workstations.
 */
export function allReduceSeconds(
  bytes: number,
  ranks: number,
  { bytesPerSecond, latencySeconds }: Pick<Network, "bytesPerSecond" | "latencySeconds">,
): number {
  if (ranks === 1 || bytes === 0) return 0;
  const messages = 2 * Math.min(ranks - 1, Math.ceil(Math.log2(ranks)));
  return messages * latencySeconds + 2 * (ranks - 1) / ranks * bytes / bytesPerSecond;
}
