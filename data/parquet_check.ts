/**
 * Checks a parquet file's own figures against its bytes, before `hyparquet` builds anything by them: counts of values,
 * sizes of pages, runs of levels. A file of a kilobyte can claim billions of each.
 */
import type { ColumnMetaData, FileMetaData, PageHeader, RowGroup, SchemaTree } from "hyparquet";
import { parquetSchema, snappyUncompress } from "hyparquet";
import { parquetHeader } from "hyparquet/src/column.js";
import { PARQUET_CODECS } from "./compression.ts";

/** Decompressors by parquet's names. */
export const CODECS = {
  ...PARQUET_CODECS,
  SNAPPY: (input: Uint8Array, size: number): Uint8Array => {
    checkSnappy(input);
    const output = new Uint8Array(size);
    snappyUncompress(input, output);
    return output;
  },
};

/**
 * Walks the elements of a snappy block: the library takes a literal of 2 GiB and more for one of negative length, and
 * goes back.
 * @throws RangeError if they do not end where the block ends
 */
function checkSnappy(block: Uint8Array): void {
  let at = 0;
  while (block[at++]! & 0x80);
  while (at < block.length) {
    const tag = block[at++]!;
    let length = (tag >> 2) + 1;
    if ((tag & 3) !== 0) {
      // A copy: only where it is from follows.
      at += [0, 1, 2, 4][tag & 3]!;
      continue;
    }
    if (length > 60) {
      const bytes = block.subarray(at, at + length - 60);
      length = 1 + bytes.reduceRight((value, byte) => 256 * value + byte, 0);
      at += bytes.length;
    }
    at += length;
  }
  if (at !== block.length) throw new RangeError("a page is damaged: its snappy block ends elsewhere");
}

/** Elements of a schema, and how deep it nests. */
const MOST_ELEMENTS = 10_000;
const DEEPEST = 64;
/** Values of a column in a row group: so many in any case, and some for each of its bytes. */
const MOST_VALUES = 2 ** 21;
const VALUES_PER_BYTE = 2;
/** Bytes that a row group unpacks to: so many in any case, and some for each of its bytes. */
const MOST_UNPACKED = 2 ** 27;
const UNPACKED_PER_BYTE = 64;
/** Bytes of a row group in the file. */
const LARGEST_GROUP = 2 ** 31;
/** Values by which writers fill up the last run. */
const FILLED_UP = 512;

/** Bytes of a page's header, its statistics included, and of a number in the metadata, whose square its reader takes. */
const LONGEST_HEADER = 2 ** 16;
const LONGEST_NUMBER = 2 ** 15;

/** Byte ranges of a row group's columns. */
export interface GroupRange {
  readonly start: number;
  readonly end: number;
}

/**
 * Numbers are written 7 bits a byte, with the eighth set while there is more; texts have such bytes, too, but not so many
 * in a row.
 * @throws RangeError if metadata has a number that does not end
 */
export function checkNumbers(metadata: Uint8Array): void {
  let length = 0;
  for (const byte of metadata) {
    length = byte & 0x80 ? length + 1 : 0;
    if (length > LONGEST_NUMBER) throw new RangeError("its metadata is damaged: a number in it does not end");
  }
}

/** @throws RangeError if the schema is larger or deeper than any table's */
export function checkSchema({ schema }: Pick<FileMetaData, "schema">): void {
  if (schema.length > MOST_ELEMENTS) {
    throw new RangeError(`its schema has more than ${MOST_ELEMENTS} elements`);
  }
  const open: number[] = [];
  for (const { num_children: children = 0 } of schema) {
    while (open.length > 0 && open.at(-1) === 0) open.pop();
    if (open.length > 0) open[open.length - 1]!--;
    open.push(children);
    if (open.length > DEEPEST) throw new RangeError(`its schema nests more than ${DEEPEST} deep`);
  }
}

/**
 * The bytes that a row group's columns are in.
 * @throws RangeError if they are not in the file, or the group claims more rows than it has values
 */
export function rangeOfGroup({ columns, num_rows }: RowGroup, fileSize: number): GroupRange {
  const metas = columns.map(({ meta_data }) => meta_data);
  if (metas.length === 0) throw new RangeError("a row group has no columns");
  let [start, end] = [Infinity, 0];
  for (const meta of metas) {
    if (!meta) throw new RangeError("a column has no metadata; it may be in another file, or encrypted");
    const range = rangeOfColumn(meta);
    if (!(range.start >= 4 && range.end > range.start && range.end <= fileSize)) {
      throw new RangeError(
        `column "${meta.path_in_schema.join(".")}" is not within the file. It may be cut short`,
      );
    }
    [start, end] = [Math.min(start, range.start), Math.max(end, range.end)];
    const [values, most] = [
      Number(meta.num_values),
      MOST_VALUES + VALUES_PER_BYTE * (range.end - range.start),
    ];
    if (!(values >= 0 && values <= most)) {
      throw tooMany(`column "${meta.path_in_schema.join(".")}"`, values, most);
    }
    if (Number(num_rows) > values) {
      throw new RangeError(`a row group claims ${num_rows} rows, a column of it ${values}`);
    }
  }
  if (end - start > LARGEST_GROUP) {
    throw new RangeError(
      `a row group has ${end - start} bytes, more than ${LARGEST_GROUP}. Write smaller row groups`,
    );
  }
  return { start, end };
}

