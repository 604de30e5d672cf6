/** Verdicts on disk: which kernels were tried on each adapter of this machine, and whether they were right. */
import type { GpuInfo } from "../kernels/gpu.ts";
import type { Verdict, VerdictStore } from "../kernels/refusal.ts";
import type { Findings } from "./adapter_file.ts";
import { userCacheFolder } from "./user_cache.ts";

const VERDICTS: Findings<readonly Verdict[]> = {
  field: "verdicts",
  writer: "longreach",
  is: (value): value is readonly Verdict[] => Array.isArray(value) && value.every(isVerdict),
};

/**
 * Keeps verdicts in the user's cache, for all processes, and in memory for this one, which may not be allowed to write.
 * Those of other kernels, drivers and versions do not count. A kernel that failed is tried again by the next process:
 * the device may have had no memory.
 * @param options.file `null` where the user's folder for caches cannot be told
 * @param options.onNote told in one line of a file that is not used, or that cannot be written
 */
export function fileVerdicts(
  { file = verdictsFile(), onNote }: {
    readonly file?: string | null;
    readonly onNote: (note: string) => void;
  },
): VerdictStore {
  const here = new Map<string, readonly Verdict[]>();
  return {
    async read(info) {
      const { adapterKey } = await import("./adapter_file.ts");
      const known = here.get(adapterKey(info));
      if (known || file === null) return known ?? [];
      const verdicts = await readFile(info, file, onNote);
      here.set(adapterKey(info), verdicts);
      return verdicts;
    },
    async save(info, verdicts) {
      const { adapterKey, saveFound } = await import("./adapter_file.ts");
      here.set(adapterKey(info), verdicts);
      if (file === null) return;
      try {
        await saveFound(VERDICTS, info, verdicts.filter(({ failure }) => failure === null), file);
      } catch (error) {
        if (!isForbidden(error)) onNote(`"${file}" is not written (${(error as Error).message})`);
      }
    },
  };
}

/** Passes each text on once. */
export function tellOnce(tell: (text: string) => void): (text: string) => void {
  const told = new Set<string>();
  return (text) => {
    if (!told.has(text)) tell(text);
    told.add(text);
  };
}

/**
 * Path of the verdicts.
 * @returns `null` where the user's folder for caches cannot be told
 */
export function verdictsFile(...place: Parameters<typeof userCacheFolder>): string | null {
  const folder = userCacheFolder(...place);
  return folder === null ? null : `${folder}/verdicts.json`;
}

async function readFile(
  info: GpuInfo,
  file: string,
  onNote: (note: string) => void,
): Promise<readonly Verdict[]> {
  const { kernelVersion, readFound } = await import("./adapter_file.ts");
  try {
    const known = await readFound(VERDICTS, info, file);
    return known && known.kernels === await kernelVersion() ? known.value : [];
  } catch (error) {
    const reason = (error as Error).message.replaceAll(/\s+/g, " ");
    onNote(`"${file}" is not used (${reason}): kernels are tried again`);
    return [];
  }
}

/** Whether a command without the right to write files says so. */
function isForbidden(error: unknown): boolean {
  return [error, (error as Error).cause].some((each) => each instanceof Deno.errors.NotCapable);
}

function isVerdict(value: unknown): value is Verdict {
  const { kernel, risks, ok, wrong } = (value ?? {}) as Partial<Record<keyof Verdict, unknown>>;
  return typeof kernel === "string" && Array.isArray(risks) && typeof ok === "boolean" &&
    Array.isArray(wrong);
}
