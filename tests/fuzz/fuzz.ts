/** Runs a reader over mutated inputs: with a watchdog, a bound of memory, and what fails made small and kept. */
import { createHash } from "../../checkpoint/deps.ts";
import { Dice } from "./dice.ts";
import { process } from "./deps.ts";
import { type ReaderName, READERS } from "./readers.ts";
import type { Fault, Order, Report, Single } from "./worker.ts";

/** Seconds of the processor that one input may take: a busy machine does not change them. */
const MOST_CPU_SECONDS = 2;
/** Seconds that one input may take in all: it may wait for something that never comes. */
const MOST_SECONDS = 60;
/** Memory that reading may take, garbage included. */
const MOST_BYTES = 512 * 2 ** 20;
const POLL_MILLISECONDS = 50;
/** Inputs that a thread gets at once. */
const BATCH = 500;

const CORPUS = new URL("./corpus", import.meta.url).pathname;

/** What came of a reader's inputs. */
export interface FuzzResult {
  readonly tried: number;
  readonly accepted: number;
  readonly refused: number;
  readonly longest: Report["longest"];
  /** Most bytes that the process had more than at the start. */
  readonly peakBytes: number;
  readonly faults: readonly Fault[];
}

/** A thread that reads inputs, and what it is watched for. */
class Watched {
  readonly #worker = new Worker(new URL("./worker.ts", import.meta.url), { type: "module" });
  readonly #at = new SharedArrayBuffer(4);
  readonly #baseBytes = Deno.memoryUsage().rss;
  peakBytes = 0;

  constructor(readonly reader: ReaderName, readonly folder: string) {}

  /** Reads inputs; the number of the one that hung, grew or failed apart from the rest, where one did. */
  async run(
    inputs: { readonly seed: number; readonly from: number; readonly to: number } | Single,
  ): Promise<Report | Fault> {
    const at = new Int32Array(this.#at);
    at[0] = "from" in inputs ? inputs.from : 0;
    let stop = () => {};
    const ended = new Promise<Report | Fault>((resolve) => {
      const fault = (message: string) => resolve({ index: Atomics.load(at, 0), message });
      this.#worker.onmessage = ({ data }: MessageEvent<Report>) => resolve(data);
      this.#worker.onerror = (event) => {
        event.preventDefault();
        fault(`not caught: ${event.message}`);
      };
      stop = this.#watch(at, fault);
    });
    const order: Order = { reader: this.reader, folder: this.folder, at: this.#at, ...inputs };
    this.#worker.postMessage(order);
    try {
      return await ended;
    } finally {
      stop();
    }
  }

  /** Looks after the input that is being read. @returns what ends it */
  #watch(at: Int32Array, fault: (message: string) => void): () => void {
    let [index, since, cpu] = [-1, 0, 0];
    const timer = setInterval(() => {
      const now = Atomics.load(at, 0);
      if (now !== index) [index, since, cpu] = [now, performance.now(), cpuSeconds()];
      const bytes = Deno.memoryUsage().rss - this.#baseBytes;
      this.peakBytes = Math.max(this.peakBytes, bytes);
      if (cpuSeconds() - cpu > MOST_CPU_SECONDS) {
        fault(`does not end in ${MOST_CPU_SECONDS} s of the processor`);
      } else if (performance.now() - since > MOST_SECONDS * 1000) fault(`does not end in ${MOST_SECONDS} s`);
      else if (bytes > MOST_BYTES) fault(`takes over ${MOST_BYTES / 2 ** 20} MiB`);
    }, POLL_MILLISECONDS);
    return () => clearInterval(timer);
  }

  end(): void {
    this.#worker.terminate();
  }
}

function cpuSeconds(): number {
  const { user, system } = process.cpuUsage();
  return (user + system) / 1e6;
}

/** Reads inputs one by one; the thread is made anew where one of them ended it. */
export class Trials implements Disposable {
  #thread: Watched | undefined;

  constructor(readonly reader: ReaderName, readonly folder: string) {}

  /** @returns what is wrong with the reading of an input, if something is */
  async fault(input: Uint8Array, { settles = true } = {}): Promise<string | undefined> {
    const thread = this.#thread ??= new Watched(this.reader, this.folder);
    const result = await thread.run({ input, settles });
    if (!("message" in result)) return result.faults[0]?.message;
    this[Symbol.dispose]();
    return result.message;
  }

  [Symbol.dispose](): void {
    this.#thread?.end();
    this.#thread = undefined;
  }
}