function rangeOfColumn(meta: ColumnMetaData): GroupRange {
  const start = Number(meta.dictionary_page_offset || meta.data_page_offset);
  return { start, end: start + Number(meta.total_compressed_size) };
}

/**
 * Walks the pages of a row group.
 * @param bytes of its range, which begins at `start` of the file
 * @throws RangeError if a page is larger, or has more values, than its bytes can hold or its column has
 */
export function checkGroup(
  metadata: FileMetaData,
  { columns }: RowGroup,
  bytes: Uint8Array,
  start: number,
): void {
  const tree = parquetSchema(metadata);
  let left = MOST_UNPACKED + UNPACKED_PER_BYTE * bytes.length;
  for (const { meta_data: meta } of columns) {
    const range = rangeOfColumn(meta!);
    const column = bytes.subarray(range.start - start, range.end - start);
    left = checkColumn(column, meta!, levelsOf(tree, meta!.path_in_schema), left);
  }
}

interface Levels {
  readonly repetition: number;
  readonly definition: number;
}

function levelsOf(tree: SchemaTree, path: readonly string[]): Levels {
  let [node, repetition, definition]: [SchemaTree | undefined, number, number] = [tree, 0, 0];
  for (const name of path) {
    node = node.children.find(({ element }) => element.name === name);
    if (!node) throw new RangeError(`column "${path.join(".")}" is not in its schema`);
    if (node.element.repetition_type === "REPEATED") repetition++;
    if (node.element.repetition_type !== "REQUIRED") definition++;
  }
  return { repetition, definition };
}

/** @returns how many bytes may still be unpacked */
function checkColumn(column: Uint8Array, meta: ColumnMetaData, levels: Levels, mostUnpacked: number): number {
  const mostValues = Number(meta.num_values);
  let [at, values, left] = [0, 0, mostUnpacked];
  while (at < column.length - 1 && values < mostValues) {
    const length = Math.min(column.length - at, LONGEST_HEADER);
    const reader = { view: new DataView(column.buffer, column.byteOffset + at, length), offset: 0 };
    const header = parquetHeader(reader);
    at += reader.offset;
    const size = header.compressed_page_size;
    if (!(size >= 0 && size <= column.length - at)) {
      throw new RangeError(`a page claims ${size} bytes, ${column.length - at} are there`);
    }
    left -= header.uncompressed_page_size;
    if (!(header.uncompressed_page_size >= 0 && left >= 0)) {
      throw new RangeError(
        `a page claims to unpack to ${header.uncompressed_page_size} bytes, more than its file may`,
      );
    }
    const packed = column.subarray(at, at + size);
    at += size;
    const count = header.data_page_header?.num_values ?? header.data_page_header_v2?.num_values;
    if (count === undefined) {
      const entries = header.dictionary_page_header?.num_values ?? 0;
      if (!(entries >= 0 && entries <= header.uncompressed_page_size)) {
        throw tooMany("a dictionary", entries, header.uncompressed_page_size);
      }
      continue;
    }
    if (!(count >= 0 && count <= mostValues - values)) throw tooMany("a page", count, mostValues - values);
    values += count;
    checkRunsOfPage(header, packed, meta, levels);
  }
  return left;
}

