/** Text files to one token file. */
import { UserError } from "../errors.ts";
import { formatCount } from "../text.ts";
import { isTokenFile, readTokenBin, type TokenDtype, TokenWriter } from "./bin.ts";
import { encodeRows } from "./encode_pool.ts";
import { refuseForeign } from "./foreign.ts";
import { readText } from "./jsonl.ts";
import { kindOf, type PlacedRow, readRows } from "./rows.ts";
import { UnknownTokens } from "./spelling.ts";
import type { EncodeOptions, Tokenizer } from "./tokenizer.ts";
import { UnusedKeys } from "./unused_keys.ts";

/** Result of {@linkcode tokenizeFiles}. */
export interface TokenizeReport {
  /** Documents that were not empty. */
  readonly documents: number;
  /** Tokens of all of them. */
  readonly tokens: number;
  /** Size of one id. */
  readonly dtype: TokenDtype;
}

/** Options of {@linkcode tokenizeFiles}. */
export interface TokenizeOptions extends Partial<EncodeOptions> {
  /** uint16 where every id of the vocabulary fits, unless given. */
  readonly dtype?: TokenDtype;
  /** Told, in one line for each file, which keys of its rows nothing reads; and how many tokens are unknown, if many. */
  readonly note?: (line: string) => void;
  /** Called after each document with the counts so far. */
  readonly onDocument?: (documents: number, tokens: number) => void;
}

/**
 * Tokenizes files into one token file, on all cores: each row's `text` is a document, and so is any file as a whole whose
 * ending says nothing of rows. Documents stand one after the other, by default each as `<s> text </s>`; empty ones are
 * nothing.
 *
 * @throws {UserError} if an input cannot be read, or there is nothing to write
 */
export async function tokenizeFiles(
  inputs: readonly string[],
  output: string,
  tokenizer: Tokenizer,
  { bos = true, eos = true, dtype, note, onDocument }: TokenizeOptions = {},
): Promise<TokenizeReport> {
  const stored = dtype ?? smallestDtype(tokenizer);
  await using writer = await TokenWriter.create(output, stored);
  let documents = 0;
  for await (const ids of encodeDocuments(inputs, tokenizer, { bos, eos }, note)) {
    await writer.write(ids);
    onDocument?.(++documents, writer.tokens);
  }
  if (writer.tokens === 0) throw new UserError(`Cannot write "${output}": the input files have no text`);
  await writer.finish();
  return { documents, tokens: writer.tokens, dtype: stored };
}

/** The tokens of some data, and how many documents they are; a token file does not tell. */
export interface DataTokens {
  readonly tokens: Uint32Array;
  readonly documents: number | null;
}

/**
 * Reads data to measure on: the ids of a token file, or the text of anything else as {@linkcode tokenizeFiles} would write
 * it, 4 bytes of memory per token.
 *
 * @throws {UserError} if it cannot be read, has no tokens, or has ids from `vocabSize` up
 */
export async function readTokens(
  path: string,
  { tokenizer, vocabSize, note }: {
    readonly tokenizer: () => Promise<Tokenizer>;
    readonly vocabSize: number;
    /** As {@linkcode TokenizeOptions.note}. */
    readonly note?: (line: string) => void;
  },
): Promise<DataTokens> {
  if (isTokenFile(path)) return { tokens: await readTokenBin(path, { vocabSize }), documents: null };
  const frame = { bos: true, eos: true };
  const parts = await Array.fromAsync(
    readDocumentTokens(path, await tokenizer(), { ...frame, vocabSize, note }),
  );
  return { tokens: joined(parts), documents: parts.length };
}

/** The ids of documents, one after the other. */
function joined(parts: readonly ArrayLike<number>[]): Uint32Array {
  const tokens = new Uint32Array(parts.reduce((sum, { length }) => sum + length, 0));
  let at = 0;
  for (const part of parts) {
    tokens.set(part, at);
    at += part.length;
  }
  return tokens;
}

/** The smaller type that holds every id of the vocabulary. */
function smallestDtype({ vocabSize }: Tokenizer): TokenDtype {
  return vocabSize > 65536 ? "uint32" : "uint16";
}

/** Documents split in two: what is trained on, and their end, which is not. */
export interface HeldOut {
  /** Token file to train on. */
  readonly train: string;
  /** Token file to measure on. */
  readonly heldOut: string;
  readonly trainTokens: number;
  readonly heldOutTokens: number;
}

