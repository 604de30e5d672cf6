import { Random } from "./random.ts";

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
  constructor(readonly numSamples: number, readonly seed: number) {
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
      this.#order = permutation(this.numSamples, this.seed, epoch);
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
