import { fetchAgain } from "./fetch_again.ts";
import { quote } from "../text.ts";
import { UserError } from "../errors.ts";
import { type Dtype, DTYPE_BYTES } from "./dtype.ts";
import { type Bytes, diskFiles, type Files, RangeFile } from "./files.ts";
import { Dict, PICKLE_LIMITS, StoredTensor, unpickle } from "./pickle_vm.ts";
import { readZip, type ZipEntry } from "./zip.ts";

/** A tensor of a torch.save file: a strided view of one entry of the archive. Strides are in elements. */
export interface TorchTensor {
  readonly name: string;
  readonly dtype: Dtype;
  readonly shape: readonly number[];
  readonly strides: readonly number[];
  /** Byte of the file at which element [0, ..., 0] begins. */
  readonly begin: number;
}

type Fail = (reason: string) => never;

/**
 * An open `.bin` file of torch.save (the zip form, PyTorch 1.6 and later). The pickle in it is only
 * interpreted for the tensors' names, shapes and places: nothing in it can run. Tensor bytes are read on demand.
 */
export class TorchFile {
  /** The last tensor whose elements do not lie in order, put in order. */
  #ordered: { readonly tensor: TorchTensor; readonly bytes: Bytes } | undefined;

  private constructor(
    readonly path: string,
    readonly tensors: ReadonlyMap<string, TorchTensor>,
    readonly file: RangeFile,
  ) {}

  /** Throws a {@linkcode UserError} naming the file, and where it applies the tensor or forbidden name. */
  static async open(path: string, files: Files = diskFiles): Promise<TorchFile> {
    const file = await RangeFile.open(path, files);
    try {
      return new TorchFile(path, await readStateDict(file), file);
    } catch (error) {
      file.close();
      throw error;
    }
  }

