/** The width of a token file's ids where no sidecar tells it: by its header, or by the ids themselves. */
import { UserError } from "../errors.ts";
import { refuseForeign } from "./foreign.ts";

/** Type in which an id is stored. */
export type TokenDtype = "uint16" | "uint32";

export interface TokenLayout {
  readonly dtype: TokenDtype;
  /** Offset of the first id in bytes. */
  readonly start: number;
}

/** llm.c's headers (`data/data_common.py`): 256 int32, of which the first is one of these and the third counts the ids. */
const LLM_C: ReadonlyMap<number, TokenDtype> = new Map([[20240520, "uint16"], [20240801, "uint32"]]);
const LLM_C_BYTES = 1024;
/** Ids of 32 bits from which it is no chance that all are of the vocabulary. */
const CERTAIN = 16;

/**
 * Looks at a whole token file without a sidecar; leaves the file anywhere.
 * @throws {UserError} if it is another format's, or its content does not tell how wide its ids are
 */
export async function tokenLayout(
  file: Deno.FsFile,
  { path, size, vocabSize }: {
    readonly path: string;
    readonly size: number;
    readonly vocabSize: number | undefined;
  },
): Promise<TokenLayout> {
  const start = new Uint8Array(LLM_C_BYTES);
  const length = await file.read(start) ?? 0;
  refuseForeign(path, start.subarray(0, length));
  const words = new DataView(start.buffer);
  const header = length === LLM_C_BYTES ? LLM_C.get(words.getInt32(0, true)) : undefined;
  if (header) {
    const [told, found] = [words.getInt32(8, true), (size - LLM_C_BYTES) / (header === "uint16" ? 2 : 4)];
    if (told === found) return { dtype: header, start: LLM_C_BYTES };
    throw new UserError(`Cannot read "${path}": its header (llm.c's) tells ${told} ids, but ${found} follow`);
  }
  if (vocabSize === undefined) return { dtype: "uint16", start: 0 };
  const largest32 = await largestId(file);
  const fits32 = size % 4 === 0 && largest32 < vocabSize;
  if (vocabSize > 65536) {
    // Of uint16, every second id would be one of the first few only by chance.
    if (fits32 && size >= 4 * CERTAIN) return { dtype: "uint32", start: 0 };
    throw new UserError(
      `Cannot read "${path}": a vocabulary of ${vocabSize} needs ids of 32 bits, but these ` +
        `${fits32 ? "are too few to tell" : "are none"}. Tokenize again, or write "${path}.json" with ` +
        `{"dtype": "uint16"} or {"dtype": "uint32"}, as the file is`,
    );
  }
  if (fits32) {
    throw new UserError(
      `Cannot read "${path}" as uint16: every second one is 0, so its ids are 32 bits wide, and nothing says so. Write ` +
        `"${path}.json" with {"dtype": "uint32"}`,
    );
  }
  return { dtype: "uint16", start: 0 };
}

/** The largest id if all are of 32 bits. */
async function largestId(file: Deno.FsFile): Promise<number> {
  await file.seek(0, Deno.SeekMode.Start);
  const chunk = new Uint8Array(1 << 20);
  const view = new DataView(chunk.buffer);
  let [largest, carried] = [0, 0];
  for (let size = await file.read(chunk); size !== null; size = await file.read(chunk.subarray(carried))) {
    const available = carried + size;
    const end = available - available % 4;
    for (let at = 0; at < end; at += 4) largest = Math.max(largest, view.getUint32(at, true));
    chunk.copyWithin(0, end, available);
    carried = available - end;
  }
  return largest;
}
