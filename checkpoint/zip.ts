import { fetchAgain } from "./fetch_again.ts";
import { quote } from "../text.ts";
import { UserError } from "../errors.ts";
import type { RangeFile } from "./files.ts";

/** Byte range of one entry in the archive; entries are stored, not compressed. */
export interface ZipEntry {
  readonly name: string;
  readonly begin: number;
  readonly size: number;
}

const MAX_ENTRIES = 10_000;
const MAX_DIRECTORY_BYTES = 16_000_000;
/** The end record may be followed by a comment of 65,535 bytes. */
const MAX_TAIL_BYTES = 22 + 65_535;

const LOCAL = 0x04034b50;
const CENTRAL = 0x02014b50;
const END = 0x06054b50;
const END64 = 0x06064b50;
const LOCATOR64 = 0x07064b50;
const FULL32 = 0xffffffff;

interface Directory {
  readonly entries: number;
  readonly size: number;
  readonly offset: number;
}

type Fail = (reason: string) => never;

function view(bytes: Uint8Array): DataView {
  return new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
}

/** A 64-bit length or offset as a number; larger than any file is as good as infinite. */
function u64(data: DataView, at: number): number {
  return Number(data.getBigUint64(at, true));
}

async function findDirectory(file: RangeFile, fail: Fail): Promise<Directory> {
  const tailLength = Math.min(file.size, MAX_TAIL_BYTES);
  const tailStart = file.size - tailLength;
  const tail = view(await file.read(tailStart, tailLength));
  let end = tailLength - 22;
  while (end >= 0 && tail.getUint32(end, true) !== END) end--;
  if (end < 0) fail(`it has no zip directory. ${fetchAgain(file.path)}`);
  const small = {
    entries: tail.getUint16(end + 10, true),
    size: tail.getUint32(end + 12, true),
    offset: tail.getUint32(end + 16, true),
  };
  const locator = end - 20;
  if (locator < 0 || tail.getUint32(locator, true) !== LOCATOR64) return small;
  const recordAt = u64(tail, locator + 8);
  if (!(recordAt + 56 <= tailStart + locator)) fail("its zip64 record is out of place");
  const record = view(await file.read(recordAt, 56));
  if (record.getUint32(0, true) !== END64) fail("its zip64 record is damaged");
  return { entries: u64(record, 32), size: u64(record, 40), offset: u64(record, 48) };
}

/** The 64-bit values that an entry keeps in its extra field, in the order size, stored size, offset. */
function widen(entry: { size: number; stored: number; local: number }, extra: DataView, fail: Fail): void {
  for (let at = 0; at + 4 <= extra.byteLength;) {
    const length = extra.getUint16(at + 2, true);
    const stop = at + 4 + length;
    if (stop > extra.byteLength) fail("the extra field of an entry is damaged");
    if (extra.getUint16(at, true) === 1) {
      let next = at + 4;
      for (const key of ["size", "stored", "local"] as const) {
        if (entry[key] !== FULL32) continue;
        if (next + 8 > stop) fail("the zip64 field of an entry is too short");
        entry[key] = u64(extra, next);
        next += 8;
      }
    }
    at = stop;
  }
}

/** Reads the local header in front of an entry's bytes, which alone says where they begin. */
async function locate(
  file: RangeFile,
  name: string,
  local: number,
  size: number,
  fail: Fail,
): Promise<ZipEntry> {
  if (!(local + 30 + size <= file.size)) fail(`entry ${quote(name)} lies past the end of the file`);
  const header = view(await file.read(local, 30));
  if (header.getUint32(0, true) !== LOCAL) {
    fail(`entry ${quote(name)} has no header where the directory says`);
  }
  const begin = local + 30 + header.getUint16(26, true) + header.getUint16(28, true);
  if (begin + size > file.size) fail(`entry ${quote(name)} lies past the end of the file`);
  return { name, begin, size };
}

/**
 * Reads the directory of a zip archive whose entries are stored without compression, as torch.save writes
 * them (zip64 included). Names are only keys here: none becomes a path. Throws a {@linkcode UserError}
 * for compressed, encrypted, duplicate or overlapping entries, so that what is read is never more than
 * the file holds.
 */
export async function readZip(file: RangeFile): Promise<ReadonlyMap<string, ZipEntry>> {
  const fail: Fail = (reason) => {
    throw new UserError(`Cannot load "${file.path}": ${reason}`);
  };
  const directory = await findDirectory(file, fail);
  if (directory.entries > MAX_ENTRIES) {
    fail(`it has ${directory.entries} entries, at most ${MAX_ENTRIES} are allowed`);
  }
  if (directory.size > MAX_DIRECTORY_BYTES) fail("its zip directory is too large");
  if (!(directory.offset + directory.size <= file.size)) {
    fail("its zip directory lies past the end of the file");
  }

  const bytes = await file.read(directory.offset, directory.size);
  const data = view(bytes);
  const entries = new Map<string, ZipEntry>();
  let at = 0;
  for (let i = 0; i < directory.entries; i++) {
    if (at + 46 > bytes.length || data.getUint32(at, true) !== CENTRAL) fail("its zip directory is damaged");
    const nameEnd = at + 46 + data.getUint16(at + 28, true);
    const extraEnd = nameEnd + data.getUint16(at + 30, true);
    const next = extraEnd + data.getUint16(at + 32, true);
    if (next > bytes.length) fail("its zip directory is damaged");
    const name = new TextDecoder().decode(bytes.subarray(at + 46, nameEnd));
    if (entries.has(name)) fail(`entry ${quote(name)} occurs twice`);
    const entry = {
      size: data.getUint32(at + 24, true),
      stored: data.getUint32(at + 20, true),
      local: data.getUint32(at + 42, true),
    };
    widen(entry, view(bytes.subarray(nameEnd, extraEnd)), fail);
    if ((data.getUint16(at + 8, true) & 1) !== 0) fail(`entry ${quote(name)} is encrypted`);
    if (data.getUint16(at + 10, true) !== 0 || entry.size !== entry.stored) {
      fail(`entry ${quote(name)} is compressed, which torch.save never does`);
    }
    entries.set(name, await locate(file, name, entry.local, entry.size, fail));
    at = next;
  }
  checkOverlap(entries.values(), fail);
  return entries;
}

function checkOverlap(entries: Iterable<ZipEntry>, fail: Fail): void {
  let end = 0;
  for (const entry of [...entries].sort((a, b) => a.begin - b.begin)) {
    if (entry.begin < end) fail(`entry ${quote(entry.name)} overlaps another one`);
    end = entry.begin + entry.size;
  }
}
