/**
 * Token files: flat little-endian ids with no header, as LongLoRA and LongQLoRA use them. A sidecar `FILE.json` says how
 * wide they are, as in `{"dtype": "uint32"}`, which vocabularies above 65,536 need; else the content must tell.
 */
import { quote } from "../text.ts";
import { UserError } from "../errors.ts";
import { FILE_LIMITS, ifThere, readWhole, writeAll } from "./file_bytes.ts";
import { elsewhere, fileError } from "./file_errors.ts";
import { parseJson } from "./json.ts";
import { openToRead } from "./jsonl.ts";
import { settle, temporaryName } from "./temporary.ts";
import { type TokenDtype, tokenLayout } from "./token_layout.ts";

export type { TokenDtype };

const BYTES: Readonly<Record<TokenDtype, number>> = { uint16: 2, uint32: 4 };

/** Whether a path names ids, and no text: its ending says `.bin`. */
export function isTokenFile(path: string): boolean {
  return /\.bin$/i.test(path);
}

/**
 * Reads a whole token file, 4 bytes of memory per token.
 *
 * @param options.vocabSize if given, every id must be below it
 * @param options.dtype overrides the sidecar
 * @throws {UserError} if the file is missing or empty, its size is not a whole number of ids or not what the sidecar says,
 * an id is too large, or nothing tells how wide they are
 */
export async function readTokenBin(
  path: string,
  { vocabSize, dtype }: { readonly vocabSize?: number; readonly dtype?: TokenDtype } = {},
): Promise<Uint32Array> {
  using file = await openToRead(path);
  const size = (await file.stat()).size;
  if (size === 0) throw new UserError(`Cannot use "${path}": it has no tokens`);
  const sidecar = dtype ? undefined : await readSidecar(path);
  const told = dtype ?? sidecar?.dtype;
  const { dtype: stored, start } = told
    ? { dtype: told, start: 0 }
    : await tokenLayout(file, { path, size, vocabSize });
  const width = BYTES[stored];
  if (sidecar?.tokens !== undefined && sidecar.tokens * width !== size) {
    throw new UserError(
      `Cannot read "${path}": it has ${size} bytes, but "${
        sidecarName(path)
      }" says ${sidecar.tokens} ids of ${stored}. ` +
        "The file may be cut short, or the sidecar another file's",
    );
  }
  if (size % width !== 0) {
    throw new UserError(
      `Cannot read "${path}" as ${stored}: its ${size} bytes are not a multiple of ${width}. ` +
        `The file may be cut short, or not a token file`,
    );
  }
  const tokens = new Uint32Array((size - start) / width);
  await file.seek(start, Deno.SeekMode.Start);
  await readInto(file, tokens, stored, path);
  if (vocabSize !== undefined) checkIds(path, tokens, vocabSize, stored);
  return tokens;
}

/**
 * Writes a token file and its sidecar; neither is left half-written under its name.
 *
 * @param dtype uint16 where every id fits, unless given
 * @returns how the ids are stored
 */
export async function writeTokenBin(
  path: string,
  tokens: ArrayLike<number>,
  { dtype }: { readonly dtype?: TokenDtype } = {},
): Promise<TokenDtype> {
  const largest = Array.prototype.reduce.call(tokens, (max, id) => Math.max(max as number, id), 0) as number;
  const stored = dtype ?? (largest > 0xffff ? "uint32" : "uint16");
  await using writer = await TokenWriter.create(path, stored);
  await writer.write(tokens);
  await writer.finish();
  return stored;
}

/** Writes ids under a temporary name, which {@linkcode finish} turns into the real one. */
export class TokenWriter implements AsyncDisposable {
  tokens = 0;
  readonly #sidecarPartial: string;

  private constructor(
    readonly path: string,
    readonly dtype: TokenDtype,
    readonly file: Deno.FsFile,
    readonly partial: string,
  ) {
    this.#sidecarPartial = temporaryName(sidecarName(path));
  }

  /** @throws {UserError} if the file cannot be written, or would replace what is no token file with its sidecar */
  static async create(path: string, dtype: TokenDtype): Promise<TokenWriter> {
    await refuseOthers(path);
    const partial = temporaryName(path);
    try {
      return new TokenWriter(
        path,
        dtype,
        await Deno.open(partial, { write: true, createNew: true }),
        partial,
      );
    } catch (cause) {
      settle(partial);
      throw writeError(path, cause);
    }
  }

