import { GpuError } from "./errors.ts";
import type { Bound } from "./tensor.ts";
import {
  assemble,
  type Interface,
  type Kernel,
  type KernelForm,
  readInterface,
  type Specialisation,
} from "./wgsl.ts";

/** A compiled specialisation of a kernel. */
export interface Pipeline {
  readonly id: number;
  readonly name: string;
  readonly interface: Interface;
  /** Names of the tensors that it binds, in the order of their bindings. */
  readonly tensors: readonly string[];
  readonly gpu: GPUComputePipeline;
  readonly layout: GPUBindGroupLayout;
}

/**
 * Most bind groups that are kept, of about 2 KB each. A step over a long sequence in chunks has more, but takes so long
 * that making them again does not show.
 */
const MOST_GROUPS = 2 ** 13;

/** Compiles each specialisation once, keeps bind groups for when they come again, and reports what fails by the kernel's name. */
export class PipelineCache {
  readonly #device: GPUDevice;
  readonly #onFailure: (error: GpuError) => void;
  readonly #onDiscard: (groups: number) => void;
  readonly #pipelines = new Map<string, Pipeline>();
  /** Those of destroyed buffers among them, which nobody asks for: they go when the map is full. */
  readonly #groups = new Map<string, GPUBindGroup>();
  #compiling: Promise<void>[] = [];

  /** @param onDiscard told how many bind groups were left to the collector */
  constructor(
    device: GPUDevice,
    onFailure: (error: GpuError) => void,
    onDiscard: (groups: number) => void,
  ) {
    this.#device = device;
    this.#onFailure = onFailure;
    this.#onDiscard = onDiscard;
  }

  /** Pipelines made so far. */
  get count(): number {
    return this.#pipelines.size;
  }

  /** Gives the pipeline of a kernel, compiled now if it has not been. */
  get(kernel: Kernel, { constants, formats }: Specialisation): Pipeline {
    const form = { kernel, constants, formats };
    const key = keyOf(form);
    let pipeline = this.#pipelines.get(key);
    if (!pipeline) {
      pipeline = this.#compile(form);
      this.#pipelines.set(key, pipeline);
    }
    return pipeline;
  }

