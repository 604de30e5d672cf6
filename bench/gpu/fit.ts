/**
 * The largest of the plans that the memory goals name which this device has room for: each is planned and, if the device
 * gives all its bytes at once, counts as one that fits. `fit.ts [--json FILE]`
 */
import { formatBytes } from "../../text.ts";
import { terminalIo } from "../../cli/io.ts";
import { Gpu } from "../../kernels/gpu.ts";
import { shapeConfig } from "../../model/shapes.ts";
import { planTraining } from "../../train/plan/plan.ts";
import { planDevice } from "../../train/plan/step_cost.ts";
import { parseArgs } from "../deps.ts";
import { MEMORY_GOALS, settings } from "../memory.ts";
import { baseConfig } from "../step.ts";

/** Result of the part, as its file has it. */
export interface FitResult {
  readonly kind: "fit";
  /** Plans from the smallest, the last of which may be one that does not fit. */
  readonly plans: readonly {
    readonly shape: string;
    readonly tokens: number;
    readonly plannedBytes: number;
    readonly fits: boolean;
  }[];
}

const GIB = 2 ** 30;

/** Plans and asks for the bytes, from the smallest plan to the first that does not fit. */
export async function* findFits(gpu: Gpu): AsyncGenerator<FitResult["plans"][number]> {
  const goals = gpu.info.isSoftware ? [{ shape: "demo", tokens: 256, rank: 8, gib: 1 }] : MEMORY_GOALS;
  const device = planDevice(gpu);
  for (const { shape, tokens, rank } of goals.toSorted((a, b) => a.gib - b.gib)) {
    const config = shape === "demo" ? await baseConfig(shape) : shapeConfig(shape);
    const { peak } = await planTraining(await settings(tokens, rank), config, { device });
    const fits = await isGiven(gpu.device, peak.heldBytes);
    yield { shape, tokens, plannedBytes: peak.heldBytes, fits };
    if (!fits) return;
  }
}

/** Whether the device gives so many bytes at once, and clears them. */
async function isGiven(device: GPUDevice, bytes: number): Promise<boolean> {
  const piece = Math.min(GIB, device.limits.maxBufferSize);
  const buffers: GPUBuffer[] = [];
  let isFull = false;
  for (let left = bytes; left > 0 && !isFull; left -= piece) {
    device.pushErrorScope("out-of-memory");
    const size = Math.ceil(Math.min(piece, left) / 4) * 4;
    const buffer = device.createBuffer({ size, usage: GPUBufferUsage.STORAGE | GPUBufferUsage.COPY_DST });
    isFull = await device.popErrorScope() !== null;
    if (isFull) break;
    buffers.push(buffer);
    const encoder = device.createCommandEncoder();
    encoder.clearBuffer(buffer);
    device.queue.submit([encoder.finish()]);
  }
  const lost = device.lost.then(() => false);
  const isDone = await Promise.race([device.queue.onSubmittedWorkDone().then(() => true), lost]);
  for (const buffer of buffers) buffer.destroy();
  return isDone && !isFull;
}

if (import.meta.main) {
  const { values } = parseArgs({ args: Deno.args, options: { json: { type: "string" } } });
  const io = terminalIo();
  const gpu = await Gpu.open();
  const plans: FitResult["plans"][number][] = [];
  for await (const plan of findFits(gpu)) {
    plans.push(plan);
    io.out(
      `${plan.shape}, ${plan.tokens} tokens: ${formatBytes(plan.plannedBytes)} planned, ${
        plan.fits ? "given" : "not given"
      }`,
    );
    const result: FitResult = { kind: "fit", plans };
    if (values.json !== undefined) await Deno.writeTextFile(values.json, JSON.stringify(result));
  }
  Deno.exit(0);
}
