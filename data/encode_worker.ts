/** A worker that encodes batches of rows; {@linkcode ./encode_pool.ts} starts it and speaks with it. */
import { type ErrorKind, UserError } from "../errors.ts";
import { type EncodedRow, RowEncoder, type RowForm } from "./encode.ts";
import type { PlacedRow } from "./rows.ts";
import { Tokenizer } from "./tokenizer.ts";

/** The first message to a worker. */
export interface EncodeSetup {
  /** Parsed tokenizer.json and tokenizer_config.json. */
  readonly tokenizer: Tokenizer["files"];
  readonly form: RowForm;
}

/** A worker's answer to a batch, or to its setup. */
export type EncodeAnswer =
  | { readonly rows: readonly EncodedRow[] }
  | { readonly error: { readonly message: string; readonly kind: ErrorKind } };

/** The worker's side of the channel, which the compiler's default library does not declare. */
const channel = globalThis as unknown as {
  onmessage: (event: MessageEvent<EncodeSetup | readonly PlacedRow[]>) => void;
  postMessage(answer: EncodeAnswer, transfer?: Transferable[]): void;
};

let encoder: RowEncoder | undefined;

channel.onmessage = ({ data }) => {
  try {
    if (!Array.isArray(data)) {
      const { tokenizer, form } = data as EncodeSetup;
      encoder = new RowEncoder(new Tokenizer(...tokenizer), form);
      channel.postMessage({ rows: [] });
      return;
    }
    const rows = (data as readonly PlacedRow[]).map((row) => encoder!.encode(row));
    const buffers = new Set(rows.flatMap(({ ids, labels }) => [ids.buffer, labels.buffer]));
    channel.postMessage({ rows }, [...buffers]);
  } catch (error) {
    if (!(error instanceof UserError)) throw error;
    channel.postMessage({ error: { message: error.message, kind: error.kind } });
  }
};
