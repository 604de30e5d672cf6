import { TYPICAL_LIMITS } from "../../kernels/dry_device.ts";
import { Gpu } from "../../kernels/gpu.ts";

/** A device that computes nothing and takes a given time for it. */
export interface SimulatedGpu {
  readonly gpu: Gpu;
  /** Dispatches so far. */
  readonly dispatches: number;
  /** Seconds of each dispatch from now on. */
  dispatchSeconds: number;
}

/**
 * Opens a device on which every dispatch takes the same time, one after the other, while the program goes on: only reads
 * wait, for what was dispatched before. What is read is zero, but as many bytes as it would be.
 */
export function simulateGpu(): SimulatedGpu {
  let busyUntil = 0;
  const simulated = {
    dispatches: 0,
    dispatchSeconds: 0,
    gpu: Gpu.dry({
      limits: TYPICAL_LIMITS,
      onDispatch: () => {
        simulated.dispatches++;
        busyUntil = Math.max(busyUntil, performance.now()) + 1000 * simulated.dispatchSeconds;
      },
    }),
  };
  const { gpu } = simulated;
  const readBytes = gpu.readBytes.bind(gpu);
  gpu.readBytes = async (tensors) => {
    const until = busyUntil;
    const bytes = await readBytes(tensors);
    await new Promise((resolve) => setTimeout(resolve, Math.max(0, until - performance.now())));
    return bytes;
  };
  // Its messages are sent.
  Object.defineProperty(gpu, "isDry", { value: false });
  return simulated;
}
