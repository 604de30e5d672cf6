import { assertEquals } from "./assert_close.ts";

/** What an event file holds, as told by a reader that shares nothing with the writer. */
export interface ReadEvent {
  wallTime?: number;
  step?: bigint;
  version?: string;
  values?: Record<string, number>;
  starts?: boolean;
}

/** CRC-32C bit by bit. */
function slowCrc(bytes: Uint8Array): bigint {
  let rest = 0xffffffffn;
  for (const byte of bytes) {
    rest ^= BigInt(byte);
    for (let bit = 0; bit < 8; bit++) rest = (rest >> 1n) ^ ((rest & 1n) * 0x82f63b78n);
  }
  return rest ^ 0xffffffffn;
}

function unmask(stored: number): bigint {
  const rotated = (BigInt(stored) - 0xa282ead8n) & 0xffffffffn;
  return ((rotated >> 17n) | (rotated << 15n)) & 0xffffffffn;
}

function* records(file: Uint8Array<ArrayBuffer>): Generator<Uint8Array<ArrayBuffer>> {
  const view = new DataView(file.buffer);
  for (let at = 0; at < file.length;) {
    const length = Number(view.getBigUint64(at, true));
    const [head, data] = [file.subarray(at, at + 8), file.slice(at + 12, at + 12 + length)];
    assertEquals(
      unmask(view.getUint32(at + 8, true)).toString(),
      slowCrc(head).toString(),
      "check of length",
    );
    assertEquals(
      unmask(view.getUint32(at + 12 + length, true)).toString(),
      slowCrc(data).toString(),
      "check of data",
    );
    yield data;
    at += 16 + length;
  }
}

/** Fields of a message: number, wire type, and value as it is stored. */
function* fields(
  bytes: Uint8Array<ArrayBuffer>,
): Generator<[number, number, bigint | Uint8Array<ArrayBuffer>]> {
  let at = 0;
  const varint = () => {
    let value = 0n;
    for (let shift = 0n;; shift += 7n) {
      const byte = bytes[at++]!;
      value |= BigInt(byte & 127) << shift;
      if (byte < 128) return value;
    }
  };
  while (at < bytes.length) {
    const key = Number(varint());
    const wire = key & 7;
    if (wire === 0) yield [key >> 3, wire, varint()];
    else {
      const size = wire === 2 ? Number(varint()) : wire === 1 ? 8 : 4;
      yield [key >> 3, wire, bytes.slice(at, at += size)];
    }
  }
}

function parseEvent(data: Uint8Array<ArrayBuffer>): ReadEvent {
  const event: ReadEvent = {};
  for (const [field, , value] of fields(data)) {
    const bytes = value as Uint8Array<ArrayBuffer>;
    if (field === 1) event.wallTime = new DataView(bytes.buffer).getFloat64(0, true);
    else if (field === 2) event.step = value as bigint;
    else if (field === 3) event.version = new TextDecoder().decode(bytes);
    else if (field === 7) event.starts = [...fields(bytes)][0]![2] === 1n;
    else if (field === 5) {
      event.values ??= {};
      for (const [, , one] of fields(bytes)) {
        const parts = new Map([...fields(one as Uint8Array<ArrayBuffer>)].map(([n, , v]) => [n, v]));
        const number = parts.get(2) as Uint8Array<ArrayBuffer>;
        event.values[new TextDecoder().decode(parts.get(1) as Uint8Array<ArrayBuffer>)] = new DataView(
          number.buffer,
        ).getFloat32(0, true);
      }
    }
  }
  return event;
}

/** Events of every file in a folder, in the order of their names. */
export async function readEvents(folder: string): Promise<ReadEvent[][]> {
  const names = (await Array.fromAsync(Deno.readDir(folder))).map(({ name }) => name).sort();
  return await Promise.all(
    names.map(async (name) => [...records(await Deno.readFile(`${folder}/${name}`))].map(parseEvent)),
  );
}
