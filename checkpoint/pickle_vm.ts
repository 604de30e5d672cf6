import { quote } from "../text.ts";
import { UserError } from "../errors.ts";
import type { Dtype } from "./dtype.ts";

/** Limits on what a pickle may ask for; a state dict of 100,000 tensors stays below each. */
export const PICKLE_LIMITS = {
  bytes: 64 * 2 ** 20,
  operations: 10_000_000,
  stack: 100_000,
  memo: 1_000_000,
  /** Lists, dicts, tuples: a few bytes of pickle make each, so they are what could fill the memory. */
  containers: 600_000,
  stringBytes: 2 ** 20,
  longBytes: 16,
} as const;

/** A name from the allow-list, standing for what Python would have imported. */
class Global {
  constructor(readonly name: string) {}
}

/** A Python tuple. Lists and sets are kept apart only because tuples cannot grow. */
class Tuple {
  constructor(readonly items: readonly Value[]) {}
}

class List {
  readonly items: Value[] = [];
}

/** A dict or OrderedDict. Keys of other kinds than text and numbers are refused. */
export class Dict {
  readonly entries: Map<string | number, Value> = new Map();
}

/** The bytes of a tensor: an entry of the archive with `length` elements. */
class Storage {
  constructor(readonly key: string, readonly dtype: Dtype, readonly length: number) {}
}

/** A strided view of a storage; offset and strides in elements. Not checked yet. */
export class StoredTensor {
  constructor(
    readonly storage: Storage,
    readonly offset: number,
    readonly shape: readonly number[],
    readonly strides: readonly number[],
  ) {}
}

/** Everything that can lie on the stack: a closed set of kinds, none of which can run. */
export type Value = null | boolean | number | string | Global | Tuple | List | Dict | Storage | StoredTensor;

/** Element type of each storage class of torch that weights use. */
const STORAGES: ReadonlyMap<string, Dtype> = new Map([
  ["torch.FloatStorage", "F32"],
  ["torch.HalfStorage", "F16"],
  ["torch.BFloat16Storage", "BF16"],
  ["torch.DoubleStorage", "F64"],
  ["torch.LongStorage", "I64"],
  ["torch.IntStorage", "I32"],
  ["torch.ShortStorage", "I16"],
  ["torch.CharStorage", "I8"],
  ["torch.ByteStorage", "U8"],
  ["torch.BoolStorage", "BOOL"],
]);

const DTYPE_NAMES = "float32 float16 bfloat16 float64 int64 int32 int16 int8 uint8 bool";

/** Every name that a pickle may refer to. Anything else ends the reading. */
const ALLOWED: ReadonlySet<string> = new Set([
  "collections.OrderedDict",
  "torch._utils._rebuild_tensor_v2",
  "torch._utils._rebuild_parameter",
  "torch.Size",
  ...STORAGES.keys(),
  ...DTYPE_NAMES.split(" ").map((name) => `torch.${name}`),
]);

/**
 * Reads a pickle as torch.save writes it, with an interpreter that has no way to run anything: names are
 * looked up in a fixed list, and the four callable ones build values of this file.
 * Returns the object on top. `file` is for messages only. Throws a {@linkcode UserError} for a name
 * outside the list, an unknown operation, a broken structure, or a limit passed.
 */
export function unpickle(bytes: Uint8Array, file: string): Value {
  return new Unpickler(bytes, file).run();
}

class Unpickler {
  #at = 0;
  readonly #data: DataView;
  #stack: Value[] = [];
  /** Stacks put aside by MARK, outermost first. */
  readonly #marks: Value[][] = [];
  readonly #memo = new Map<number, Value>();
  #containers = 0;

