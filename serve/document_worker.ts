/** A worker that reads one PDF; {@linkcode ./documents.ts} starts it and speaks with it. */
/// <reference lib="deno.worker" />
import { parsePdf } from "../data/pdf/reader.ts";
import { textOfPdf } from "../data/pdf/convert.ts";
import { UserError } from "../errors.ts";
import type { WorkerAnswer } from "./documents.ts";

self.onmessage = async ({ data }: MessageEvent<string>) => self.postMessage(await read(data));

async function read(base64: string): Promise<WorkerAnswer> {
  let bytes: Uint8Array<ArrayBuffer>;
  try {
    bytes = Uint8Array.fromBase64(base64);
  } catch {
    return { problem: "it is not base64" };
  }
  try {
    const { text, pages, scanned } = await textOfPdf(await parsePdf(bytes, "document"), "document");
    return { text, pages, scanned };
  } catch (error) {
    if (!(error instanceof UserError)) throw error;
    return { problem: error.message.replace(/^Cannot \w+ "document": /, "") };
  }
}
