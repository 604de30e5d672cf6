/** Reads inputs in a thread of its own, which is ended where one of them does not. */
/// <reference lib="deno.worker" />
import { UserError } from "../../errors.ts";
import { Dice } from "./dice.ts";
import type { Reader } from "./reader.ts";
import { type ReaderName, READERS } from "./readers.ts";

/** Inputs to read: those numbered `from` to `to` of a seed, or one. */
export type Order =
  & { readonly reader: ReaderName; readonly folder: string; readonly at: SharedArrayBuffer }
  & ({ readonly seed: number; readonly from: number; readonly to: number } | Single);

/** One input; `settles`: wait a little for what its reader left running. */
export interface Single {
  readonly input: Uint8Array;
  readonly settles: boolean;
}

/** What came of them. */
export interface Report {
  readonly accepted: number;
  readonly refused: number;
  /** Milliseconds of the one that took longest, and its number. */
  readonly longest: { readonly milliseconds: number; readonly index: number };
  readonly faults: readonly Fault[];
}

export interface Fault {
  readonly index: number;
  readonly message: string;
}

/** Longest refusal: nobody reads more. */
const MOST_CHARACTERS = 1500;
const PROTOTYPES: readonly object[] = [
  Object.prototype,
  Array.prototype,
  String.prototype,
  Number.prototype,
  Function.prototype,
];
const propertyCount = () =>
  PROTOTYPES.reduce((sum, each) => sum + Object.getOwnPropertyNames(each).length, 0);
const properties = propertyCount();

/** Reads an input. @returns whether it was accepted @throws {Error} that says what is wrong with the reader */
async function attempt(reader: Reader, input: Uint8Array, folder: string): Promise<boolean> {
  let accepted = false;
  try {
    await reader.read(input, folder);
    accepted = true;
  } catch (error) {
    if (!(error instanceof UserError)) throw error;
    const { message } = error;
    if (message.length > MOST_CHARACTERS * (1 + (reader.lines ?? 1) / 10)) {
      throw new Error(`a refusal of ${message.length} characters`);
    }
    const lines = message.split(/[\n\r]/).length;
    if (lines > (reader.lines ?? 1)) throw new Error(`a refusal of ${lines} lines`);
    if (/ is not a function(?=$|\))|Cannot read propert|is not iterable/.test(message)) {
      throw new Error(`a refusal in words of the engine: ${message}`);
    }
  }
  if (propertyCount() !== properties) throw new Error("a prototype has other properties than before");
  const right = reader.isRight?.(input) ?? accepted;
  if (right !== accepted) throw new Error(`the reader says ${accepted}, the other checker ${right}`);
  return accepted;
}

async function work(order: Order): Promise<Report> {
  const reader = await READERS[order.reader]();
  const at = new Int32Array(order.at);
  const [from, to] = "seed" in order ? [order.from, order.to] : [0, 1];
  const count = { accepted: 0, refused: 0 };
  const faults: Fault[] = [];
  const longest = { milliseconds: 0, index: from };
  for (let index = from; index < to; index++) {
    const input = "seed" in order ? await reader.make(new Dice(order.seed + index)) : order.input;
    Atomics.store(at, 0, index);
    const start = performance.now();
    try {
      count[await attempt(reader, input, order.folder) ? "accepted" : "refused"]++;
    } catch (error) {
      faults.push({
        index,
        message: error instanceof Error ? `${error.name}: ${error.message}` : String(error),
      });
    }
    const milliseconds = performance.now() - start;
    if (milliseconds > longest.milliseconds) Object.assign(longest, { milliseconds, index });
  }
  if ("settles" in order && order.settles) await new Promise((resolve) => setTimeout(resolve, 20));
  return { ...count, longest, faults };
}

self.addEventListener("message", async ({ data }: MessageEvent<Order>) => {
  self.postMessage(await work(data));
});
