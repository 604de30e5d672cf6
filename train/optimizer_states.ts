import type { Gpu } from "../kernels/gpu.ts";
import type { HostTensor } from "../kernels/host.ts";
import { adamW, type AdamWOptions, type AdamWState } from "../kernels/optimizer/adamw.ts";
import {
  adamW8bit,
  adamW8bitMaps,
  asRows,
  codesShape,
  MIN_8BIT_SIZE,
  STATE_BLOCK,
} from "../kernels/optimizer/adamw_8bit.ts";
import { bytesPerElement, type Dtype, type Tensor } from "../kernels/tensor.ts";
import { rowChunks, rowsWithin } from "../kernels/shared/row_chunks.ts";
import type { Parameter } from "../model/parameter.ts";

/** Form of the optimizer states, AdamW's running means. */
export interface OptimizerStateForm {
  /** 8: in blocks of codes; small tensors keep 32 bits. */
  readonly bits: 32 | 8;
  /** Whether they wait in host memory, and stream through the device. The numbers are the same. */
  readonly paged: boolean;
  /** Bytes of a paged state that are on the device at once; {@linkcode PAGE_BYTES} unless given. */
  readonly pageBytes?: number;
}

/** Fewer would make more copies than a GPU's bus does well. */
const PAGE_BYTES = 32 * 2 ** 20;

/** Optimizer states of one parameter: AdamW's running means. */
export interface AdamStates {
  /** The tensors that a checkpoint holds, by name. */
  readonly parts: Readonly<Record<string, StateTensor>>;
  /** The parameter and its states where all are on the device in 32 bits: such are updated together. */
  readonly whole?: AdamWState | undefined;
  /** Updates the parameter and its states. @param status see `STATUS`, written by `globalNorm` */
  update(status: Tensor, options: AdamWOptions): Promise<void>;
}

/** A parameter, or the rows of one that this rank updates. */
export interface Updated extends Parameter {
  /** Numbers of the whole parameter. */
  readonly wholeSize?: number;
}

function hasCodes({ bits }: OptimizerStateForm, size: number): boolean {
  return bits === 8 && size >= MIN_8BIT_SIZE;
}

/** A tensor of states as a checkpoint holds it, whole. */
export interface StoredState {
  /** The key among {@linkcode AdamStates.parts}. */
  readonly part: string;
  readonly dtype: "F32" | "U8";
  readonly shape: readonly number[];
  /** Bytes for {@linkcode STATE_BLOCK} elements of the parameter. */
  readonly blockBytes: number;
}

/** Lists the states of a parameter as a checkpoint holds them. */
export function storedStates({ shape, size }: Tensor, form: OptimizerStateForm): StoredState[] {
  if (!hasCodes(form, size)) {
    return ["m", "v"].map((part) => ({ part, dtype: "F32", shape, blockBytes: 4 * STATE_BLOCK }));
  }
  return [
    ...["m.codes", "v.codes"].map((part) => ({ part, dtype: "U8", shape, blockBytes: STATE_BLOCK } as const)),
    { part: "absmax", dtype: "F32", shape: [Math.ceil(size / STATE_BLOCK), 2], blockBytes: 8 },
  ];
}

/** Makes the states of each parameter, zero before the first update. */
export function makeOptimizerStates(
  gpu: Gpu,
  parameters: readonly Updated[],
  form: OptimizerStateForm,
): AdamStates[] {
  const isCoded = ({ value, wholeSize = value.size }: Updated) => hasCodes(form, wholeSize);
  const maps = parameters.some(isCoded) ? adamW8bitMaps(gpu) : undefined;
  const wide = parameters.filter((parameter) => !isCoded(parameter));
  const [m, v] = (["m", "v"] as const).map((name) =>
    form.paged ? [] : gpu.zerosTogether(wide.map((parameter) => ({
      shape: asRows(parameter.value).shape,
      label: `${name} of ${parameter.name}`,
    })))
  ) as [Tensor[], Tensor[]];
  return parameters.map((parameter) => {
    if (maps && isCoded(parameter)) return new CodedStates(gpu, parameter, form, maps);
    const at = wide.indexOf(parameter);
    return new WideStates(gpu, parameter, form, { m: m[at], v: v[at] });
  });
}

/**
 * Updates parameters by their gradients: those whose states are on the device in as few dispatches as their memory allows,
 * the others one by one.
 * @param optionsOf the options for a parameter, one of a few objects
 */
export async function updateAll(
  gpu: Gpu,
  optimised: readonly { readonly name: string; readonly states: AdamStates }[],
  status: Tensor,
  optionsOf: (name: string) => AdamWOptions,
): Promise<void> {
  const together = new Map<AdamWOptions, AdamWState[]>();
  for (const { name, states } of optimised) {
    const options = optionsOf(name);
    if (states.whole) {
      if (!together.has(options)) together.set(options, []);
      together.get(options)!.push(states.whole);
      continue;
    }
    await states.update(status, options);
    await gpu.yieldToEvents();
  }
  for (const [options, states] of together) adamW(gpu, states, status, options);
}

/** States in 32 bits. */
class WideStates implements AdamStates {
  readonly parts: Readonly<Record<"m" | "v", StateTensor>>;
  readonly whole: AdamWState | undefined;
  readonly #gpu: Gpu;
  readonly #parameter: Parameter;

