/** What was found out about each GPU adapter of this machine, in a file of the user's cache. */
import { writeFileAtomic } from "../checkpoint/atomic.ts";
import { FILE_LIMITS, isMissing, readWholeText } from "../data/file_bytes.ts";
import type { GpuInfo } from "../kernels/gpu.ts";

/** A kind of findings. */
export interface Findings<T> {
  /** Name of the field that holds them. */
  readonly field: string;
  /** Says who writes such files, for errors. */
  readonly writer: string;
  /** Whether a value from a file is of this kind. */
  readonly is: (value: unknown) => value is T;
}

/** Findings on one adapter. */
export interface Found<T> {
  /** {@linkcode adapterKey} */
  readonly adapter: string;
  /** {@linkcode kernelVersion} when it was found out: other kernels may be other. */
  readonly kernels: string;
  /** ISO 8601, UTC. */
  readonly date: string;
  readonly value: T;
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

/**
 * Reads what is known of an adapter; `undefined` where nothing is, or there is no file.
 * @throws {SyntaxError} if the file is not one of these
 * @throws {UserError} if it cannot be read
 */
export async function readFound<T>(
  findings: Findings<T>,
  info: GpuInfo,
  file: string,
): Promise<Found<T> | undefined> {
  const adapter = adapterKey(info);
  try {
    return parse(findings, await readNote(file)).find((each) => each.adapter === adapter);
  } catch (error) {
    if (isMissing(error)) return undefined;
    throw error;
  }
}

/**
 * Keeps what was found out, in place of what was known of the same adapter. A file that cannot be read is replaced.
 * @throws {UserError} if it cannot be written
 */
export async function saveFound<T>(
  findings: Findings<T>,
  info: GpuInfo,
  value: T,
  file: string,
): Promise<void> {
  const adapter = adapterKey(info);
  const others = await readOthers(findings, file, adapter);
  const mine: Found<T> = { adapter, kernels: await kernelVersion(), date: new Date().toISOString(), value };
  const adapters = [...others, mine].map(({ value, ...of }) => ({ ...of, [findings.field]: value }));
  await Deno.mkdir(file.slice(0, file.lastIndexOf("/")), { recursive: true });
  await writeFileAtomic(file, JSON.stringify({ version: 1, adapters }, null, 2) + "\n");
}

async function readOthers<T>(findings: Findings<T>, file: string, adapter: string): Promise<Found<T>[]> {
  try {
    return parse(findings, await readNote(file)).filter((each) => each.adapter !== adapter);
  } catch {
    return [];
  }
}

function readNote(file: string): Promise<string> {
  return readWholeText(file, FILE_LIMITS.note);
}

/** @throws {SyntaxError} if the text is not of this form */
function parse<T>({ field, writer, is }: Findings<T>, text: string): Found<T>[] {
  const { version, adapters } = JSON.parse(text) ?? {};
  if (version !== 1 || !Array.isArray(adapters)) throw new SyntaxError(`not written by ${writer}`);
  return adapters.map((each: unknown) => {
    const { adapter, kernels, date, [field]: value } = (each ?? {}) as Record<string, unknown>;
    if (
      typeof adapter !== "string" || typeof kernels !== "string" || typeof date !== "string" || !is(value)
    ) throw new SyntaxError(`not written by ${writer}`);
    return { adapter, kernels, date, value };
  });
}
