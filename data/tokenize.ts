/** Text files to one token file. */
import { UserError } from "../errors.ts";
import { type TokenDtype, TokenWriter } from "./bin.ts";
import { encodeRows } from "./encode_pool.ts";
import { readText } from "./jsonl.ts";
import { kindOf, type PlacedRow, readRows } from "./rows.ts";
import type { EncodeOptions, Tokenizer } from "./tokenizer.ts";

/** What {@linkcode tokenizeFiles} did. */
export interface TokenizeReport {
  readonly documents: number;
  readonly tokens: number;
  readonly dtype: TokenDtype;
}

export interface TokenizeOptions extends Partial<EncodeOptions> {
  /** uint16 where every id of the vocabulary fits, unless given. */
  readonly dtype?: TokenDtype;
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
  { bos = true, eos = true, dtype, onDocument }: TokenizeOptions = {},
): Promise<TokenizeReport> {
  const stored = dtype ?? (tokenizer.vocabSize > 65536 ? "uint32" : "uint16");
  await using writer = await TokenWriter.create(output, stored);
  let documents = 0;
  for await (const { ids } of encodeRows(readDocuments(inputs), tokenizer, { frame: { bos, eos } })) {
    await writer.write(ids);
    onDocument?.(++documents, writer.tokens);
  }
  if (writer.tokens === 0) throw new UserError(`Cannot write "${output}": the input files have no text`);
  await writer.finish();
  return { documents, tokens: writer.tokens, dtype: stored };
}

async function* readDocuments(paths: readonly string[]): AsyncGenerator<PlacedRow> {
  for (const path of paths) {
    if (/\.[^./]+$/.test(path) && kindOf(path) === undefined) {
      yield { where: path, row: { kind: "text", text: await readText(path) } };
      continue;
    }
    for await (const placed of readRows(path)) {
      if (placed.row.kind !== "text") {
        throw new UserError(`Cannot use ${placed.where}: only rows with "text" can be tokenized`);
      }
      yield placed;
    }
  }
}
