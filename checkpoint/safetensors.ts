import { fetchAgain } from "./fetch_again.ts";
import { formatBytes, quote } from "../text.ts";
import { UserError } from "../errors.ts";
import { type Dtype, DTYPE_BYTES } from "./dtype.ts";
import {
  type Bytes,
  diskFiles,
  fileError,
  type FileHandle,
  type Files,
  RangeFile,
  writeAll,
} from "./files.ts";
import { HEADER_LIMITS, parseHeader, type SafetensorsHeader, type TensorSpan } from "./safetensors_header.ts";

/** An open safetensors file whose header was checked; tensors are read one by one, by ranges. */
export class SafetensorsFile {
  private constructor(
    readonly path: string,
    readonly header: SafetensorsHeader,
    readonly dataStart: number,
    readonly file: RangeFile,
  ) {}

  /** Throws a {@linkcode UserError} naming the file and the broken rule; reads nothing but the header. */
  static async open(path: string, files: Files = diskFiles): Promise<SafetensorsFile> {
    const file = await RangeFile.open(path, files);
    try {
      const headerLength = await readHeaderLength(file);
      const dataStart = 8 + headerLength;
      const header = parseHeader(await file.read(8, headerLength), file.size - dataStart, path);
      return new SafetensorsFile(path, header, dataStart, file);
    } catch (error) {
      file.close();
      throw error;
    }
  }

  get tensors(): ReadonlyMap<string, TensorSpan> {
    return this.header.tensors;
  }

  /** Reads a tensor of this file. */
  read(span: TensorSpan): Promise<Bytes> {
    return this.file.read(this.dataStart + span.begin, span.end - span.begin);
  }

  /** Fills `into` with the bytes of a tensor of this file from byte `from` on. */
  readInto(span: TensorSpan, from: number, into: Uint8Array): Promise<void> {
    return this.file.readInto(this.dataStart + span.begin + from, into);
  }

  close(): void {
    this.file.close();
  }
}

async function readHeaderLength(file: RangeFile): Promise<number> {
  if (file.size < 8) {
    throw new UserError(
      `Cannot load "${file.path}": it has only ${file.size} bytes. ${fetchAgain(file.path)}`,
    );
  }
  // A u64: compared before it becomes a number, which could not hold it.
  const length = new DataView((await file.read(0, 8)).buffer).getBigUint64(0, true);
  if (length > BigInt(HEADER_LIMITS.headerBytes)) {
    throw new UserError(
      `Cannot load "${file.path}": its header would be ${length} bytes long, at most ${HEADER_LIMITS.headerBytes} ` +
        `are allowed. It is probably no safetensors file`,
    );
  }
  if (length > BigInt(file.size - 8)) {
    throw new UserError(
      `Cannot load "${file.path}": its header would be ${length} bytes long, but only ${
        file.size - 8
      } bytes follow. ` +
        fetchAgain(file.path),
    );
  }
  return Number(length);
}

/** A tensor to be written: what the header says of it, and its bytes on demand, whole or in pieces. */
export interface TensorSource {
  /** As the header has it. */
  readonly name: string;
  /** Type of its elements. */
  readonly dtype: Dtype;
  /** Axes, the outermost first. */
  readonly shape: readonly number[];
  /** Bytes of which its length is a multiple, so that it may stand among wider types; its type's unless given. */
  readonly unit?: number;
  /** Its bytes, row-major; called once. */
  read(): Promise<Uint8Array> | AsyncIterable<Uint8Array>;
}

/** Bytes that a tensor of this type and shape takes. */
export function tensorByteLength(dtype: Dtype, shape: readonly number[]): number {
  return shape.reduce((count, size) => count * size, 1) * DTYPE_BYTES[dtype];
}

/**
 * The header's bytes, length included, padded with spaces so that the data starts at a multiple of 8.
 * `sources` come in the order of their data.
 */
function encodeHeader(sources: readonly TensorSource[], metadata: Readonly<Record<string, string>>): Bytes {
  const members = [`"__metadata__":${JSON.stringify(metadata)}`];
  const names = new Set(["__metadata__"]);
  let begin = 0;
  for (const { name, dtype, shape } of sources) {
    if (names.has(name)) throw new RangeError(`Cannot write tensor ${quote(name)}: the name is taken`);
    names.add(name);
    const end = begin + tensorByteLength(dtype, shape);
    members.push(`${JSON.stringify(name)}:${JSON.stringify({ dtype, shape, data_offsets: [begin, end] })}`);
    begin = end;
  }
  const text = new TextEncoder().encode(`{${members.join(",")}}`);
  const bytes = new Uint8Array(8 + Math.ceil(text.length / 8) * 8).fill(0x20);
  new DataView(bytes.buffer).setBigUint64(0, BigInt(bytes.length - 8), true);
  bytes.set(text, 8);
  return bytes;
}

async function writeTensor(file: FileHandle, source: TensorSource): Promise<void> {
  const expected = tensorByteLength(source.dtype, source.shape);
  const data = source.read();
  let written = 0;
  for await (const piece of data instanceof Promise ? [await data] : data) {
    await writeAll(file, piece);
    written += piece.length;
  }
  if (written !== expected) {
    throw new RangeError(
      `Cannot write tensor ${quote(source.name)}: its shape takes ${expected} bytes, it gave ${written}`,
    );
  }
}

/**
 * Writes a safetensors file, one tensor or piece of a tensor in memory at a time, and syncs it to the disk.
 * Wider types (and units) come first, so that every tensor starts aligned; otherwise the order of `entries` is kept.
 * An existing file is overwritten; after a failure nothing is left. Throws a {@linkcode UserError} naming the bytes
 * needed where the disk is full or cannot be written to.
 */
export async function writeSafetensors(
  path: string,
  entries: Iterable<TensorSource>,
  metadata: Readonly<Record<string, string>> = { format: "pt" },
  { files = diskFiles }: { files?: Files } = {},
): Promise<void> {
  const unitOf = ({ unit, dtype }: TensorSource): number => unit ?? DTYPE_BYTES[dtype];
  const sources = [...entries].sort((a, b) => unitOf(b) - unitOf(a));
  const header = encodeHeader(sources, metadata);
  const total = sources.reduce(
    (sum, { dtype, shape }) => sum + tensorByteLength(dtype, shape),
    header.length,
  );
  let opened = false;
  try {
    const file = await files.open(path, "replace");
    opened = true;
    try {
      await writeAll(file, header);
      for (const source of sources) await writeTensor(file, source);
      await file.sync();
    } finally {
      file.close();
    }
  } catch (error) {
    if (opened) await files.remove(path).catch(() => {});
    throw fileError(
      error,
      `Cannot write "${path}" (needs ${formatBytes(total)})`,
      "Free some space or choose another folder",
    );
  }
}
