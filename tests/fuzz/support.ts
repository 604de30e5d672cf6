import type { FileHandle, Files } from "../../checkpoint/files.ts";
import { UserError } from "../../errors.ts";
import { uniform } from "../support/random.ts";

function fromEnv(name: string, initial: number): number {
  const value = Number(Deno.env.get(name) ?? initial);
  return Number.isSafeInteger(value) && value >= 0 ? value : initial;
}

/** Where the random sequence starts: FUZZ_SEED, part of each test's name so that a failure can be repeated. */
export const SEED = fromEnv("FUZZ_SEED", 20_240_601);

/** How many inputs each campaign tries: FUZZ_COUNT, a few thousand in the everyday run. */
export function campaign(everyday: number): number {
  return fromEnv("FUZZ_COUNT", everyday);
}

/** Random choices from a seed. */
export class Dice {
  readonly #next: () => number;

  constructor(seed: number) {
    this.#next = uniform(seed);
  }

  /** A whole number from 0 to `limit` - 1. */
  below(limit: number): number {
    return Math.floor(this.#next() * limit);
  }

  chance(share: number): boolean {
    return this.#next() < share;
  }

  pick<T>(items: readonly T[]): T {
    return items[this.below(items.length)]!;
  }
}

/** Damages bytes in one to four ways: flips, overwritten, removed, repeated and inserted stretches. */
export function mutateBytes(dice: Dice, source: Uint8Array, tokens: readonly Uint8Array[]): Uint8Array {
  let bytes = [...source];
  for (let rounds = 1 + dice.below(4); rounds > 0 && bytes.length > 0; rounds--) {
    const at = dice.below(bytes.length);
    const length = 1 + dice.below(Math.min(16, bytes.length - at));
    switch (dice.below(6)) {
      case 0:
        bytes[at]! ^= 1 << dice.below(8);
        break;
      case 1:
        bytes[at] = dice.below(256);
        break;
      case 2:
        bytes.splice(at, length);
        break;
      case 3:
        bytes.splice(dice.below(bytes.length), 0, ...bytes.slice(at, at + length));
        break;
      case 4:
        bytes.splice(at, dice.chance(0.5) ? 0 : length, ...dice.pick(tokens));
        break;
      default:
        bytes = bytes.slice(0, dice.chance(0.1) ? at : bytes.length);
    }
  }
  return Uint8Array.from(bytes);
}

/** A file layer that holds one file, under any name. */
export function memoryFile(bytes: Uint8Array): Files {
  const refuse = () => Promise.reject(new Error("this file layer only reads"));
  const handle: FileHandle = {
    size: () => Promise.resolve(bytes.length),
    readAt: (offset, into) => {
      const part = bytes.subarray(offset, offset + into.length);
      into.set(part);
      return Promise.resolve(part.length);
    },
    write: refuse,
    sync: refuse,
    close: () => {},
  };
  return {
    open: () => Promise.resolve(handle),
    makeFolder: refuse,
    sync: refuse,
    rename: refuse,
    remove: refuse,
    removeTree: refuse,
    list: refuse,
  };
}

/**
 * Runs `read`; returns its value, or undefined if it threw a UserError. Any other error fails, as does
 * taking over a second (a hundred times what a busy machine needs).
 */
export async function attempt<T>(label: string, read: () => T | Promise<T>): Promise<T | undefined> {
  const start = performance.now();
  let value: T | undefined;
  try {
    value = await read();
  } catch (error) {
    if (!(error instanceof UserError)) throw new Error(`${label}: threw ${error}`, { cause: error });
  }
  const elapsedMs = performance.now() - start;
  if (elapsedMs > 1000) throw new Error(`${label}: took ${elapsedMs.toFixed(0)} ms`);
  return value;
}
