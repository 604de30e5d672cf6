/** onnxruntime-web on its WebGPU provider. Only this file knows its interface. */
import type { Entrant, HostArray } from "./entrant.ts";
import { ELEMENT, type Graph, writeModel } from "./onnx_model.ts";

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
    fromGpuBuffer(buffer: GPUBuffer, options: { dataType: string; dims: readonly number[] }): OrtTensor;
  };
}

interface Session {
  run(feeds: Readonly<Record<string, OrtTensor>>): Promise<Readonly<Record<string, OrtTensor>>>;
  release(): Promise<void>;
}

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
  const session = await runtime.InferenceSession.create(writeModel(graph), {
    executionProviders: ["webgpu"],
    preferredOutputLocation: "gpu-buffer",
  });
  const device = await runtime.env.webgpu.device;
  const buffers: GPUBuffer[] = [];
  const tensors = Object.fromEntries(
    Object.entries(feeds).map(([name, { shape, data }]) => {
      const { STORAGE, COPY_DST, COPY_SRC } = GPUBufferUsage;
      const buffer = device.createBuffer({ size: data.byteLength, usage: STORAGE | COPY_DST | COPY_SRC });
      device.queue.writeBuffer(buffer, 0, data);
      buffers.push(buffer);
      return [name, runtime.Tensor.fromGpuBuffer(buffer, { dataType: "float32", dims: shape })];
    }),
  );
  return {
    name: `onnxruntime-web ${runtime.env.versions.web}`,
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

/** An f32 array as a constant of a graph. */
export function constant(name: string, { shape, data }: HostArray) {
  return { name, type: ELEMENT.float, shape, bytes: bytesOf(data) };
}

/** The bytes of an array, borrowed. */
export function bytesOf(array: ArrayBufferView<ArrayBuffer>): Uint8Array {
  return new Uint8Array(array.buffer, array.byteOffset, array.byteLength);
}