  /**
   * Compiles kernels that are not compiled yet, side by side where the implementation has threads for it. One that fails is
   * reported by its name.
   */
  async prepare(forms: readonly KernelForm[]): Promise<void> {
    const missing = new Map(forms.map((form) => [keyOf(form), form]));
    await Promise.all([...missing].map(async ([key, form]) => {
      if (this.#pipelines.has(key)) return;
      this.#device.pushErrorScope("validation");
      const { descriptor, ...made } = this.#describe(form);
      // What is wrong with a module is wrong with its pipeline, which says so.
      const heard = this.#device.popErrorScope();
      try {
        const [gpu] = await Promise.all([this.#device.createComputePipelineAsync(descriptor), heard]);
        // Some work may have needed it meanwhile.
        if (!this.#pipelines.has(key)) this.#pipelines.set(key, { id: this.#pipelines.size, ...made, gpu });
      } catch (error) {
        this.#report(form, error as Error);
      }
    }));
  }

  /** @throws {GpuError} unless there is a tensor for every binding of the kernel, and no other */
  bindGroup(
    pipeline: Pipeline,
    bounds: Readonly<Record<string, Bound>>,
    ring: GPUBuffer,
  ): GPUBindGroup {
    let key = `${pipeline.id}:`;
    for (const name of pipeline.tensors) {
      const bound = bounds[name];
      if (!bound) throw mismatch(pipeline, bounds);
      key += `${bound.buffer.id}@${bound.offset}+${bound.size},`;
    }
    if (Object.keys(bounds).length !== pipeline.tensors.length) throw mismatch(pipeline, bounds);
    const known = this.#groups.get(key);
    if (known) return known;
    const entries = pipeline.interface.bindings.map(({ index, name, type }): GPUBindGroupEntry => {
      if (type === "uniform") {
        return { binding: index, resource: { buffer: ring, size: uniformBytes(pipeline) } };
      }
      const { buffer, offset, size } = bounds[name]!;
      return { binding: index, resource: { buffer: buffer.gpu, offset, size } };
    });
    const group = this.#device.createBindGroup({ label: pipeline.name, layout: pipeline.layout, entries });
    if (this.#groups.size >= MOST_GROUPS) {
      this.#onDiscard(this.#groups.size);
      this.#groups.clear();
    }
    this.#groups.set(key, group);
    return group;
  }

  /** Writes the fields of `struct Params` in their order at `offset`. @returns what it wrote */
  packUniforms(
    pipeline: Pipeline,
    values: Readonly<Record<string, number>>,
    into: Uint8Array,
    offset: number,
  ): Uint8Array {
    const { uniforms } = pipeline.interface;
    const view = new DataView(into.buffer, into.byteOffset + offset);
    if (Object.keys(values).length !== uniforms.length) {
      const names = uniforms.map(({ name }) => name).join(", ");
      throw new GpuError(
        `Kernel "${pipeline.name}" takes uniforms ${names}, got ${Object.keys(values).join(", ")}`,
      );
    }
    uniforms.forEach(({ name, type }, i) => {
      const value = values[name];
      if (value === undefined) throw new GpuError(`Kernel "${pipeline.name}" needs the uniform "${name}"`);
      if (type === "f32") {
        view.setFloat32(4 * i, value, true);
        return;
      }
      const [least, most] = type === "u32" ? [0, 2 ** 32 - 1] : [-(2 ** 31), 2 ** 31 - 1];
      if (!Number.isInteger(value) || value < least || value > most) {
        throw new GpuError(`Kernel "${pipeline.name}": uniform "${name}" must fit in ${type}, got ${value}`);
      }
      view.setUint32(4 * i, value >>> 0, true);
    });
    return into.subarray(offset, offset + 4 * uniforms.length);
  }

  /** Whether no compiler is to be waited for. */
  get isSettled(): boolean {
    return this.#compiling.length === 0;
  }

  /** Waits for compilers; failures have been reported when it returns. */
  async settled(): Promise<void> {
    const waiting = this.#compiling;
    this.#compiling = [];
    await Promise.all(waiting);
  }

  #compile(form: KernelForm): Pipeline {
    this.#device.pushErrorScope("validation");
    const { descriptor, ...made } = this.#describe(form);
    const gpu = this.#device.createComputePipeline(descriptor);
    this.#compiling.push(
      this.#device.popErrorScope().then((error) => {
        if (error) this.#report(form, error);
      }),
    );
    return { id: this.#pipelines.size, ...made, gpu };
  }

  #report({ kernel: { name } }: KernelForm, { message }: { readonly message: string }): void {
    this.#onFailure(new GpuError(`Kernel "${name}" does not compile: ${message}`));
  }

  /** Makes everything of a pipeline but itself. */
  #describe(
    { kernel, ...specialisation }: KernelForm,
  ): Omit<Pipeline, "id" | "gpu"> & { readonly descriptor: GPUComputePipelineDescriptor } {
    const { name } = kernel;
    const code = assemble(kernel, specialisation);
    const declared = readInterface(code);
    const device = this.#device;
    const layout = device.createBindGroupLayout({
      label: name,
      entries: declared.bindings.map(({ index, type }) => ({
        binding: index,
        visibility: GPUShaderStage.COMPUTE,
        buffer: { type, hasDynamicOffset: type === "uniform" },
      })),
    });
    const descriptor = {
      label: name,
      layout: device.createPipelineLayout({ label: name, bindGroupLayouts: [layout] }),
      compute: { module: device.createShaderModule({ label: name, code }), entryPoint: "main" },
    };
    const tensors = declared.bindings.filter(({ type }) => type !== "uniform").map(({ name }) => name);
    return { name, interface: declared, tensors, layout, descriptor };
  }
}

/**
 * What tells a pipeline from all others. Kernels put together of other pieces should have other names, for traces; the
 * lengths of the pieces keep them apart where they do not.
 */
export function keyOf({ kernel, constants, formats }: KernelForm): string {
  let lengths = kernel.wgsl.length;
  for (const { length } of kernel.libraries ?? []) lengths = Math.imul(lengths, 31) + length | 0;
  return `${kernel.name} ${lengths} ${JSON.stringify([kernel.constants, constants, formats])}`;
}

function uniformBytes(pipeline: Pipeline): number {
  return Math.ceil(pipeline.interface.uniforms.length * 4 / 16) * 16;
}

function mismatch({ name, tensors }: Pipeline, bounds: Readonly<Record<string, Bound>>): GpuError {
  return new GpuError(
    `Kernel "${name}" binds ${tensors.join(", ")}, but got ${Object.keys(bounds).join(", ")}`,
  );
}
