import { fetchAgain } from "./fetch_again.ts";
import { quote } from "../text.ts";
import { UserError } from "../errors.ts";
import { type Dtype, DTYPE_BYTES, isDtype } from "./dtype.ts";

/** Place of one tensor: `begin` and `end` are bytes after the header. */
export interface TensorSpan {
  readonly name: string;
  readonly dtype: Dtype;
  readonly shape: readonly number[];
  readonly begin: number;
  readonly end: number;
}

/** A checked header. Maps, not objects: `__proto__` and `toString` are legal tensor names. */
export interface SafetensorsHeader {
  readonly tensors: ReadonlyMap<string, TensorSpan>;
  readonly metadata: ReadonlyMap<string, string>;
}

/** Limits on what an untrusted header may ask for. The format itself allows a header of 100 MB. */
export const HEADER_LIMITS = {
  headerBytes: 25_000_000,
  tensors: 100_000,
  rank: 8,
  nameLength: 1024,
} as const;

type Fail = (rule: string) => never;

/**
 * A strict reader of the little JSON that headers use. `JSON.parse` would not do: it keeps the last of two
 * equal keys silently, and reads `1e3` and `-0` as whole numbers.
 */
class Scanner {
  #at = 0;

  constructor(readonly text: string, readonly fail: Fail) {}

