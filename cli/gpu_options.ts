/** Options with which commands open devices: on the WebGPU of their flag, tuned and traced as the process is to. */
import type { GpuOptions } from "../kernels/gpu.ts";
import type { WebGpu } from "../kernels/device.ts";
import type { Io } from "./io.ts";

/** The options of every device that a command opens. */
export function gpuOptionsOf(
  { tuning, verdicts, onRefusal, trace }: Pick<Io, "tuning" | "verdicts" | "onRefusal" | "trace">,
  webgpu: WebGpu,
): GpuOptions {
  return {
    webgpu,
    ...(tuning && { tuning }),
    ...(verdicts && { verdicts }),
    ...(onRefusal && { onRefusal }),
    ...(trace && { onTiming: (timing) => trace.add(timing) }),
  };
}
