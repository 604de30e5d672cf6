/** The tuner: measures every variant of every class of work, and keeps the fastest for this adapter. */
import { formatMs, formatTable } from "../text.ts";
import type { Progress } from "../cli/progress.ts";
import { GpuError } from "../kernels/errors.ts";
import type { Gpu } from "../kernels/gpu.ts";
import type { Tuning } from "../kernels/tuning.ts";
import { type Clock, repeatsFor, timedOften } from "./clock.ts";
import type { Prepared } from "./suites/case.ts";
import { type TunableCase, tunableCases } from "./suites/tunables.ts";

/** Result of tuning for one class of work. */
export interface Choice {
  readonly key: string;
  readonly shape: string;
  readonly chosen: string;
  readonly defaultMs: number;
  readonly chosenMs: number;
  /** Best time of every variant; `null` where it does not run on this device. */
  readonly tried: Readonly<Record<string, number | null>>;
}

/** A variant must be this much faster than the default to take its place. */
const LEAST_GAIN = 0.03;
/** After its first runs, a variant this many times slower than the best is out. */
const HOPELESS = 1.5;
const ROUNDS = 5;

/** Opens a device whose kernels are chosen by the given table, which the tuner changes as it goes. */
export type OpenTuned = (tuning: Tuning) => Promise<Gpu>;

/**
 * Measures the classes whose key or shape the filter finds. A variant that fails on this device is left out, and the
 * rest goes on with a new one.
 */
export async function tune(
  open: OpenTuned,
  { clock, filter, progressOf }: {
    clock: Clock;
    filter: RegExp | undefined;
    progressOf: (total: number) => Progress;
  },
): Promise<Choice[]> {
  const table: Record<string, string> = {};
  let gpu = await open(table);
  const count = tunableCases(gpu).length;
  const wanted = [...Array(count).keys()].filter((i) => isWanted(tunableCases(gpu)[i]!, filter));
  const progress = progressOf(wanted.length);
  const choices: Choice[] = [];
  try {
    for (const [done, i] of wanted.entries()) {
      const broken = new Set<string>();
      for (;;) {
        const each = tunableCases(gpu)[i]!;
        progress.update(done, [each.tunable.key]);
        const failed = await tuneOne(gpu, each, { table, clock, broken, choices });
        if (failed === undefined) break;
        broken.add(failed);
        gpu.close();
        gpu = await open(table);
      }
      progress.update(done + 1, []);
    }
  } finally {
    progress.stop();
    gpu.close();
  }
  return choices;
}

function isWanted({ tunable, work }: TunableCase, filter: RegExp | undefined): boolean {
  return tunable.variants.length > 1 && (filter === undefined || filter.test(`${tunable.key} ${work.shape}`));
}

/** @returns the variant that failed, if one did; then the device is of no more use */
async function tuneOne(
  gpu: Gpu,
  { tunable: { key, variants }, work }: TunableCase,
  { table, clock, broken, choices }: {
    table: Record<string, string>;
    clock: Clock;
    broken: ReadonlySet<string>;
    choices: Choice[];
  },
): Promise<string | undefined> {
  const times = new Map<string, number>();
  let prepared: Prepared | undefined;
  const run = async (variant: string, repeats: number): Promise<number> => {
    table[key] = variant;
    prepared ??= work.prepare(gpu);
    const { ms } = await timedOften(gpu, clock, repeats, prepared.run);
    return ms;
  };
  const able = variants.filter((variant) => !broken.has(variant));
  if (able.length === 0) return undefined;
  for (const variant of able) {
    try {
      // The first run compiles.
      await run(variant, 1);
      times.set(variant, await run(variant, 1));
    } catch (error) {
      if (!(error instanceof GpuError)) throw error;
      delete table[key];
      return variant;
    }
  }
  const limit = HOPELESS * Math.min(...times.values());
  const left = able.filter((variant) => times.get(variant)! <= limit);
  for (let round = 0; left.length > 1 && round < ROUNDS; round++) {
    for (const variant of left) {
      const repeats = repeatsFor(clock, times.get(variant)!);
      times.set(variant, Math.min(times.get(variant)!, await run(variant, repeats)));
    }
  }
  prepared?.free();
  gpu.memory.trim();
  const standard = able[0]!;
  const best = able.reduce((a, b) => times.get(b)! < times.get(a)! ? b : a);
  const isBetter = times.get(best)! < times.get(standard)! * (1 - LEAST_GAIN);
  const chosen = isBetter ? best : standard;
  table[key] = chosen;
  choices.push({
    key,
    shape: `${work.op} ${work.shape} ${work.format}`,
    chosen,
    defaultMs: times.get(standard)!,
    chosenMs: times.get(chosen)!,
    tried: Object.fromEntries(variants.map((variant) => [variant, times.get(variant) ?? null])),
  });
  return undefined;
}

/** The choices as the table that {@linkcode Gpu} takes. */
export function tuningOf(choices: readonly Choice[]): Tuning {
  return Object.fromEntries(choices.map(({ key, chosen }) => [key, chosen]));
}

/** Describes what was chosen and what that gains. */
export function describeChoices(choices: readonly Choice[]): string {
  const rows = choices.map(({ key, shape, chosen, defaultMs, chosenMs, tried }) => [
    key,
    shape,
    formatMs(defaultMs),
    formatMs(chosenMs),
    `${(defaultMs / chosenMs).toFixed(2)}x`,
    chosen === Object.keys(tried)[0] ? "default" : chosen,
  ]);
  return formatTable([["class", "measured by", "default", "best", "gain", "choice"], ...rows], "llrrrl");
}