  /** Reads an object; `member` must read the value of each key. */
  object(member: (key: string) => void): void {
    this.#expect("{");
    if (this.#accept("}")) return;
    const keys = new Set<string>();
    do {
      const key = this.string();
      if (keys.has(key)) this.fail(`the key ${quote(key)} occurs twice`);
      keys.add(key);
      this.#expect(":");
      member(key);
    } while (this.#accept(","));
    this.#expect("}");
  }

  /** Reads an array of at most `limit` whole numbers from 0 to 2^53 - 1. */
  integers(limit: number, what: string): number[] {
    const values: number[] = [];
    this.#expect("[");
    if (this.#accept("]")) return values;
    do {
      if (values.length === limit) this.fail(`${what} has more than ${limit} numbers`);
      values.push(this.#integer(what));
    } while (this.#accept(","));
    this.#expect("]");
    return values;
  }

  string(): string {
    this.#expect('"');
    const begin = this.#at;
    let end = begin;
    for (;; end++) {
      const code = this.text.charCodeAt(end);
      if (code === 0x22) break;
      if (code === 0x5c) end++;
      else if (!(code >= 0x20)) this.fail("the header is not JSON: a string does not end");
    }
    this.#at = end + 1;
    let value: string;
    try {
      value = JSON.parse(this.text.slice(begin - 1, end + 1));
    } catch {
      return this.fail("the header is not JSON: a string holds an unknown escape");
    }
    if (!value.isWellFormed()) this.fail("a string is not valid Unicode");
    return value;
  }

  /** Only white space may follow. */
  end(): void {
    this.#space();
    if (this.#at < this.text.length) {
      this.fail(`the header is not JSON: text follows at character ${this.#at}`);
    }
  }

  #integer(what: string): number {
    this.#space();
    const begin = this.#at;
    while (isDigit(this.text.charCodeAt(this.#at))) this.#at++;
    const digits = this.text.slice(begin, this.#at);
    const value = Number(digits);
    const next = this.text.charAt(this.#at);
    const padded = digits.length > 1 && digits[0] === "0";
    if (digits === "" || padded || next === "." || next === "e" || next === "E") {
      this.fail(`${what} must hold whole numbers of 0 and above`);
    }
    if (!Number.isSafeInteger(value)) this.fail(`${what} holds a number above 2^53 - 1`);
    return value;
  }

  #space(): void {
    for (;;) {
      const code = this.text.charCodeAt(this.#at);
      if (code !== 0x20 && code !== 0x0a && code !== 0x0d && code !== 0x09) return;
      this.#at++;
    }
  }

  #accept(mark: string): boolean {
    this.#space();
    if (this.text.charAt(this.#at) !== mark) return false;
    this.#at++;
    return true;
  }

  #expect(mark: string): void {
    if (!this.#accept(mark)) {
      this.fail(`the header is not as the format says: "${mark}" is missing at character ${this.#at}`);
    }
  }
}

function isDigit(code: number): boolean {
  return code >= 0x30 && code <= 0x39;
}

/** Number of elements; undefined when it passes 2^53 - 1. */
function elementCount(shape: readonly number[]): number | undefined {
  let count = 1;
  for (const size of shape) {
    count *= size;
    if (!Number.isSafeInteger(count)) return undefined;
  }
  return count;
}

function readSpan(scanner: Scanner, name: string, fail: Fail): TensorSpan {
  let dtype: string | undefined;
  let shape: number[] | undefined;
  let offsets: number[] | undefined;
  scanner.object((key) => {
    if (key === "dtype") dtype = scanner.string();
    else if (key === "shape") shape = scanner.integers(HEADER_LIMITS.rank, "shape");
    else if (key === "data_offsets") offsets = scanner.integers(2, "data_offsets");
    else fail(`unknown key ${quote(key)}`);
  });
  if (dtype === undefined || shape === undefined || offsets?.length !== 2) {
    return fail("it needs dtype, shape and data_offsets of two numbers");
  }
  if (!isDtype(dtype)) return fail(`unknown dtype ${quote(dtype)}`);
  const [begin, end] = offsets as [number, number];
  const count = elementCount(shape);
  const byteLength = count === undefined ? Infinity : count * DTYPE_BYTES[dtype];
  if (!Number.isSafeInteger(byteLength)) fail(`shape [${shape}] is too large`);
  if (end - begin !== byteLength) {
    fail(`shape [${shape}] of ${dtype} takes ${byteLength} bytes, but data_offsets span ${end - begin}`);
  }
  return { name, dtype, shape, begin, end };
}

/** Throws unless the tensors, in the order of their offsets, fill the data without hole or overlap. */
function checkCover(tensors: Iterable<TensorSpan>, dataLength: number, file: string, fail: Fail): void {
  const spans = [...tensors].sort((a, b) => a.begin - b.begin || a.end - b.end);
  let at = 0;
  for (const { name, begin, end } of spans) {
    if (begin < at) fail(`tensor ${quote(name)} overlaps another one at byte ${begin}`);
    if (begin > at) fail(`bytes ${at} to ${begin} before tensor ${quote(name)} belong to no tensor`);
    at = end;
  }
  if (at > dataLength) {
    fail(
      `its tensors take ${at} bytes, but only ${dataLength} follow the header. ` +
        fetchAgain(file),
    );
  }
  if (at < dataLength) fail(`${dataLength - at} bytes after the last tensor belong to no tensor`);
}

/**
 * Reads and checks the JSON of a header; `dataLength` is the number of bytes that follow it in the file.
 * Throws a {@linkcode UserError} naming file, tensor and rule for everything the format forbids: duplicate
 * keys, unknown types, sizes that overflow, offsets that overlap, leave holes or miss the end of the file.
 */
export function parseHeader(bytes: Uint8Array, dataLength: number, file: string): SafetensorsHeader {
  const fail: Fail = (rule) => {
    throw new UserError(`Cannot load "${file}": ${rule}`);
  };
  let text = "";
  try {
    text = new TextDecoder("utf-8", { fatal: true, ignoreBOM: true }).decode(bytes);
  } catch {
    fail("the header is not UTF-8 text, so this is no safetensors file");
  }
  if (!text.startsWith("{")) fail(`the header does not start with "{", so this is no safetensors file`);

  const tensors = new Map<string, TensorSpan>();
  const metadata = new Map<string, string>();
  let current = "";
  const scanner: Scanner = new Scanner(
    text,
    (rule) => fail(current && `tensor ${quote(current)}: ` + rule || rule),
  );
  scanner.object((name) => {
    if (name === "__metadata__") {
      scanner.object((key) => void metadata.set(key, scanner.string()));
      return;
    }
    if (name.length > HEADER_LIMITS.nameLength) {
      fail(`a tensor name is longer than ${HEADER_LIMITS.nameLength}`);
    }
    if (tensors.size === HEADER_LIMITS.tensors) fail(`it has more than ${HEADER_LIMITS.tensors} tensors`);
    current = name;
    tensors.set(name, readSpan(scanner, name, scanner.fail));
    current = "";
  });
  scanner.end();
  checkCover(tensors.values(), dataLength, file, fail);
  return { tensors, metadata };
}
