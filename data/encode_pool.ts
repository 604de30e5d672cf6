/** Encodes rows on all cores, in their order, and stops a template that does not come to an end. */
import { UserError } from "../errors.ts";
import type { EncodedRow, RowForm } from "./encode.ts";
import type { EncodeAnswer, EncodeSetup } from "./encode_worker.ts";
import type { PlacedRow } from "./rows.ts";
import type { Message } from "./templates.ts";
import type { Tokenizer } from "./tokenizer.ts";

/** Characters of text in a batch: enough that passing it on costs little, few enough that all workers get some. */
const BATCH_CHARACTERS = 2 ** 17;
const MOST_WORKERS = 8;

export interface PoolOptions extends RowForm {
  /** Milliseconds for a batch, and per million characters in it. */
  readonly timeLimit?: number;
}

/**
 * Encodes rows in workers.
 * @throws {UserError} of the first row that cannot be used, or if a batch takes longer than the limit
 */
export async function* encodeRows(
  rows: AsyncIterable<PlacedRow>,
  tokenizer: Tokenizer,
  { timeLimit = 60_000, ...form }: PoolOptions = {},
): AsyncGenerator<EncodedRow> {
  const workers: EncodeWorker[] = [];
  const waiting: Promise<readonly EncodedRow[]>[] = [];
  const most = Math.min(navigator.hardwareConcurrency, MOST_WORKERS);
  try {
    let next = 0;
    for await (const batch of batches(rows)) {
      // Workers start as there is work: a small file gets one.
      if (workers.length < most) {
        workers.push(new EncodeWorker({ tokenizer: tokenizer.files, form }, timeLimit));
      }
      const worker = workers[next++ % workers.length]!;
      waiting.push(worker.encode(batch));
      // An error is thrown in its turn, below: until then it is no unhandled one.
      waiting.at(-1)!.catch(() => {});
      if (waiting.length > 2 * most) yield* await waiting.shift()!;
    }
    for (const batch of waiting) yield* await batch;
  } finally {
    workers.forEach((worker) => worker.stop());
  }
}

async function* batches(rows: AsyncIterable<PlacedRow>): AsyncGenerator<PlacedRow[]> {
  let batch: PlacedRow[] = [];
  let characters = 0;
  for await (const row of rows) {
    batch.push(row);
    characters += sizeOf(row);
    if (characters < BATCH_CHARACTERS) continue;
    yield batch;
    batch = [];
    characters = 0;
  }
  if (batch.length > 0) yield batch;
}

function sizeOf({ row }: PlacedRow): number {
  switch (row.kind) {
    case "text":
      return row.text.length;
    case "answer":
    case "chat":
      return sizeOfAll(row.messages);
    case "completion":
      return row.prompt.length + row.completion.length;
    case "instruction": {
      const { instruction, input, output, before = [] } = row.values;
      return instruction.length + input.length + output.length + sizeOfAll(before);
    }
  }
}

function sizeOfAll(messages: readonly Message[]): number {
  return messages.reduce((sum, { content }) => sum + (content?.length ?? 0), 0);
}

/** One worker, which answers its batches in their order. */
class EncodeWorker {
  readonly #worker: Worker;
  readonly #timeLimit: number;
  #last: Promise<unknown>;

  constructor(setup: EncodeSetup, timeLimit: number) {
    this.#worker = new Worker(new URL("./encode_worker.ts", import.meta.url), { type: "module" });
    this.#timeLimit = timeLimit;
    this.#last = this.#ask(setup, timeLimit, "the tokenizer");
    this.#last.catch(() => {});
  }

  encode(batch: readonly PlacedRow[]): Promise<readonly EncodedRow[]> {
    const characters = batch.reduce((sum, row) => sum + sizeOf(row), 0);
    const limit = this.#timeLimit * (1 + characters / 1e6);
    const answer = this.#last.then(() => this.#ask(batch, limit, batch[0]!.where));
    this.#last = answer.catch(() => {});
    return answer;
  }

  stop(): void {
    this.#worker.terminate();
  }

  #ask(
    message: EncodeSetup | readonly PlacedRow[],
    limit: number,
    where: string,
  ): Promise<readonly EncodedRow[]> {
    const { promise, resolve, reject } = Promise.withResolvers<readonly EncodedRow[]>();
    const timer = setTimeout(() => {
      this.stop();
      reject(
        new UserError(
          `Cannot tokenize ${where}: no end after ${
            Math.round(limit / 1000)
          } s. If the model's chat template ` +
            `loops, set chat_template to a built-in one`,
        ),
      );
    }, limit);
    this.#worker.onmessage = ({ data }: MessageEvent<EncodeAnswer>) => {
      if ("rows" in data) return resolve(data.rows);
      const { message, kind } = data.error;
      reject(new UserError(message, { kind }));
    };
    this.#worker.onerror = (event) => {
      event.preventDefault();
      reject(new UserError(`Cannot tokenize ${where}: the worker failed (${event.message})`));
    };
    this.#worker.postMessage(message);
    return promise.finally(() => clearTimeout(timer));
  }
}