/** Reads `count` inputs of a seed. @param say shows progress */
export async function fuzz(
  reader: ReaderName,
  { count, seed, folder, say = () => {} }: {
    readonly count: number;
    readonly seed: number;
    readonly folder: string;
    readonly say?: (line: string) => void;
  },
): Promise<FuzzResult> {
  const { make } = await READERS[reader]();
  const faults: Fault[] = [];
  let [accepted, refused, peakBytes] = [0, 0, 0];
  let longest = { milliseconds: 0, index: 0 };
  let thread = new Watched(reader, folder);
  /** The first input that is no part of a finished batch. */
  let from = 0;
  while (from < count) {
    const to = Math.min(count, from + BATCH);
    const result = await thread.run({ seed, from, to });
    peakBytes = Math.max(peakBytes, thread.peakBytes);
    if ("message" in result) {
      thread.end();
      thread = new Watched(reader, folder);
      const { culprit, message } = await confirm(reader, make, seed, result, folder);
      if (culprit !== undefined) faults.push({ index: culprit, message });
      // What was before it in the batch is read again, so that every input is counted once.
      const before = result.index > from ? await thread.run({ seed, from, to: result.index }) : undefined;
      if (before && "accepted" in before) {
        accepted += before.accepted;
        refused += before.refused;
        faults.push(...before.faults);
      } else if (before) {
        thread.end();
        thread = new Watched(reader, folder);
        faults.push(before);
      }
      from = result.index + 1;
      continue;
    }
    accepted += result.accepted;
    refused += result.refused;
    faults.push(...result.faults);
    if (result.longest.milliseconds > longest.milliseconds) longest = result.longest;
    from = to;
    say(`${reader}: ${from} of ${count}, ${accepted} accepted, ${faults.length} faults`);
  }
  thread.end();
  return { tried: count, accepted, refused, longest, peakBytes, faults };
}

/** Inputs before the one at hand whose reading may still have been going on. */
const LATE = 8;

/** Tries alone the input at which a thread failed, and those before it: a promise may fail after its input was read. */
async function confirm(
  reader: ReaderName,
  make: (dice: Dice) => Uint8Array | Promise<Uint8Array>,
  seed: number,
  { index, message }: Fault,
  folder: string,
): Promise<{ culprit: number | undefined; message: string }> {
  const isLate = message.startsWith("not caught");
  using trials = new Trials(reader, folder);
  for (let each = index; each >= Math.max(0, isLate ? index - LATE : index); each--) {
    const fault = await trials.fault(await make(new Dice(seed + each)));
    if (fault !== undefined) return { culprit: each, message: fault };
  }
  // Garbage of many inputs is no fault of one; all else is, even where it does not come again.
  return message.startsWith("takes over")
    ? { culprit: undefined, message }
    : { culprit: index, message: `${message} (not again when tried alone)` };
}

/** What two inputs have in common that fail in the same way. */
function kindOf(message: string): string {
  return message.replace(/\d+/g, "0").replace(/["'`].*?["'`]/g, '""').slice(0, 80);
}

/** Inputs of one kind of fault that are tried while it is made smaller. */
const TRIES = 300;

/** A smaller input that fails in the same way: stretches are left out, the longest first. */
export async function shrink(
  reader: ReaderName,
  input: Uint8Array,
  message: string,
  folder: string,
): Promise<Uint8Array> {
  const kind = kindOf(message);
  // A hang takes seconds each time.
  let tries = /does not end|takes over/.test(message) ? 20 : TRIES;
  let smallest = input;
  using trials = new Trials(reader, folder);
  for (
    let length = Math.ceil(input.length / 2);
    length >= 1;
    length = length === 1 ? 0 : Math.ceil(length / 2)
  ) {
    for (let at = 0; at < smallest.length && tries > 0;) {
      const shorter = new Uint8Array([...smallest.subarray(0, at), ...smallest.subarray(at + length)]);
      tries--;
      const fault = await trials.fault(shorter, { settles: message.startsWith("not caught") });
      if (fault !== undefined && kindOf(fault) === kind) smallest = shorter;
      else at += length;
    }
  }
  return smallest;
}

/** Kinds of faults of one reader that are kept. */
const MOST_KINDS = 20;

/** Makes the first input of each kind of fault small and puts it into the corpus. @returns the names of the files */
export async function keep(
  reader: ReaderName,
  seed: number,
  faults: readonly Fault[],
  folder: string,
): Promise<string[]> {
  const { make } = await READERS[reader]();
  const kinds = new Map<string, Fault>();
  for (const fault of faults) {
    const kind = kindOf(fault.message);
    if (!kinds.has(kind) && kinds.size < MOST_KINDS) kinds.set(kind, fault);
  }
  const names: string[] = [];
  for (const { index, message } of kinds.values()) {
    const input = await shrink(reader, await make(new Dice(seed + index)), message, folder);
    const name = `${createHash("sha256").update(input).digest("hex").slice(0, 12)}.bin`;
    await Deno.mkdir(`${CORPUS}/${reader}`, { recursive: true });
    await Deno.writeFile(`${CORPUS}/${reader}/${name}`, input);
    names.push(`${reader}/${name}`);
  }
  return names;
}

/** The inputs of a reader that once failed. */
export function corpus(reader: ReaderName): { name: string; input: Uint8Array }[] {
  const folder = `${CORPUS}/${reader}`;
  try {
    return [...Deno.readDirSync(folder)].map(({ name }) => name).sort()
      .map((name) => ({ name, input: Deno.readFileSync(`${folder}/${name}`) }));
  } catch (error) {
    if (error instanceof Deno.errors.NotFound) return [];
    throw error;
  }
}