  async write(tokens: ArrayLike<number>): Promise<void> {
    const width = BYTES[this.dtype];
    const view = new DataView(new ArrayBuffer(tokens.length * width));
    for (let i = 0; i < tokens.length; i++) {
      const id = tokens[i]!;
      if (!(Number.isInteger(id) && id >= 0 && id < 2 ** (8 * width))) {
        throw new UserError(`Cannot write "${this.path}": token id ${id} does not fit ${this.dtype}`);
      }
      if (width === 2) view.setUint16(i * 2, id, true);
      else view.setUint32(i * 4, id, true);
    }
    const bytes = new Uint8Array(view.buffer);
    try {
      await writeAll(this.file, bytes);
    } catch (cause) {
      throw writeError(this.path, cause);
    }
    this.tokens += tokens.length;
  }

  /** Puts the file and its sidecar in place. */
  async finish(): Promise<void> {
    const sidecar = sidecarName(this.path);
    try {
      await this.file.syncData();
      await Deno.writeTextFile(
        this.#sidecarPartial,
        JSON.stringify({ dtype: this.dtype, tokens: this.tokens }) + "\n",
        { createNew: true },
      );
      await Deno.rename(this.#sidecarPartial, sidecar);
      await Deno.rename(this.partial, this.path);
    } catch (cause) {
      throw writeError(this.path, cause);
    }
  }

  /** Removes what {@linkcode finish} has not put in place. */
  async [Symbol.asyncDispose](): Promise<void> {
    this.file.close();
    for (const name of [this.partial, this.#sidecarPartial]) {
      await Deno.remove(name).catch(() => {});
      settle(name);
    }
  }
}

/** Replaces nothing but what was written here, or is empty: a text named by mistake, or weights in a `.bin`, stay. */
async function refuseOthers(path: string): Promise<void> {
  const sidecar = sidecarName(path);
  const isThere = (name: string) =>
    Deno.lstat(name).then(({ isFile, size }) => !isFile || size > 0, () => false);
  const isOwn = () => readSidecar(path).then((found) => found !== undefined, () => false);
  const found = await isThere(path) ? path : await isThere(sidecar) ? sidecar : undefined;
  if (found === undefined || await isOwn()) return;
  throw new UserError(
    `Cannot write "${path}": "${found}" is there already and was not made by tokenize. Remove it, or choose another name`,
    { kind: "usage" },
  );
}

function writeError(path: string, cause: unknown): unknown {
  return fileError(cause, `Cannot write "${path}"`, elsewhere("choose another folder"));
}

function sidecarName(path: string): string {
  return `${path}.json`;
}

async function readSidecar(path: string): Promise<{ dtype: TokenDtype; tokens?: number } | undefined> {
  const name = sidecarName(path);
  const bytes = await ifThere(readWhole(name, FILE_LIMITS.note));
  if (bytes === undefined) return undefined;
  const { dtype, tokens } = (parseJson(bytes, name) ?? {}) as { dtype?: unknown; tokens?: unknown };
  if (dtype === "uint16" || dtype === "uint32") {
    return { dtype, ...(typeof tokens === "number" && { tokens }) };
  }
  throw new UserError(
    `Cannot use "${name}": "dtype" must be "uint16" or "uint32", got ${quote(dtype)}`,
  );
}

/** Fills `tokens` from the file in chunks of 1 MiB, so that the bytes never stand in memory beside the ids. */
async function readInto(
  file: Deno.FsFile,
  tokens: Uint32Array,
  dtype: TokenDtype,
  path: string,
): Promise<void> {
  const width = BYTES[dtype];
  const chunk = new Uint8Array(1 << 20);
  const view = new DataView(chunk.buffer);
  let filled = 0;
  let carried = 0;
  while (filled < tokens.length) {
    const size = await file.read(chunk.subarray(carried));
    if (size === null) throw new UserError(`Cannot read "${path}": it became shorter while being read`);
    const available = carried + size;
    const count = Math.min(Math.floor(available / width), tokens.length - filled);
    for (let i = 0; i < count; i++) {
      tokens[filled + i] = width === 2 ? view.getUint16(i * 2, true) : view.getUint32(i * 4, true);
    }
    filled += count;
    carried = available - count * width;
    chunk.copyWithin(0, count * width, available);
  }
}

function checkIds(path: string, tokens: Uint32Array, vocabSize: number, dtype: TokenDtype): void {
  const at = tokens.findIndex((id) => id >= vocabSize);
  if (at < 0) return;
  throw new UserError(
    `Cannot use "${path}": token ${at} (byte ${at * BYTES[dtype]}) has id ${tokens[at]}, but the model has ` +
      `${vocabSize} tokens. Was the file made with another tokenizer, or is it not ${dtype}?`,
  );
}
