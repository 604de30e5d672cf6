/** A disk on which one file operation fails, for whatever goes through `Deno` itself. */

/** How an operation fails: with a code of the operating system, or after half of what was to be written. */
export const FAULTS = ["ENOSPC", "EIO", "EACCES", "torn"] as const;
export type Fault = (typeof FAULTS)[number];

/** What came of {@linkcode withFault}. */
export interface Faulted<T> {
  readonly result: T;
  /** The operation that failed, with its path; undefined if there were fewer than n. */
  readonly failed: string | undefined;
  /** Operations in all. */
  readonly operations: number;
}

const PATCHED = [
  "open",
  "mkdir",
  "rename",
  "remove",
  "writeFile",
  "writeTextFile",
  "copyFile",
  "readDir",
  "lstat",
  "truncate",
] as const;

/** Runs `use` with the n-th file operation below `root` failing; with n = 0 they are counted only. */
export async function withFault<T>(
  root: string,
  n: number,
  fault: Fault,
  use: () => Promise<T>,
): Promise<Faulted<T>> {
  const original = Object.fromEntries(PATCHED.map((name) => [name, Deno[name]])) as Pick<
    typeof Deno,
    (typeof PATCHED)[number]
  >;
  let operations = 0;
  let failed: string | undefined;
  const code = fault === "torn" ? "EIO" : fault;
  const error = () => Object.assign(new Error(`injected ${fault} (os error)`), { code });
  /** Counts an operation. @returns whether it is the one to fail */
  const isNext = (operation: string, path: string | URL): boolean => {
    if (!String(path).startsWith(root) || ++operations !== n) return false;
    failed = `${operation} ${String(path).slice(root.length)}`;
    return true;
  };
  const check = (operation: string, path: string | URL) => {
    if (isNext(operation, path)) throw error();
  };
  const watch = (path: string | URL, file: Deno.FsFile): Deno.FsFile => {
    const { write, sync, syncData, truncate, read } = file;
    file.write = async (bytes) => {
      if (!isNext("write", path)) return await write.call(file, bytes);
      if (fault === "torn") await write.call(file, bytes.subarray(0, bytes.length >> 1));
      throw error();
    };
    file.sync = async () => (check("sync", path), await sync.call(file));
    file.syncData = async () => (check("sync", path), await syncData.call(file));
    file.truncate = async (length) => (check("truncate", path), await truncate.call(file, length));
    file.read = async (bytes) => (check("read", path), await read.call(file, bytes));
    return file;
  };
  const writeFile = async (path: string | URL, bytes: Uint8Array, options?: Deno.WriteFileOptions) => {
    if (!isNext("writeFile", path)) return await original.writeFile(path, bytes, options);
    if (fault === "torn") await original.writeFile(path, bytes.subarray(0, bytes.length >> 1), options);
    throw error();
  };
  Object.assign(Deno, {
    open: async (path: string | URL, options?: Deno.OpenOptions) => {
      check("open", path);
      return watch(path, await original.open(path, options));
    },
    mkdir: async (path: string | URL, options?: Deno.MkdirOptions) => (
      check("mkdir", path), await original.mkdir(path, options)
    ),
    rename: async (from: string | URL, to: string | URL) => (
      check("rename", from), await original.rename(from, to)
    ),
    remove: async (path: string | URL, options?: Deno.RemoveOptions) => (
      check("remove", path), await original.remove(path, options)
    ),
    copyFile: async (from: string | URL, to: string | URL) => (
      check("copyFile", to), await original.copyFile(from, to)
    ),
    lstat: async (path: string | URL) => (check("lstat", path), await original.lstat(path)),
    truncate: async (path: string, length?: number) => (
      check("truncate", path), await original.truncate(path, length)
    ),
    readDir: (path: string | URL) => {
      check("readDir", path);
      return original.readDir(path);
    },
    writeFile,
    writeTextFile: (path: string | URL, text: string, options?: Deno.WriteFileOptions) =>
      writeFile(path, new TextEncoder().encode(text), options),
  });
  try {
    return { result: await use(), failed, operations };
  } finally {
    Object.assign(Deno, original);
  }
}
