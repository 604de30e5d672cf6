/** Text of PDFs that come over the network: read in a worker, which can be ended and may not touch anything. */
import { ApiError } from "./errors.ts";
import { orAbort, Queue } from "./queue.ts";

/** The text of a document. */
export interface DocumentText {
  readonly text: string;
  readonly pages: number;
  /** Numbers of the pages that are images without text. */
  readonly scanned: readonly number[];
}

/** The worker's answer. */
export type WorkerAnswer = DocumentText | { readonly problem: string };

/** Longest time for one document. */
const MOST_MS = 120_000;

/** Reads one document after the other. */
export class DocumentReader {
  readonly queue: Queue;
  #worker: Worker | undefined;

  /** @param waiting documents that may wait */
  constructor(waiting: number) {
    this.queue = new Queue(waiting);
  }

  /** @throws {ApiError} if it is no PDF, has no text, or takes too long */
  async read(base64: string, signal: AbortSignal): Promise<DocumentText> {
    const worker = this.#worker = new Worker(new URL("./document_worker.ts", import.meta.url), {
      type: "module",
    });
    const { promise, resolve } = Promise.withResolvers<WorkerAnswer>();
    worker.onmessage = ({ data }: MessageEvent<WorkerAnswer>) => resolve(data);
    worker.onerror = (event) => {
      event.preventDefault();
      resolve({ problem: "it cannot be read" });
    };
    const timeout = AbortSignal.timeout(MOST_MS);
    try {
      worker.postMessage(base64);
      const answer = await orAbort(promise, AbortSignal.any([signal, timeout]));
      if ("text" in answer) return answer;
      throw new ApiError(400, `The document cannot be used: ${answer.problem}`, {
        param: "data",
        code: "invalid_document",
      });
    } catch (error) {
      if (!timeout.aborted) throw error;
      throw new ApiError(400, `The document cannot be used: no end after ${MOST_MS / 1000} s`, {
        param: "data",
      });
    } finally {
      this.stop();
    }
  }

  stop(): void {
    this.#worker?.terminate();
    this.#worker = undefined;
  }
}