  constructor(readonly bytes: Uint8Array, readonly file: string) {
    this.#data = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  }

  run(): Value {
    if (this.bytes.length > PICKLE_LIMITS.bytes) this.#fail("it is too large");
    for (let count = 0; count < PICKLE_LIMITS.operations; count++) {
      const opcode = this.bytes[this.#take(1)]!;
      if (opcode === 0x2e) {
        const result = this.#pop();
        if (this.#stack.length > 0 || this.#marks.length > 0) this.#fail("values are left over at its end");
        return result;
      }
      this.#step(opcode);
      if (this.#stack.length > PICKLE_LIMITS.stack || this.#marks.length > PICKLE_LIMITS.stack) {
        this.#fail("it stacks too many values");
      }
    }
    return this.#fail("it has too many operations");
  }

  #fail(reason: string): never {
    throw new UserError(
      `Cannot load "${this.file}": its pickle cannot be read: ${reason}. ` +
        `Use a safetensors version of these weights`,
    );
  }

  /** Moves past `length` bytes; returns where they begin. */
  #take(length: number): number {
    const begin = this.#at;
    if (!(begin + length <= this.bytes.length)) this.#fail("it ends too early");
    this.#at += length;
    return begin;
  }

  #step(opcode: number): void {
    switch (opcode) {
      case 0x80: // PROTO
        if (this.bytes[this.#take(1)]! > 5) this.#fail("its protocol is unknown");
        return;
      case 0x95: // FRAME: a hint about sizes
        this.#take(8);
        return;
      case 0x4e: // NONE
        return this.#push(null);
      case 0x88: // NEWTRUE
        return this.#push(true);
      case 0x89: // NEWFALSE
        return this.#push(false);
      case 0x4b: // BININT1
        return this.#push(this.#data.getUint8(this.#take(1)));
      case 0x4d: // BININT2
        return this.#push(this.#data.getUint16(this.#take(2), true));
      case 0x4a: // BININT
        return this.#push(this.#data.getInt32(this.#take(4), true));
      case 0x8a: // LONG1
        return this.#push(this.#long(this.#data.getUint8(this.#take(1))));
      case 0x47: // BINFLOAT
        return this.#push(this.#data.getFloat64(this.#take(8), false));
      case 0x58: // BINUNICODE
        return this.#push(this.#text(this.#data.getUint32(this.#take(4), true)));
      case 0x8c: // SHORT_BINUNICODE
        return this.#push(this.#text(this.#data.getUint8(this.#take(1))));
      case 0x5d: // EMPTY_LIST
      case 0x8f: // EMPTY_SET
        return this.#push(new List());
      case 0x7d: // EMPTY_DICT
        return this.#push(new Dict());
      case 0x29: // EMPTY_TUPLE
        return this.#push(new Tuple([]));
      default:
        return this.#stepOnStack(opcode);
    }
  }

  /** The operations that work on what is already on the stack or in the memo. */
  #stepOnStack(opcode: number): void {
    switch (opcode) {
      case 0x28: // MARK
        this.#marks.push(this.#stack);
        this.#stack = [];
        return;
      case 0x30: // POP
        return void this.#pop();
      case 0x85: // TUPLE1
      case 0x86: // TUPLE2
      case 0x87: // TUPLE3
        return this.#pushTuple(opcode - 0x84);
      case 0x74: // TUPLE
        return this.#push(new Tuple(this.#popMark()));
      case 0x61: // APPEND
        return this.#append([this.#pop()]);
      case 0x65: // APPENDS
      case 0x90: // ADDITEMS
        return this.#append(this.#popMark());
      case 0x73: { // SETITEM
        const value = this.#pop();
        return this.#setItems([this.#pop(), value]);
      }
      case 0x75: // SETITEMS
        return this.#setItems(this.#popMark());
      case 0x71: // BINPUT
        return this.#remember(this.#data.getUint8(this.#take(1)));
      case 0x72: // LONG_BINPUT
        return this.#remember(this.#data.getUint32(this.#take(4), true));
      case 0x94: // MEMOIZE
        return this.#remember(this.#memo.size);
      case 0x68: // BINGET
        return this.#recall(this.#data.getUint8(this.#take(1)));
      case 0x6a: // LONG_BINGET
        return this.#recall(this.#data.getUint32(this.#take(4), true));
      default:
        return this.#stepOnNames(opcode);
    }
  }

  /** The operations that refer to names, call, or point into the archive: the dangerous ones elsewhere. */
  #stepOnNames(opcode: number): void {
    switch (opcode) {
      case 0x63: // GLOBAL
        return this.#pushGlobal(this.#line(), this.#line());
      case 0x93: { // STACK_GLOBAL
        const name = this.#pop();
        const module = this.#pop();
        if (typeof module !== "string" || typeof name !== "string") this.#fail("a name is not text");
        return this.#pushGlobal(module, name);
      }
      case 0x52: { // REDUCE
        const args = this.#pop();
        return this.#push(this.#call(this.#pop(), args));
      }
      case 0x62: // BUILD
        return this.#build();
      case 0x51: // BINPERSID
        return this.#push(this.#storage(this.#pop()));
      default: {
        const hex = opcode.toString(16).padStart(2, "0");
        return this.#fail(`operation 0x${hex} at byte ${this.#at - 1} is not one that weights need`);
      }
    }
  }

  #push(value: Value): void {
    const isContainer = typeof value === "object" && value !== null;
    if (isContainer && ++this.#containers > PICKLE_LIMITS.containers) this.#fail("it makes too many values");
    this.#stack.push(value);
  }