/** Share of the tokens that is held out, and the windows it is at most. */
const HELD_OUT = { share: 0.1, mostWindows: 8 } as const;

/**
 * Tokenizes documents, one after the other, and writes all but their end to `folder/train.bin` and the end, some windows
 * of `context` tokens, to `folder/held-out.bin`.
 *
 * @throws {UserError} if an input cannot be read, or they have too few tokens for two windows
 */
export async function holdOut(
  inputs: readonly string[],
  folder: string,
  tokenizer: Tokenizer,
  { context, note }: { readonly context: number; readonly note?: (line: string) => void },
): Promise<HeldOut> {
  const ids = joined(
    await Array.fromAsync(encodeDocuments(inputs, tokenizer, { bos: true, eos: true }, note)),
  );
  if (ids.length <= 2 * context) {
    throw new UserError(
      `The documents have ${formatCount(ids.length)} tokens, but a context of ${
        formatCount(context)
      } needs twice as many: ` +
        "one window to learn from, one to measure on. Take more documents, or a shorter context",
      { kind: "usage" },
    );
  }
  const windows = Math.floor(HELD_OUT.share * ids.length / context);
  // The last token of the last window has a target, too.
  const held = context * Math.min(HELD_OUT.mostWindows, Math.max(1, windows)) + 1;
  const files = { train: `${folder}/train.bin`, heldOut: `${folder}/held-out.bin` };
  await Deno.mkdir(folder, { recursive: true });
  const dtype = smallestDtype(tokenizer);
  const parts = [[files.train, ids.subarray(0, -held)], [files.heldOut, ids.subarray(-held)]] as const;
  for (const [path, part] of parts) {
    await using writer = await TokenWriter.create(path, dtype);
    await writer.write(part);
    await writer.finish();
  }
  return { ...files, trainTokens: ids.length - held, heldOutTokens: held };
}

/**
 * The ids of each document of text, in any form that {@linkcode tokenizeFiles} reads.
 * @throws {UserError} as {@linkcode readTokens}
 */
export async function* readDocumentTokens(
  path: string,
  tokenizer: Tokenizer,
  { bos, eos, vocabSize, note }: EncodeOptions & {
    readonly vocabSize: number;
    readonly note?: ((line: string) => void) | undefined;
  },
): AsyncGenerator<ArrayLike<number>> {
  let tokens = 0;
  for await (const ids of encodeDocuments([path], tokenizer, { bos, eos }, note)) {
    tokens += ids.length;
    const unknown = Array.prototype.find.call(ids, (id: number) => id >= vocabSize);
    if (unknown !== undefined) {
      throw new UserError(
        `Cannot use "${path}": the tokenizer gives it token id ${unknown}, but the model has ${vocabSize} tokens. ` +
          `The tokenizer is not this model's: copy the one it was trained with`,
      );
    }
    yield ids;
  }
  if (tokens === 0) throw new UserError(`Cannot use "${path}": it has no text`);
}

/** The ids of each document, on all cores. */
async function* encodeDocuments(
  inputs: readonly string[],
  tokenizer: Tokenizer,
  frame: EncodeOptions,
  note: (line: string) => void = () => {},
): AsyncGenerator<ArrayLike<number>> {
  const unknown = new UnknownTokens(tokenizer);
  for await (const { ids } of encodeRows(readDocuments(inputs, note), tokenizer, { frame })) {
    unknown.add(ids);
    yield ids;
  }
  const line = unknown.describe(inputs.map((path) => `"${path}"`).join(", "));
  if (line !== undefined) note(line);
}

function isFolder(path: string): Promise<boolean> {
  return Deno.stat(path).then((info) => info.isDirectory, () => false);
}

async function* readDocuments(
  paths: readonly string[],
  note: (line: string) => void,
): AsyncGenerator<PlacedRow> {
  for (const path of paths) {
    if (/\.[^./]+$/.test(path) && kindOf(path) === undefined && !await isFolder(path)) {
      refuseForeign(path);
      yield { where: path, row: { kind: "text", text: await readText(path) } };
      continue;
    }
    const unused = new UnusedKeys();
    for await (const placed of readRows(path, { unused })) {
      if (placed.row.kind !== "text") {
        throw new UserError(`Cannot use ${placed.where}: only rows with "text" can be tokenized`);
      }
      yield placed;
    }
    const line = unused.describe(path);
    if (line !== undefined) note(line);
  }
}
