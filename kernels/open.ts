/** Opens devices for work: kernels that depend on what drivers differ in are tried before they are trusted. */
import { type DryOptions, Gpu, type GpuInfo, type GpuOptions } from "./gpu.ts";
import type { Risk, Verdict, VerdictStore } from "./refusal.ts";
import { failedTrial, runTrial, type Trial } from "./trial.ts";
import { trialsOf } from "./trials.ts";
import type { KernelForm } from "./wgsl.ts";

/** What a device is known by before it works. */
type DryDevice = Required<Pick<DryOptions, "limits" | "info" | "tuning">>;

/**
 * Opens the adapter with all it offers, as {@linkcode Gpu.open}, but trusts no kernel unseen: those of its choices that
 * depend on subgroups or matrix units are compared with float64 on small random data, once for each adapter and version
 * of the kernels (`options.verdicts`). Where one is wrong, not a number or fails, the device does without its kind:
 * plain kernels stand in, and `options.onRefusal` is told. With `sharing` or `refused` given nothing is tried.
 * @param openTrial opens the devices that kernels are tried on; tests hand in a broken one
 * @throws {UserError} if no adapter answers, or Dawn is asked for and cannot be loaded
 * @throws {GpuError} if the adapter cannot time or share as asked
 */
export async function openGpu(
  options: GpuOptions = {},
  openTrial: (options: GpuOptions) => Promise<Gpu> = Gpu.open,
): Promise<Gpu> {
  if (options.sharing !== undefined || options.refused !== undefined) return await Gpu.open(options);
  const { webgpu = "deno", toggles = [], without = [], verdicts = IN_MEMORY, onRefusal } = options;
  return await Gpu.open({
    ...options,
    refused: async (device) => {
      const { tuning } = device;
      const found = await findVerdicts(
        trialsOf(Gpu.dry(device)),
        device,
        verdicts,
        () => openTrial({ webgpu, toggles, without, tuning }),
      );
      const refused = new Set<Risk>();
      for (const verdict of found.filter(({ ok }) => !ok)) {
        if (verdict.risks.some((risk) => !refused.has(risk))) onRefusal?.(verdict);
        for (const risk of verdict.risks) refused.add(risk);
      }
      return refused;
    },
  });
}

/** The verdicts on the trials: those that are known, and of the others new ones, which are kept. */
async function findVerdicts(
  trials: readonly Trial[],
  device: DryDevice,
  store: VerdictStore,
  open: () => Promise<Gpu>,
): Promise<readonly Verdict[]> {
  if (trials.length === 0) return [];
  const { info } = device;
  const known = new Map((await store.read(info)).map((verdict) => [verdict.kernel, verdict]));
  const unseen = trials.filter(({ kernel }) => !known.has(kernel));
  if (unseen.length > 0) {
    for (const verdict of await runTrials(unseen, device, open)) known.set(verdict.kernel, verdict);
    await store.save(info, [...known.values()]);
  }
  return trials.map(({ kernel }) => known.get(kernel)!);
}

/** Runs trials on a device of their own: one that fails is no longer of use, nor is its memory that of the work. */
async function runTrials(
  trials: readonly Trial[],
  device: DryDevice,
  open: () => Promise<Gpu>,
): Promise<Verdict[]> {
  const verdicts: Verdict[] = [];
  let gpu = await openCompiled(trials, device, open);
  for (const trial of trials) {
    try {
      gpu ??= await open();
    } catch (error) {
      // What cannot be tried is not trusted.
      verdicts.push(failedTrial(trial, error));
      continue;
    }
    const verdict = await runTrial(gpu, trial);
    verdicts.push(verdict);
    if (verdict.failure === null) continue;
    gpu.close();
    gpu = undefined;
  }
  gpu?.close();
  return verdicts;
}

/**
 * Opens a device with the kernels of the trials compiled: side by side, which on Dawn takes as long as the slowest of them.
 * `undefined` if no device opens, or one of them fails: then each trial finds out for itself.
 */
async function openCompiled(
  trials: readonly Trial[],
  device: DryDevice,
  open: () => Promise<Gpu>,
): Promise<Gpu | undefined> {
  const forms: KernelForm[] = [];
  using dry = Gpu.dry({ ...device, onDispatch: ({ form }) => forms.push(form) });
  for (const trial of trials) await trial.run(dry);
  let gpu: Gpu | undefined;
  try {
    gpu = await open();
    await gpu.compile(forms);
    gpu.check();
    return gpu;
  } catch {
    gpu?.close();
    return undefined;
  }
}

/** Keeps verdicts as long as the process lives. */
const IN_MEMORY: VerdictStore = (() => {
  const known = new Map<string, readonly Verdict[]>();
  const keyOf = ({ webgpu, vendor, description }: GpuInfo) => `${webgpu}; ${vendor}; ${description}`;
  return {
    read: (info) => Promise.resolve(known.get(keyOf(info)) ?? []),
    save: (info, verdicts) => Promise.resolve(void known.set(keyOf(info), verdicts)),
  };
})();
