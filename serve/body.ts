/** Bodies of requests: JSON, no longer than it may be, and sent without delay. */
import { formatBytes } from "../text.ts";
import { ApiError } from "./errors.ts";
import { orAbort } from "./queue.ts";

/** Bounds of a body. */
export interface BodyLimits {
  readonly maxBytes: number;
  /** Time from the first read to the last byte. */
  readonly timeoutMs: number;
}

/**
 * Reads the object in a request's body. Bytes are counted as they come: what is said of the length beforehand may be wrong.
 * @throws {ApiError} 413 for a body that is too long, 408 for one that takes too long, 400 for what is no JSON object
 */
export async function readJson(request: Request, limits: BodyLimits): Promise<Record<string, unknown>> {
  const bytes = await readBytes(request, limits);
  let value: unknown;
  try {
    value = JSON.parse(new TextDecoder("utf-8", { fatal: true }).decode(bytes));
  } catch (cause) {
    const problem = cause instanceof SyntaxError ? cause.message : "it is not UTF-8";
    throw new ApiError(400, `The body is not JSON: ${problem}`);
  }
  if (typeof value !== "object" || value === null || Array.isArray(value)) {
    throw new ApiError(400, "The body must be a JSON object");
  }
  return value as Record<string, unknown>;
}

async function readBytes(request: Request, { maxBytes, timeoutMs }: BodyLimits): Promise<Uint8Array> {
  const tooLong = () =>
    new ApiError(413, `The body is longer than ${formatBytes(maxBytes)}`, { code: "request_too_large" });
  if (Number(request.headers.get("content-length") ?? 0) > maxBytes) throw tooLong();
  const reader = request.body?.getReader();
  if (!reader) return new Uint8Array();
  const timeout = AbortSignal.timeout(timeoutMs);
  const chunks: Uint8Array[] = [];
  let length = 0;
  try {
    for (;;) {
      const { done, value } = await orAbort(reader.read(), timeout);
      if (done) break;
      length += value.length;
      if (length > maxBytes) throw tooLong();
      chunks.push(value);
    }
  } catch (error) {
    // What is left of it is not taken.
    reader.cancel().catch(() => {});
    if (error instanceof ApiError) throw error;
    if (!timeout.aborted) throw new ApiError(400, "The body ended early");
    throw new ApiError(408, `The body did not come within ${timeoutMs / 1000} s`);
  }
  const bytes = new Uint8Array(length);
  let at = 0;
  for (const chunk of chunks) {
    bytes.set(chunk, at);
    at += chunk.length;
  }
  return bytes;
}
