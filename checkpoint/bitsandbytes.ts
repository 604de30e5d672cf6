import { fetchAgain } from "./fetch_again.ts";
import { quote } from "../text.ts";
import { UserError } from "../errors.ts";
import { assertFinite, toF32 } from "./dtype.ts";
import type { WeightReader } from "./weights.ts";

/**
 * The tensors that turn codes into weights, for a linear (N outputs, K inputs) that bitsandbytes quantised to NF4. The codes
 * themselves are the tensor of the weight's name: ceil(N * K / 2) bytes, row-major, with element 2i in the high nibble
 * of byte i and element 2i + 1 in the low one.
 */
export interface Bnb4Weight {
  /** [N, K] of the original weight. */
  readonly shape: readonly [number, number];
  /** One per block: an index into `nestedCode` if quantised, else the largest magnitude itself. */
  readonly absmax: Uint8Array | Float32Array;
  /** Largest magnitude of each `nestedBlockSize` blocks; undefined without double quantisation. */
  readonly nestedAbsmax: Float32Array | undefined;
  /** The 256 values of the 8-bit map; undefined without double quantisation. */
  readonly nestedCode: Float32Array | undefined;
  /** The mean that was taken off before the second quantisation: absmax = code * nestedAbsmax + offset. */
  readonly nestedOffset: number;
  /** Elements per block. */
  readonly blockSize: number;
  /** Blocks per value of `nestedAbsmax`. */
  readonly nestedBlockSize: number;
  /** The 16 values of the 4-bit codes. */
  readonly quantMap: Float32Array;
}

const STATE = "quant_state.bitsandbytes__";
const STATE_LIMIT = 4096;

/**
 * Is this weight stored as NF4 by bitsandbytes? Throws a {@linkcode UserError} for its other forms (FP4, 8-bit).
 */
export function isBnb4(reader: WeightReader, weightName: string): boolean {
  if (reader.has(`${weightName}.${STATE}nf4`)) return true;
  if (reader.has(`${weightName}.${STATE}fp4`)) return refuse(weightName, "FP4");
  if (reader.has(weightName.replace(/\.weight$/, ".SCB"))) return refuse(weightName, "8-bit");
  return false;
}

function refuse(weightName: string, kind: string): never {
  throw new UserError(
    `Cannot load ${quote(weightName)}: it is quantised as ${kind} by bitsandbytes, only NF4 can be read. ` +
      `Use the model in BF16 or F16: it is quantised while loading`,
  );
}

interface QuantState {
  readonly shape: readonly [number, number];
  readonly blockSize: number;
  readonly nested: { readonly blockSize: number; readonly offset: number } | undefined;
}

type Fail = (reason: string) => never;

function isBlockSize(value: unknown): value is number {
  return typeof value === "number" && Number.isInteger(Math.log2(value)) && value >= 32 && value <= 4096;
}

function parseState(bytes: Uint8Array, weightName: string, fail: Fail): QuantState {
  let state: Record<string, unknown>;
  try {
    state = JSON.parse(new TextDecoder("utf-8", { fatal: true }).decode(bytes));
  } catch {
    return fail("its quantisation state is not JSON");
  }
  const { quant_type, blocksize, shape, nested_blocksize, nested_dtype, nested_offset } = state ?? {};
  if (quant_type !== "nf4") refuse(weightName, quote(quant_type));
  if (!isBlockSize(blocksize)) return fail(`its block size is ${quote(blocksize)}`);
  const sizes = Array.isArray(shape) ? shape : [];
  if (sizes.length !== 2 || !sizes.every((size) => Number.isSafeInteger(size) && size > 0)) {
    return fail(`its shape is ${quote(shape)}, not two whole numbers`);
  }
  const base = { shape: [sizes[0], sizes[1]] as const, blockSize: blocksize };
  if (nested_blocksize === undefined) return { ...base, nested: undefined };
  const isOffset = typeof nested_offset === "number" && Number.isFinite(nested_offset);
  if (!isBlockSize(nested_blocksize) || !isOffset || nested_dtype !== "float32") {
    return fail("its second quantisation is not as bitsandbytes writes it");
  }
  return { ...base, nested: { blockSize: nested_blocksize, offset: nested_offset } };
}

/**
 * Reads all but the codes of one quantised linear, such as "model.layers.0.self_attn.q_proj.weight". Throws a
 * {@linkcode UserError} naming the tensor if parts are missing, of another size than the state says, or of
 * another kind than NF4. Layout: bitsandbytes `QuantState.as_dict`, version 0.43 and later.
 */
export async function readBnb4(reader: WeightReader, weightName: string): Promise<Bnb4Weight> {
  const fail: Fail = (reason) => {
    throw new UserError(
      `Cannot load ${quote(weightName)}: ${reason}. The checkpoint is damaged. ${fetchAgain("")}`,
    );
  };
  if (!isBnb4(reader, weightName)) fail("it has no NF4 quantisation state");
  const stateName = `${weightName}.${STATE}nf4`;
  if (reader.info(stateName).byteLength > STATE_LIMIT) fail("its quantisation state is too long");
  const state = parseState(await reader.read(stateName), weightName, fail);

  const requireSize = (name: string, wanted: number): void => {
    const { byteLength } = reader.info(name);
    if (byteLength !== wanted) fail(`${quote(name)} has ${byteLength} bytes, its state needs ${wanted}`);
  };
  const sized = async (name: string, length: number, dtypeBytes: number): Promise<Uint8Array> => {
    requireSize(name, length * dtypeBytes);
    return await reader.read(name);
  };
  const floats = async (name: string, length: number): Promise<Float32Array> => {
    const values = toF32(await sized(name, length, 4), "F32");
    assertFinite(name, values);
    return values;
  };

  const count = state.shape[0] * state.shape[1];
  const blocks = Math.ceil(count / state.blockSize);
  const { nested } = state;
  requireSize(weightName, Math.ceil(count / 2));
  return {
    shape: state.shape,
    blockSize: state.blockSize,
    quantMap: await floats(`${weightName}.quant_map`, 16),
    absmax: nested
      ? await sized(`${weightName}.absmax`, blocks, 1)
      : await floats(`${weightName}.absmax`, blocks),
    nestedAbsmax: nested &&
      await floats(`${weightName}.nested_absmax`, Math.ceil(blocks / nested.blockSize)),
    nestedCode: nested && await floats(`${weightName}.nested_quant_map`, 256),
    nestedOffset: nested?.offset ?? 0,
    nestedBlockSize: nested?.blockSize ?? 256,
  };
}
