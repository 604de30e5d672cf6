/** The tuner's results on disk: which variants of the kernels are fastest on each adapter of this machine. */
import { writeFileAtomic } from "../checkpoint/atomic.ts";
import { FILE_LIMITS, isMissing, readWholeText } from "../data/file_bytes.ts";
import type { GpuInfo } from "../kernels/gpu.ts";
import type { Tuning } from "../kernels/tuning.ts";
import { userCacheFolder } from "./user_cache.ts";

/** Timings of one GPU adapter. */
export interface TunedAdapter {
  /** {@linkcode adapterKey} */
  readonly adapter: string;
  /** {@linkcode kernelVersion} when it was measured: other kernels have other variants. */
  readonly kernels: string;
  /** ISO 8601, UTC. */
  readonly date: string;
  readonly tuning: Tuning;
}

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

/**
 * Path of the results.
 * @returns `null` where the user's folder for caches cannot be told
 */
export function tuningFile(...place: Parameters<typeof userCacheFolder>): string | null {
  const folder = userCacheFolder(...place);
  return folder === null ? null : `${folder}/tuning.json`;
}

/** Names an adapter with its driver and what compiles for it, as far as WebGPU tells. */
export function adapterKey({ webgpu, vendor, description, subgroupSize }: GpuInfo): string {
  return [webgpu, vendor, description, `subgroups of ${subgroupSize}`, `Deno ${Deno.version.deno}`].join(
    "; ",
  );
}

/** A hash of all of kernels/ but its references: other text, other version. */
export async function kernelVersion(
  folder: string = new URL("../kernels", import.meta.url).pathname,
): Promise<string> {
  const paths: string[] = [];
  const collect = async (path: string): Promise<void> => {
    for await (const { name, isDirectory } of Deno.readDir(path)) {
      if (isDirectory) await collect(`${path}/${name}`);
      else if (name.endsWith(".wgsl") || name.endsWith(".ts") && name !== "reference.ts") {
        paths.push(`${path}/${name}`);
      }
    }
  };
  await collect(folder);
  const texts = await Promise.all(paths.sort().map((path) => Deno.readTextFile(path)));
  const all = paths.map((path, i) => `${path.slice(folder.length)}\n${texts[i]}`).join("\n");
  const digest = await crypto.subtle.digest("SHA-256", new TextEncoder().encode(all));
  return new Uint8Array(digest).toHex().slice(0, 16);
}

/** Reads the tuning of this adapter with these kernels. Never throws: without it there are good defaults. */
export async function readTuning(info: GpuInfo, file: string | null = tuningFile()): Promise<KnownTuning> {
  if (file === null) return NOTHING;
  try {
    const adapter = adapterKey(info);
    const known = parse(await readNote(file)).find((each) => each.adapter === adapter);
    if (!known) return NOTHING;
    if (known.kernels === await kernelVersion()) {
      return { tuning: known.tuning, date: known.date, note: null };
    }
    return { ...NOTHING, note: `The tuning of ${known.date} is for other kernels and not used: ${AGAIN}` };
  } catch (error) {
    if (isMissing(error)) return NOTHING;
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
  const adapter = adapterKey(info);
  const others = await readOthers(file, adapter);
  const mine: TunedAdapter = {
    adapter,
    kernels: await kernelVersion(),
    date: new Date().toISOString(),
    tuning,
  };
  await Deno.mkdir(file.slice(0, file.lastIndexOf("/")), { recursive: true });
  await writeFileAtomic(file, JSON.stringify({ version: 1, adapters: [...others, mine] }, null, 2) + "\n");
}

async function readOthers(file: string, adapter: string): Promise<TunedAdapter[]> {
  try {
    return parse(await readNote(file)).filter((each) => each.adapter !== adapter);
  } catch {
    return [];
  }
}

function readNote(file: string): Promise<string> {
  return readWholeText(file, FILE_LIMITS.note);
}

/** @throws {SyntaxError} if the text is not of this form */
function parse(text: string): TunedAdapter[] {
  const { version, adapters } = JSON.parse(text) ?? {};
  if (version !== 1 || !Array.isArray(adapters) || !adapters.every(isTunedAdapter)) {
    throw new SyntaxError("not written by bench --tune");
  }
  return adapters;
}

function isTunedAdapter(value: unknown): value is TunedAdapter {
  const { adapter, kernels, date, tuning } = (value ?? {}) as Partial<Record<keyof TunedAdapter, unknown>>;
  return [adapter, kernels, date].every((each) => typeof each === "string") &&
    typeof tuning === "object" && tuning !== null &&
    Object.values(tuning).every((name) => typeof name === "string");
}