  #pop(): Value {
    const value = this.#stack.pop();
    return value === undefined ? this.#fail("it takes a value from an empty stack") : value;
  }

  #popMark(): Value[] {
    const items = this.#stack;
    this.#stack = this.#marks.pop() ?? this.#fail("it closes a mark that was never set");
    return items;
  }

  #top(): Value {
    const value = this.#stack.at(-1);
    return value === undefined ? this.#fail("it uses a value of an empty stack") : value;
  }

  #pushTuple(length: number): void {
    if (this.#stack.length < length) this.#fail("it takes a value from an empty stack");
    this.#push(new Tuple(this.#stack.splice(-length)));
  }

  #append(items: readonly Value[]): void {
    const list = this.#top();
    if (!(list instanceof List)) return this.#fail("it appends to something that is no list");
    for (const item of items) list.items.push(item);
  }

  #setItems(items: readonly Value[]): void {
    const dict = this.#top();
    if (!(dict instanceof Dict)) return this.#fail("it sets a key of something that is no dict");
    if (items.length % 2 !== 0) this.#fail("a key has no value");
    for (let i = 0; i < items.length; i += 2) {
      const [key, value] = [items[i]!, items[i + 1]!];
      if (typeof key !== "string" && typeof key !== "number") {
        return this.#fail("a key is neither text nor number");
      }
      if (dict.entries.has(key)) this.#fail(`the key ${quote(String(key))} occurs twice`);
      dict.entries.set(key, value);
    }
  }

  #remember(slot: number): void {
    if (this.#memo.size >= PICKLE_LIMITS.memo) this.#fail("it remembers too many values");
    this.#memo.set(slot, this.#top());
  }

  #recall(slot: number): void {
    const value = this.#memo.get(slot);
    if (value === undefined) return this.#fail("it recalls a value that was never remembered");
    this.#push(value);
  }

  #text(length: number): string {
    if (length > PICKLE_LIMITS.stringBytes) this.#fail("a text is too long");
    const begin = this.#take(length);
    try {
      return new TextDecoder("utf-8", { fatal: true, ignoreBOM: true }).decode(
        this.bytes.subarray(begin, begin + length),
      );
    } catch {
      return this.#fail("a text is not UTF-8");
    }
  }

  /** The text up to the next line end. */
  #line(): string {
    const end = this.bytes.indexOf(0x0a, this.#at);
    if (end < 0) this.#fail("it ends too early");
    const text = this.#text(end - this.#at);
    this.#take(1);
    return text;
  }

  /** A signed little-endian number of `length` bytes. */
  #long(length: number): number {
    if (length > PICKLE_LIMITS.longBytes) this.#fail("a number is too long");
    const begin = this.#take(length);
    let value = 0n;
    for (let i = length - 1; i >= 0; i--) value = (value << 8n) | BigInt(this.bytes[begin + i]!);
    const signed = BigInt.asIntN(length * 8, value);
    if (!Number.isSafeInteger(Number(signed))) this.#fail("a number is above 2^53 - 1");
    return Number(signed);
  }

  #pushGlobal(module: string, name: string): void {
    const full = `${module}.${name}`;
    if (!ALLOWED.has(full)) {
      throw new UserError(
        `Refused to load "${this.file}": its pickle asks for ${quote(full)}, which weights never need. ` +
          `The file may be malicious: use a safetensors version of these weights`,
      );
    }
    this.#push(new Global(full));
  }

  #call(callable: Value, args: Value): Value {
    if (!(callable instanceof Global)) return this.#fail("it calls something that is not a known name");
    if (!(args instanceof Tuple)) return this.#fail(`the arguments of ${callable.name} are no tuple`);
    switch (callable.name) {
      case "collections.OrderedDict":
        if (args.items.length > 0) this.#fail("an OrderedDict has arguments");
        return new Dict();
      case "torch.Size": {
        const [sizes] = args.items;
        return sizes instanceof Tuple ? sizes : this.#fail("the arguments of torch.Size are no tuple");
      }
      case "torch._utils._rebuild_tensor_v2":
        return this.#tensor(args.items);
      case "torch._utils._rebuild_parameter": {
        const [tensor] = args.items;
        return tensor instanceof StoredTensor ? tensor : this.#fail("a parameter holds no tensor");
      }
      default:
        return this.#fail(`it calls ${callable.name}, which is not a function of weights`);
    }
  }

  /** Python would set attributes. State dicts carry `_metadata` this way, which says nothing about values. */
  #build(): void {
    this.#pop();
    if (!(this.#top() instanceof Dict)) this.#fail("it sets attributes of something that is no dict");
  }

  #storage(id: Value): Storage {
    const [kind, type, key, , length] = id instanceof Tuple ? id.items : [];
    const dtype = type instanceof Global ? STORAGES.get(type.name) : undefined;
    if (kind !== "storage" || dtype === undefined || typeof key !== "string" || !isCount(length)) {
      return this.#fail("a storage is not described as torch.save does");
    }
    return new Storage(key, dtype, length);
  }

  #tensor([storage, offset, size, stride]: readonly Value[]): StoredTensor {
    const shape = this.#counts(size);
    const strides = this.#counts(stride);
    if (!(storage instanceof Storage) || !isCount(offset) || shape.length !== strides.length) {
      return this.#fail("a tensor is not described as torch.save does");
    }
    return new StoredTensor(storage, offset, shape, strides);
  }

  #counts(value: Value | undefined): number[] {
    const items = value instanceof Tuple ? value.items : this.#fail("a shape is no tuple");
    if (items.length > 8) this.#fail("a shape has more than 8 axes");
    return items.map((item) =>
      isCount(item) ? item : this.#fail("a shape or stride is not a whole number of 0 and above")
    );
  }
}

function isCount(value: Value | undefined): value is number {
  return typeof value === "number" && Number.isSafeInteger(value) && value >= 0;
}
