/**
 * Matrix units on Dawn: what kernels count on, one thing at a time, and attention on them as a whole.
 * `units.ts [--toggles NAMES] [--json FILE]`
 */
import { attentionTunables } from "../../kernels/attention/variants.ts";
import { Gpu, type GpuOptions } from "../../kernels/gpu.ts";
import { tryMatrixUnits } from "../../kernels/matrix_trials/matrix_trials.ts";
import { describeFault, type Verdict } from "../../kernels/refusal.ts";
import { matrixUnit } from "../../kernels/shared/matrix_unit.ts";
import { runTrial } from "../../kernels/trial.ts";
import { trialsOf } from "../../kernels/trials.ts";
import { terminalIo } from "../../cli/io.ts";
import { parseArgs } from "../deps.ts";

/** Result of the part, as its file has it. */
export interface UnitsResult {
  readonly kind: "units";
  readonly adapter: string;
  /** Shape of the matrices that kernels use: M x N x K on so many lanes; `null` where there are none. */
  readonly unit: string | null;
  readonly verdicts: readonly Verdict[];
}

/** Tries everything. A device that failed is no longer of use: the next trial gets another. */
export async function tryUnits(options: GpuOptions): Promise<UnitsResult> {
  let gpu = await Gpu.open(options);
  const { info } = gpu;
  const unit = matrixUnit(info);
  const adapter = info.description;
  if (!unit) {
    gpu.close();
    return { kind: "units", adapter, unit: null, verdicts: [] };
  }
  const attention = info.isSoftware
    ? []
    : trialsOf(Gpu.dry({ limits: gpu.limits, info, tuning: onMatrices(gpu) }))
      .filter(({ risks }) => risks.includes("attention by matrices") && risks.length === 1);
  const trials = attention.filter(({ kernel }) => kernel.startsWith("attention"));
  const tuning = onMatrices(gpu);
  gpu.close();
  const verdicts = await tryMatrixUnits(() => Gpu.open(options));
  gpu = await Gpu.open({ ...options, tuning });
  for (const trial of trials) {
    const verdict = await runTrial(gpu, trial);
    verdicts.push(verdict);
    if (verdict.failure === null) continue;
    gpu.close();
    gpu = await Gpu.open({ ...options, tuning });
  }
  gpu.close();
  return { kind: "units", adapter, unit: `${unit.M}x${unit.N}x${unit.K} on ${unit.lanes} lanes`, verdicts };
}

/** Attention on matrix units, whatever the device would choose. */
function onMatrices(gpu: Gpu): Record<string, string> {
  return Object.fromEntries(
    attentionTunables(gpu).flatMap(({ key, variants }) => {
      const variant = variants.find((name) => name.startsWith("matrix"));
      return variant === undefined ? [] : [[key, variant]];
    }),
  );
}

if (import.meta.main) {
  const { values } = parseArgs({
    args: Deno.args,
    options: { toggles: { type: "string" }, json: { type: "string" } },
  });
  const toggles = values.toggles?.split(",").filter(Boolean) ?? [];
  const io = terminalIo();
  const result = await tryUnits({ webgpu: "dawn", ...(toggles.length > 0 && { toggles }) });
  const wrong = result.verdicts.filter(({ ok }) => !ok);
  for (const verdict of wrong) io.out(`${verdict.kernel}: ${describeFault(verdict)}`);
  io.out(
    result.unit === null
      ? "no matrix units"
      : `matrix units of ${result.unit}: ${
        result.verdicts.length - wrong.length
      } of ${result.verdicts.length} trials right`,
  );
  if (values.json !== undefined) await Deno.writeTextFile(values.json, JSON.stringify(result));
  Deno.exit(0);
}