  /**
   * Fills `into` with the tensor's bytes from byte `from` of its row-major order on. A tensor stored in another order
   * is held whole until one of another name is read.
   */
  async readInto(tensor: TorchTensor, from: number, into: Uint8Array): Promise<void> {
    if (isRowMajor(tensor.shape, tensor.strides)) {
      return await this.file.readInto(tensor.begin + from, into);
    }
    if (this.#ordered?.tensor !== tensor) this.#ordered = { tensor, bytes: await this.read(tensor) };
    into.set(this.#ordered.bytes.subarray(from, from + into.length));
  }

  /** The whole tensor in row-major order. */
  read(tensor: TorchTensor): Promise<Bytes> {
    return readStrided(this.file, tensor.begin, tensor.shape, tensor.strides, DTYPE_BYTES[tensor.dtype]);
  }

  close(): void {
    this.file.close();
  }
}

async function readStateDict(file: RangeFile): Promise<ReadonlyMap<string, TorchTensor>> {
  const fail: Fail = (reason) => {
    throw new UserError(`Cannot load "${file.path}": ${reason}`);
  };
  await checkMagic(file, fail);
  const entries = await readZip(file);
  const pickles = [...entries.keys()].filter((name) => /^[^/]*\/data\.pkl$/.test(name));
  if (pickles.length !== 1) fail("it is a zip archive, but not one of torch.save with one state dict");
  const prefix = pickles[0]!.slice(0, -"data.pkl".length);
  if (entries.has(`${prefix}constants.pkl`)) fail("it is a TorchScript program, not a file of weights");
  await checkByteOrder(file, entries.get(`${prefix}byteorder`), fail);

  const pickle = entries.get(pickles[0]!)!;
  if (pickle.size > PICKLE_LIMITS.bytes) fail(`its pickle has ${pickle.size} bytes, more than weights need`);
  const top = unpickle(await file.read(pickle.begin, pickle.size), file.path);
  if (!(top instanceof Dict)) return fail("it holds no state dict, that is, no dict from names to tensors");
  const tensors = new Map<string, TorchTensor>();
  for (const [name, value] of top.entries) {
    if (typeof name !== "string" || !(value instanceof StoredTensor)) {
      return fail(
        `${
          quote(String(name))
        } in it is not a tensor. It may be a training checkpoint: extract the weights first`,
      );
    }
    tensors.set(name, place(name, value, entries.get(`${prefix}data/${value.storage.key}`), fail));
  }
  return tensors;
}

/** Tells the files that are often mistaken for this format from damaged ones. */
async function checkMagic(file: RangeFile, fail: Fail): Promise<void> {
  const magic = await file.read(0, Math.min(4, file.size));
  const text = new TextDecoder("latin1").decode(magic);
  if (text === "PK\u0003\u0004") return;
  if (magic[0] === 0x80) {
    fail(
      "it is in the form torch.save had before PyTorch 1.6. Load and save it again with a newer PyTorch, " +
        "or use a safetensors version of these weights",
    );
  }
  if (text === "vers") {
    fail("it is a Git LFS pointer, not the weights themselves. Fetch them with: git lfs pull");
  }
  fail(`it is not a file of torch.save. ${fetchAgain(file.path)}`);
}

async function checkByteOrder(file: RangeFile, entry: ZipEntry | undefined, fail: Fail): Promise<void> {
  // Files older than PyTorch 2.1 lack the entry; they were little-endian in practice.
  if (entry === undefined) return;
  const text = new TextDecoder().decode(await file.read(entry.begin, Math.min(entry.size, 16)));
  if (text !== "little") fail(`its byte order is ${quote(text)}, only "little" can be read`);
}

/** Axes longer than 1, widest stride first: the others never move. */
function movingAxes(
  shape: readonly number[],
  strides: readonly number[],
): { size: number; stride: number }[] {
  return shape
    .map((size, axis) => ({ size, stride: strides[axis]! }))
    .filter(({ size }) => size > 1)
    .sort((a, b) => b.stride - a.stride);
}

/** Elements from the first to the last that a view touches, both included; 0 for an empty tensor. */
function extent(shape: readonly number[], strides: readonly number[]): number {
  if (shape.includes(0)) return 0;
  return shape.reduce((sum, size, axis) => sum + (size - 1) * strides[axis]!, 1);
}

/**
 * Checks a tensor against its entry and finds its bytes. Views that show one element at two places are
 * refused: with a stride of 0, a small file could ask for any amount of memory.
 */
function place(name: string, tensor: StoredTensor, entry: ZipEntry | undefined, fail: Fail): TorchTensor {
  const { storage, offset, shape, strides } = tensor;
  if (entry === undefined) return fail(`the bytes of tensor ${quote(name)} are missing from it`);
  const size = DTYPE_BYTES[storage.dtype];
  if (storage.length * size !== entry.size) {
    fail(`tensor ${quote(name)} should have ${storage.length * size} bytes in store, it has ${entry.size}`);
  }
  if (!(offset + extent(shape, strides) <= storage.length)) {
    fail(`tensor ${quote(name)} of shape [${shape}] reaches past the end of its bytes`);
  }
  let reach = 1;
  for (const axis of movingAxes(shape, strides).reverse()) {
    if (axis.stride < reach) fail(`tensor ${quote(name)} has overlapping strides [${strides}]`);
    reach = axis.stride * axis.size;
  }
  return { name, dtype: storage.dtype, shape, strides, begin: entry.begin + offset * size };
}

function isRowMajor(shape: readonly number[], strides: readonly number[]): boolean {
  let expected = 1;
  for (let axis = shape.length - 1; axis >= 0; axis--) {
    if (shape[axis]! > 1 && strides[axis] !== expected) return false;
    expected *= shape[axis]!;
  }
  return true;
}

/** Reads a strided view into row-major order; `size` is bytes per element, strides are in elements. */
async function readStrided(
  file: RangeFile,
  begin: number,
  shape: readonly number[],
  strides: readonly number[],
  size: number,
): Promise<Bytes> {
  const source = await file.read(begin, extent(shape, strides) * size);
  if (source.length === 0 || isRowMajor(shape, strides)) return source;
  const count = shape.reduce((product, length) => product * length, 1);
  const out = new Uint8Array(count * size);
  const index = shape.map(() => 0);
  let from = 0;
  for (let to = 0; to < out.length; to += size) {
    for (let byte = 0; byte < size; byte++) out[to + byte] = source[from + byte]!;
    for (let axis = shape.length - 1; axis >= 0; axis--) {
      index[axis]!++;
      from += strides[axis]! * size;
      if (index[axis]! < shape[axis]!) break;
      from -= shape[axis]! * strides[axis]! * size;
      index[axis] = 0;
    }
  }
  return out;
}