  /** @param device zeros for the states, unless they are paged */
  constructor(
    gpu: Gpu,
    parameter: Parameter,
    form: OptimizerStateForm,
    device: { readonly m: Tensor | undefined; readonly v: Tensor | undefined },
  ) {
    this.#gpu = gpu;
    this.#parameter = parameter;
    const [param, grad] = [asRows(parameter.value), asRows(parameter.grad)];
    const { m, v } = device;
    this.whole = m && v && { param, grad, m, v };
    const make = (name: "m" | "v") =>
      new StateTensor(gpu, {
        device: device[name],
        label: `${name} of ${parameter.name}`,
        shape: asRows(parameter.value).shape,
        dtype: "f32",
        form,
      });
    this.parts = { m: make("m"), v: make("v") };
  }

  async update(status: Tensor, options: AdamWOptions): Promise<void> {
    const [param, grad] = [asRows(this.#parameter.value), asRows(this.#parameter.grad)];
    const { m, v } = this.parts;
    for (const { start, end } of rowChunks(param.rows, m.pageRows)) {
      const page = { m: await m.take(start, end), v: await v.take(start, end) };
      const part = { param: param.slice(start, end), grad: grad.slice(start, end) };
      adamW(this.#gpu, [{ ...part, ...page }], status, options);
      await m.giveBack(page.m, start);
      await v.giveBack(page.v, start);
    }
  }
}

/** States in 8 bits, their scales always on the device. */
class CodedStates implements AdamStates {
  readonly parts: Readonly<Record<"m.codes" | "v.codes" | "absmax", StateTensor>>;
  readonly #gpu: Gpu;
  readonly #parameter: Parameter;
  readonly #maps: Tensor;

  constructor(gpu: Gpu, parameter: Parameter, form: OptimizerStateForm, maps: Tensor) {
    this.#gpu = gpu;
    this.#parameter = parameter;
    this.#maps = maps;
    const { shape, size } = parameter.value;
    const make = (name: string) =>
      new StateTensor(gpu, {
        label: `${name} of ${parameter.name}`,
        shape: codesShape(shape),
        dtype: "u32",
        form,
      });
    const scales = [Math.ceil(size / STATE_BLOCK), 2];
    this.parts = {
      "m.codes": make("m"),
      "v.codes": make("v"),
      absmax: new StateTensor(gpu, {
        label: `scales of ${parameter.name}`,
        shape: scales,
        dtype: "f32",
        form: { ...form, paged: false },
      }),
    };
  }

  async update(status: Tensor, options: AdamWOptions): Promise<void> {
    const [param, grad] = [asRows(this.#parameter.value), asRows(this.#parameter.grad)];
    const { "m.codes": m, "v.codes": v, absmax } = this.parts;
    for (const { start, end } of rowChunks(param.rows, m.pageRows)) {
      const page = { mCodes: await m.take(start, end), vCodes: await v.take(start, end) };
      const part = { param: param.slice(start, end), grad: grad.slice(start, end), absmax: absmax.device! };
      const firstBlock = start * param.width / STATE_BLOCK;
      adamW8bit(this.#gpu, { ...part, ...page }, this.#maps, status, options, { firstBlock });
      await m.giveBack(page.mCodes, start);
      await v.giveBack(page.vCodes, start);
    }
  }
}

interface StateTensorOptions {
  /** Zeros on the device; made unless given. */
  readonly device?: Tensor | undefined;
  readonly label: string;
  /** (rows, width) */
  readonly shape: readonly number[];
  readonly dtype: Dtype;
  readonly form: OptimizerStateForm;
}

/** One tensor of states, zero at first: on the device, or on the host and lent to the device by pages. */
export class StateTensor {
  /** Its place: one of the two. */
  readonly device: Tensor | undefined;
  readonly host: HostTensor | undefined;
  /** Most rows to {@linkcode take} at once. */
  readonly pageRows: number;
  readonly #gpu: Gpu;

  constructor(gpu: Gpu, { device, label, shape, dtype, form }: StateTensorOptions) {
    this.#gpu = gpu;
    this.pageRows = Infinity;
    if (!form.paged) {
      this.device = device ?? gpu.zeros(shape, dtype, label);
      return;
    }
    this.host = gpu.host.empty(shape, dtype, label);
    this.host.clear();
    this.pageRows = rowsWithin(form.pageBytes ?? PAGE_BYTES, shape[1]! * bytesPerElement(dtype));
  }

  /** Brings some rows to the device. */
  async take(start: number, end: number): Promise<Tensor> {
    if (!this.host) return this.device!.slice(start, end);
    const page = this.#newPage(end - start, this.host);
    await this.host.load(page, start);
    return page;
  }

  /** Ends what {@linkcode take} began, and keeps what is in `page` now. */
  async giveBack(page: Tensor, start: number): Promise<void> {
    if (!this.host) return;
    await this.host.store(page, start);
    page.free();
  }

  #newPage(rows: number, { shape, dtype }: HostTensor): Tensor {
    using _ = this.#gpu.memory.purpose("optimiser");
    return this.#gpu.empty([rows, shape[1]!], dtype, "page of states");
  }

  /** Replaces all its bytes. */
  async write(bytes: Uint8Array): Promise<void> {
    if (this.host) await this.host.write(bytes);
    else this.#gpu.write(this.device!, bytes);
  }
}
