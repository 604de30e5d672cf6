/** onnxruntime-web on its WebGPU provider. Only this file knows its interface. */
import type { Entrant, HostArray } from "./entrant.ts";
import { ELEMENT, type Graph, type Initializer, writeModel } from "./onnx_model.ts";

/** The part of the package that is used; its own types would make it a dependency of the whole project's type check. */
interface OnnxRuntime {
  readonly env: {
    readonly versions: { readonly web: string };
    readonly wasm: { numThreads: number };
    readonly webgpu: { readonly device: GPUDevice | Promise<GPUDevice> };
    logLevel: string;
  };
  readonly InferenceSession: {
    create(model: Uint8Array, options: object): Promise<Session>;
  };
  readonly Tensor: {
    new (type: string, data: ArrayBufferView, dims: readonly number[]): OrtTensor;
    fromGpuBuffer(buffer: GPUBuffer, options: { dataType: string; dims: readonly number[] }): OrtTensor;
  };
}

interface Session {
  run(feeds: Tensors, fetches?: Readonly<Record<string, OrtTensor | null>>): Promise<Tensors>;
  release(): Promise<void>;
}

type Tensors = Readonly<Record<string, OrtTensor>>;

interface OrtTensor {
  getData(): Promise<Float32Array>;
  dispose(): void;
}

const PACKAGE: string = "onnxruntime-web/webgpu";

let loading: Promise<OnnxRuntime> | undefined;

/** The package, loaded once. */
function load(): Promise<OnnxRuntime> {
  return loading ??= import(PACKAGE).then((runtime: OnnxRuntime) => {
    runtime.env.wasm.numThreads = 1;
    runtime.env.logLevel = "error";
    return runtime;
  });
}

/**
 * A graph as an entrant: weights are its initializers, the other inputs lie in GPU buffers, and so do its outputs.
 * @param feeds f32 inputs by name
 * @param expected what the values must be, where they are not the other entrants'
 */
export async function onnxEntrant(
  graph: Graph,
  feeds: Readonly<Record<string, HostArray>>,
  expected?: () => Promise<Float32Array[]>,
): Promise<Entrant> {
  const runtime = await load();
  const session = await open(runtime, graph, "gpu-buffer");
  const device = await runtime.env.webgpu.device;
  const buffers: GPUBuffer[] = [];
  const tensors = Object.fromEntries(
    Object.entries(feeds).map(([name, { shape, data }]) => {
      const buffer = makeBuffer(device, data.byteLength);
      device.queue.writeBuffer(buffer, 0, data);
      buffers.push(buffer);
      return [name, runtime.Tensor.fromGpuBuffer(buffer, { dataType: "float32", dims: shape })];
    }),
  );
  return {
    name: nameOf(runtime),
    async run(times) {
      const results: OrtTensor[] = [];
      for (let i = 0; i < times; i++) results.push(...Object.values(await session.run(tensors)));
      await device.queue.onSubmittedWorkDone();
      for (const result of results) result.dispose();
    },
    async values() {
      const results = await session.run(tensors);
      const values: Float32Array[] = [];
      for (const { name } of graph.outputs) values.push(await results[name]!.getData());
      for (const result of Object.values(results)) result.dispose();
      return values;
    },
    ...(expected ? { expected } : {}),
    async free() {
      await session.release();
      for (const buffer of buffers) buffer.destroy();
    },
  };
}

function nameOf({ env }: OnnxRuntime): string {
  return `onnxruntime-web ${env.versions.web}`;
}

async function open(
  { InferenceSession }: OnnxRuntime,
  graph: Graph,
  preferredOutputLocation: "cpu" | "gpu-buffer",
): Promise<Session> {
  return await InferenceSession.create(writeModel(graph), {
    executionProviders: ["webgpu"],
    preferredOutputLocation,
  });
}

function makeBuffer(device: GPUDevice, size: number): GPUBuffer {
  const { STORAGE, COPY_DST, COPY_SRC } = GPUBufferUsage;
  return device.createBuffer({ size, usage: STORAGE | COPY_DST | COPY_SRC });
}

/**
 * A language model whose keys and values stay in buffers on the device, which each run reads and writes in place: the
 * graph's inputs `past...` and outputs `present...`, of (1, H, capacity, D).
 */
export class OnnxDecoder {
  /** Library and version. */
  readonly name: string;
  readonly #runtime: OnnxRuntime;
  readonly #session: Session;
  readonly #caches: { readonly past: Tensors; readonly present: Tensors };
  readonly #buffers: readonly GPUBuffer[];

  private constructor(
    runtime: OnnxRuntime,
    session: Session,
    caches: { readonly past: Tensors; readonly present: Tensors },
    buffers: readonly GPUBuffer[],
  ) {
    this.name = nameOf(runtime);
    this.#runtime = runtime;
    this.#session = session;
    this.#caches = caches;
    this.#buffers = buffers;
  }

  /** @param capacity most tokens */
  static async open(graph: Graph, capacity: number): Promise<OnnxDecoder> {
    const runtime = await load();
    const session = await open(runtime, graph, "cpu");
    const device = await runtime.env.webgpu.device;
    const buffers: GPUBuffer[] = [];
    const [past, present]: Record<string, OrtTensor>[] = [{}, {}];
    const outputs = graph.outputs.filter(({ name }) => name.startsWith("present"));
    for (
      const [i, { name, type, shape }] of graph.inputs.filter(({ name }) => name.startsWith("past")).entries()
    ) {
      const dims = shape.map((axis) => typeof axis === "number" ? axis : capacity);
      const [dataType, bytes] = type === ELEMENT.float16 ? ["float16", 2] as const : ["float32", 4] as const;
      const buffer = makeBuffer(device, bytes * dims.reduce((product, axis) => product * axis, 1));
      buffers.push(buffer);
      past![name] = runtime.Tensor.fromGpuBuffer(buffer, { dataType, dims });
      present![outputs[i]!.name] = runtime.Tensor.fromGpuBuffer(buffer, { dataType, dims });
    }
    return new OnnxDecoder(runtime, session, { past: past!, present: present! }, buffers);
  }

  /**
   * Runs tokens through the model.
   * @param before tokens that are in the cache
   * @returns logits (V) of the last
   */
  async logits(ids: readonly number[], before: number): Promise<Float32Array> {
    const { Tensor } = this.#runtime;
    const total = before + ids.length;
    const outputs = await this.#session.run({
      ...this.#caches.past,
      input_ids: new Tensor("int64", BigInt64Array.from(ids, BigInt), [1, ids.length]),
      last: new Tensor("int32", Int32Array.of(total - 1), [1]),
      total: new Tensor("int32", Int32Array.of(total), [1]),
    }, { ...this.#caches.present, logits: null });
    return await outputs.logits!.getData();
  }

  async free(): Promise<void> {
    await this.#session.release();
    for (const buffer of this.#buffers) buffer.destroy();
  }
}

/** An array as a constant of a graph, in f32 unless told otherwise. */
export function constant(
  name: string,
  { shape, data }: HostArray,
  type: typeof ELEMENT.float | typeof ELEMENT.float16 = ELEMENT.float,
): Initializer {
  return { name, type, shape, bytes: bytesOf(type === ELEMENT.float ? data : Float16Array.from(data)) };
}

/** The bytes of an array, borrowed. */
export function bytesOf(array: ArrayBufferView<ArrayBuffer>): Uint8Array {
  return new Uint8Array(array.buffer, array.byteOffset, array.byteLength);
}