function checkRunsOfPage(header: PageHeader, packed: Uint8Array, meta: ColumnMetaData, levels: Levels): void {
  const { data_page_header: first, data_page_header_v2: second } = header;
  const size = header.uncompressed_page_size;
  if (second) {
    const repetition = second.repetition_levels_byte_length;
    const at = repetition + second.definition_levels_byte_length;
    if (!(repetition >= 0 && at >= repetition && at <= packed.length)) {
      throw new RangeError("a page has more bytes of levels than it has");
    }
    const count = second.num_values;
    if (levels.repetition) {
      checkRuns(packed.subarray(0, repetition), { width: widthOf(levels.repetition), count });
    }
    let nulls = 0;
    if (levels.definition) {
      nulls = count - checkRuns(packed.subarray(repetition, at), {
        width: widthOf(levels.definition),
        count,
        wanted: levels.definition,
      });
    }
    if (second.num_nulls !== nulls) {
      throw new RangeError(`a page claims ${second.num_nulls} nulls and has ${nulls}`);
    }
    const values = second.is_compressed === false
      ? packed.subarray(at)
      : unpack(packed.subarray(at), size - at, meta.codec);
    checkRunsOfValues(values, second.encoding, count - nulls, meta);
    return;
  }
  let bytes = unpack(packed, size, meta.codec);
  const count = first!.num_values;
  const take = (max: number) => {
    const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
    const length = view.getUint32(0, true);
    if (length > bytes.length - 4) throw new RangeError("a page has more bytes of levels than it has");
    const runs = bytes.subarray(4, 4 + length);
    bytes = bytes.subarray(4 + length);
    return checkRuns(runs, { width: widthOf(max), count, wanted: max });
  };
  if (levels.repetition) take(levels.repetition);
  const present = levels.definition ? take(levels.definition) : count;
  checkRunsOfValues(bytes, first!.encoding, present, meta);
}

/** Checks the runs of indices into a dictionary, or of booleans. */
function checkRunsOfValues(
  bytes: Uint8Array,
  encoding: string,
  count: number,
  { type }: Pick<ColumnMetaData, "type">,
): void {
  if (type === "BOOLEAN") {
    if (encoding === "RLE") checkRuns(bytes.subarray(4), { width: 1, count });
  } else if (encoding === "PLAIN_DICTIONARY" || encoding === "RLE_DICTIONARY" || encoding === "RLE") {
    if (count > 0 && bytes.length === 0) throw new RangeError("a page has no values");
    if (count > 0 && bytes[0]! > 0) checkRuns(bytes.subarray(1), { width: bytes[0]!, count });
  }
}

/**
 * Walks runs of levels or indices (repeated or packed by bits).
 * @returns how many of the values are `wanted`
 */
function checkRuns(
  bytes: Uint8Array,
  { width, count, wanted }: { readonly width: number; readonly count: number; readonly wanted?: number },
): number {
  if (width > 32) throw new RangeError(`values are ${width} bits wide`);
  let [at, seen, found] = [0, 0, 0];
  while (seen < count) {
    let header = 0;
    for (let shift = 0;; shift += 7) {
      if (at >= bytes.length || shift > 28) throw new RangeError("its runs of values end too early");
      header += (bytes[at]! & 0x7f) * 2 ** shift;
      if (!(bytes[at++]! & 0x80)) break;
    }
    const isPacked = header % 2 === 1;
    const length = Math.floor(header / 2) * (isPacked ? 8 : 1);
    if (length > count - seen + (isPacked ? FILLED_UP : 0)) throw tooMany("a run", length, count - seen);
    const size = isPacked ? Math.floor(header / 2) * width : Math.ceil(width / 8);
    if (!isPacked) {
      let value = 0;
      for (let i = 0; i < size; i++) value += (bytes[at + i] ?? 0) * 2 ** (8 * i);
      if (value === wanted) found += length;
    } else if (wanted !== undefined) {
      found += countPacked(bytes, { at, width, count: Math.min(length, count - seen), wanted });
    }
    at += size;
    seen += length;
  }
  return found;
}

/** Counts the levels equal to `wanted` in a packed run. Levels are at most 64: one spans two bytes at most. */
function countPacked(
  bytes: Uint8Array,
  { at, width, count, wanted }: {
    readonly at: number;
    readonly width: number;
    readonly count: number;
    readonly wanted: number;
  },
): number {
  let found = 0;
  const mask = 2 ** width - 1;
  for (let i = 0, bit = 0; i < count; i++, bit += width) {
    const byte = at + (bit >> 3);
    const two = (bytes[byte] ?? 0) | ((bytes[byte + 1] ?? 0) << 8);
    if (((two >> (bit & 7)) & mask) === wanted) found++;
  }
  return found;
}

function unpack(bytes: Uint8Array, size: number, codec: string): Uint8Array {
  const codecs: Readonly<Record<string, (bytes: Uint8Array, size: number) => Uint8Array>> = CODECS;
  if (codec === "UNCOMPRESSED") {
    if (bytes.length === size) return bytes;
    throw new RangeError(`a page has ${bytes.length} bytes where ${size} are told`);
  }
  const decompress = codecs[codec];
  if (!decompress) throw new RangeError(`parquet unsupported compression codec: ${codec}`);
  return decompress(bytes, size);
}

function widthOf(level: number): number {
  return 32 - Math.clz32(level);
}

function tooMany(what: string, found: number, most: number): RangeError {
  return new RangeError(`${what} claims ${found} values where ${most} can be`);
}
