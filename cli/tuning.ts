/** The tuner's results on disk: which variants of the kernels are fastest on each adapter of this machine. */
import type { GpuInfo } from "../kernels/gpu.ts";
import type { Tuning } from "../kernels/tuning.ts";
import { type Findings, kernelVersion, readFound, saveFound } from "./adapter_file.ts";
import { userCacheFolder } from "./user_cache.ts";

/** Tuning of a GPU adapter as the file has it. */
export interface KnownTuning {
  readonly tuning: Tuning;
  /** Date of the measurement; `null` where nothing is known. */
  readonly date: string | null;
  /** The reason why a stored tuning is not used: one line, without a full stop. */
  readonly note: string | null;
}

const NOTHING: KnownTuning = { tuning: {}, date: null, note: null };
const AGAIN = "run deno task bench --tune";
const TUNING: Findings<Tuning> = { field: "tuning", writer: "bench --tune", is: isTuning };

/**
 * Path of the results.
 * @returns `null` where the user's folder for caches cannot be told
 */
export function tuningFile(...place: Parameters<typeof userCacheFolder>): string | null {
  const folder = userCacheFolder(...place);
  return folder === null ? null : `${folder}/tuning.json`;
}

/** Reads the tuning of this adapter with these kernels. Never throws: without it there are good defaults. */
export async function readTuning(info: GpuInfo, file: string | null = tuningFile()): Promise<KnownTuning> {
  if (file === null) return NOTHING;
  try {
    const known = await readFound(TUNING, info, file);
    if (!known) return NOTHING;
    if (known.kernels === await kernelVersion()) {
      return { tuning: known.value, date: known.date, note: null };
    }
    return { ...NOTHING, note: `The tuning of ${known.date} is for other kernels and not used: ${AGAIN}` };
  } catch (error) {
    const { message, cause } = error as Error;
    const remedy = cause instanceof Deno.errors.NotCapable ? "" : `: ${AGAIN}`;
    return { ...NOTHING, note: `"${file}" is not used (${message})${remedy}` };
  }
}

/**
 * Keeps what was measured, in place of what was known of the same adapter. A file that cannot be read is replaced.
 * @throws {UserError} if it cannot be written
 */
export async function saveTuning(info: GpuInfo, tuning: Tuning, file: string): Promise<void> {
  await saveFound(TUNING, info, tuning, file);
}

function isTuning(value: unknown): value is Tuning {
  return typeof value === "object" && value !== null &&
    Object.values(value).every((name) => typeof name === "string");
}
