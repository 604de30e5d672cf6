import type { Gpu } from "../kernels/gpu.ts";

/** Commands that a device was given, and when the last came. */
export interface Commands {
  readonly submits: number;
  readonly passes: number;
  readonly dispatches: number;
  /** Buffers cleared, each of which ends a pass. */
  readonly clears: number;
  /** Milliseconds from the start to the last submit: near the end where the program is what everything waits for. */
  readonly lastSubmitMs: number;
}

/**
 * Counts the commands that are given to the device from here on.
 * @returns reads what was counted since the last time
 */
export function countCommands({ device }: Pick<Gpu, "device">): () => Commands {
  const none = { submits: 0, passes: 0, dispatches: 0, clears: 0, lastSubmitMs: 0 };
  let counts = { ...none };
  let start = performance.now();
  const createCommandEncoder = device.createCommandEncoder.bind(device);
  device.createCommandEncoder = (descriptor) => {
    const encoder = createCommandEncoder(descriptor);
    const { beginComputePass, clearBuffer, finish } = encoder;
    encoder.beginComputePass = (descriptor) => {
      counts.passes++;
      const pass = beginComputePass.call(encoder, descriptor);
      const { dispatchWorkgroups } = pass;
      pass.dispatchWorkgroups = (...grid) => {
        counts.dispatches++;
        dispatchWorkgroups.apply(pass, grid);
      };
      return pass;
    };
    encoder.clearBuffer = (...range: Parameters<GPUCommandEncoder["clearBuffer"]>) => {
      counts.clears++;
      clearBuffer.apply(encoder, range);
    };
    encoder.finish = (descriptor) => {
      counts.submits++;
      counts.lastSubmitMs = performance.now() - start;
      return finish.call(encoder, descriptor);
    };
    return encoder;
  };
  return () => {
    const counted = counts;
    counts = { ...none };
    start = performance.now();
    return counted;
  };
}
