import { Random } from "./random.ts";

/** Samples of like length are drawn together, so that a step's micro-batches cost about the same. */
export interface LengthGroups {
  /** (samples) tokens of each. */
  readonly lengths: readonly number[];
  /** Samples of one optimiser step. */
  readonly batch: number;
}

/**
 * The order in which samples are drawn: each epoch is its own permutation, a pure function of seed and epoch. The whole
 * state is {@linkcode Sampler.position}; setting it resumes exactly.
 */
export class Sampler {
  /** Samples drawn so far, over all epochs. */
  position = 0;
  #order: readonly number[] = [];
  #orderEpoch = -1;

  /** @throws {RangeError} if there are no samples */
  constructor(readonly numSamples: number, readonly seed: number, readonly groups?: LengthGroups) {
    if (!(Number.isInteger(numSamples) && numSamples > 0)) {
      throw new RangeError(`Cannot sample from ${numSamples} samples`);
    }
  }

  /** Epochs done, with the fraction of the current one. */
  get epoch(): number {
    return this.position / this.numSamples;
  }

  /** Samples left before the current epoch ends: from 1 to `numSamples`. */
  get leftInEpoch(): number {
    return this.numSamples - this.position % this.numSamples;
  }

  /** The next `count` sample indices, going on into the next epoch where one ends. */
  next(count: number): number[] {
    return Array.from({ length: count }, () => this.#draw());
  }

  /**
   * The next `count` sample indices or fewer, ending where the epoch ends: as Hugging Face's trainer, whose last
   * optimiser step of an epoch may be a smaller one.
   */
  nextInEpoch(count: number): number[] {
    return this.next(Math.min(count, this.leftInEpoch));
  }

  #draw(): number {
    const epoch = Math.floor(this.position / this.numSamples);
    if (epoch !== this.#orderEpoch) {
      const order = permutation(this.numSamples, this.seed, epoch);
      this.#order = this.groups ? grouped(order, this.groups) : order;
      this.#orderEpoch = epoch;
    }
    return this.#order[this.position++ % this.numSamples]!;
  }
}

/** Optimiser steps in one epoch; the last may hold fewer than `samplesPerStep` samples. */
export function stepsPerEpoch(numSamples: number, samplesPerStep: number): number {
  return Math.ceil(numSamples / samplesPerStep);
}

function permutation(length: number, seed: number, epoch: number): number[] {
  // Epochs get streams of their own by a seed that no other epoch of a nearby seed shares.
  const random = new Random(seed + epoch * 0x1_0000_0000);
  return random.shuffled(Array.from({ length }, (_, i) => i));
}

/** Batches that are sorted together at most. */
const MEGABATCH = 50;

/**
 * A permutation cut into megabatches of up to 50 batches, each sorted from long to short, the longest sample of all
 * first, so that a run that does not fit fails at once (`group_by_length` of transformers).
 */
function grouped(order: readonly number[], { lengths, batch }: LengthGroups): number[] {
  const size = batch * Math.max(1, Math.min(Math.floor(order.length / (4 * batch)), MEGABATCH));
  const result: number[] = [];
  for (let start = 0; start < order.length; start += size) {
    result.push(...order.slice(start, start + size).sort((a, b) => lengths[b]! - lengths[a]!));
  }
  let longest = 0;
  result.forEach((index, i) => {
    if (lengths[index]! > lengths[result[longest]!]!) longest = i;
  });
  [result[0], result[longest]] = [result[longest]!, result[0]!];
  return result;
}
