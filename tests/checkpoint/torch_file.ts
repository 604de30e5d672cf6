import type { Bytes } from "../../checkpoint/files.ts";

/** Builds pickles and torch.save archives byte by byte, right and wrong ones. */

function concat(pieces: readonly Uint8Array[]): Bytes {
  const out = new Uint8Array(pieces.reduce((sum, piece) => sum + piece.length, 0));
  let at = 0;
  for (const piece of pieces) {
    out.set(piece, at);
    at += piece.length;
  }
  return out;
}

function u32(value: number): Uint8Array {
  const bytes = new Uint8Array(4);
  new DataView(bytes.buffer).setUint32(0, value, true);
  return bytes;
}

/** Opcodes (numbers), raw text (strings) and bytes, in order. */
export type Code = number | string | Uint8Array | readonly Code[];

/** The bytes of a program; add the leading PROTO and the final STOP yourself where wanted. */
export function assemble(...code: Code[]): Bytes {
  return concat(code.map((part) => {
    if (typeof part === "number") return Uint8Array.of(part);
    if (typeof part === "string") return new TextEncoder().encode(part);
    return part instanceof Uint8Array ? part : assemble(...part);
  }));
}

export const PROTO: Code = [0x80, 2];
export const STOP = ".";
export const MARK = "(";

export function text(value: string): Code {
  const bytes = new TextEncoder().encode(value);
  return ["X", u32(bytes.length), bytes];
}

export function int(value: number): Code {
  return ["J", u32(value)];
}

export function global(module: string, name: string): Code {
  return `c${module}\n${name}\n`;
}

export function tuple(...items: Code[]): Code {
  return [MARK, ...items, "t"];
}

/** Calls a global with arguments. */
export function reduce(module: string, name: string, ...args: Code[]): Code {
  return [global(module, name), tuple(...args), "R"];
}

export interface TensorCode {
  readonly storage?: string;
  readonly key: string;
  readonly length: number;
  readonly offset?: number;
  readonly shape: readonly number[];
  readonly strides: readonly number[];
}

export function tensor(
  { storage = "FloatStorage", key, length, offset = 0, shape, strides }: TensorCode,
): Code {
  const id = tuple(text("storage"), global("torch", storage), text(key), text("cpu"), int(length));
  return reduce(
    "torch._utils",
    "_rebuild_tensor_v2",
    [id, "Q"],
    int(offset),
    tuple(...shape.map(int)),
    tuple(...strides.map(int)),
    0x89,
    reduce("collections", "OrderedDict"),
  );
}

/** A whole pickle of a state dict. */
export function stateDict(tensors: Readonly<Record<string, Code>>): Bytes {
  return assemble(
    PROTO,
    "}",
    MARK,
    ...Object.entries(tensors).flatMap(([key, code]) => [text(key), code]),
    "u",
    STOP,
  );
}

export interface EntrySpec {
  readonly name: string;
  readonly data: Uint8Array;
  /** What the directory claims instead of the truth. */
  readonly size?: number;
  readonly stored?: number;
  readonly local?: number;
  readonly method?: number;
  readonly flags?: number;
}

/** A zip archive of stored entries. `patch` may damage the end record before it is appended. */
export function zip(entries: readonly EntrySpec[], patch: (end: DataView) => void = () => {}): Bytes {
  const body: Uint8Array[] = [];
  const directory: Uint8Array[] = [];
  let offset = 0;
  for (const { name, data, method = 0, flags = 0, ...claims } of entries) {
    const nameBytes = new TextEncoder().encode(name);
    const local = new DataView(new ArrayBuffer(30));
    local.setUint32(0, 0x04034b50, true);
    local.setUint32(18, data.length, true);
    local.setUint32(22, data.length, true);
    local.setUint16(26, nameBytes.length, true);
    const central = new DataView(new ArrayBuffer(46));
    central.setUint32(0, 0x02014b50, true);
    central.setUint16(8, flags, true);
    central.setUint16(10, method, true);
    central.setUint32(20, claims.stored ?? data.length, true);
    central.setUint32(24, claims.size ?? data.length, true);
    central.setUint16(28, nameBytes.length, true);
    central.setUint32(42, claims.local ?? offset, true);
    body.push(new Uint8Array(local.buffer), nameBytes, data);
    directory.push(new Uint8Array(central.buffer), nameBytes);
    offset += 30 + nameBytes.length + data.length;
  }
  const directoryBytes = concat(directory);
  const end = new DataView(new ArrayBuffer(22));
  end.setUint32(0, 0x06054b50, true);
  end.setUint16(8, entries.length, true);
  end.setUint16(10, entries.length, true);
  end.setUint32(12, directoryBytes.length, true);
  end.setUint32(16, offset, true);
  patch(end);
  return concat([...body, directoryBytes, new Uint8Array(end.buffer)]);
}

/** A torch.save file: a pickle and its storages. */
export function torchFile(
  pickle: Uint8Array,
  storages: Readonly<Record<string, Uint8Array>> = {},
  more: readonly EntrySpec[] = [],
): Bytes {
  return zip([
    { name: "m/data.pkl", data: pickle },
    { name: "m/byteorder", data: new TextEncoder().encode("little") },
    ...Object.entries(storages).map(([key, data]) => ({ name: `m/data/${key}`, data })),
    ...more,
  ]);
}
