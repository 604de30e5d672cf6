/** A disk that fills up, for whatever writes through `Deno` itself. */

const ORIGINAL = {
  open: Deno.open,
  create: Deno.create,
  mkdir: Deno.mkdir,
  writeFile: Deno.writeFile,
  writeTextFile: Deno.writeTextFile,
};

/** What a test does with the disk while it is used. */
export interface TestDisk {
  /** Says how many bytes more there is room for. */
  setFree(bytes: number): void;
  /** Makes the next attempts to write fail, however many bytes each has; then there is room again. */
  failNext(attempts: number): void;
}

/**
 * Runs `use` with a disk that has room for `bytes` more below `root`, and then behaves as Linux does: the last write is
 * short, the next one fails with ENOSPC. With `bytes` below 0 nothing can be made at all, as on a read-only disk.
 */
export async function withDisk<T>(
  root: string,
  bytes: number,
  use: (disk: TestDisk) => Promise<T>,
): Promise<T> {
  let free = bytes;
  let failures = 0;
  const code = bytes < 0 ? "EROFS" : "ENOSPC";
  const message = bytes < 0 ? "Read-only file system (os error 30)" : "No space left on device (os error 28)";
  const fail = () => Object.assign(new Error(message), { code });
  const isBelow = (path: string | URL) => String(path).startsWith(root);
  const refuse = (path: string | URL) => {
    if (bytes < 0 && isBelow(path)) throw fail();
  };
  const take = (wanted: number): number => {
    if (failures > 0) {
      failures--;
      throw fail();
    }
    if (wanted > 0 && free <= 0) throw fail();
    const taken = Math.min(wanted, free);
    free -= taken;
    return taken;
  };
  const limited = (path: string | URL, file: Deno.FsFile): Deno.FsFile => {
    if (!isBelow(path)) return file;
    const [write, writeSync] = [file.write.bind(file), file.writeSync.bind(file)];
    // deno-lint-ignore require-await
    file.write = async (content) => write(content.subarray(0, take(content.length)));
    file.writeSync = (content) => writeSync(content.subarray(0, take(content.length)));
    return file;
  };
  const writeFile = async (path: string | URL, content: Uint8Array, options?: Deno.WriteFileOptions) => {
    refuse(path);
    if (!isBelow(path)) return await ORIGINAL.writeFile(path, content, options);
    const taken = failures > 0 || free <= 0 ? 0 : Math.min(content.length, free);
    failures = Math.max(0, failures - 1);
    free -= taken;
    await ORIGINAL.writeFile(path, content.subarray(0, taken), options);
    if (taken < content.length) throw fail();
  };
  Object.assign(Deno, {
    open: async (path: string | URL, options?: Deno.OpenOptions) => {
      if (options?.write || options?.create || options?.createNew || options?.append) refuse(path);
      return limited(path, await ORIGINAL.open(path, options));
    },
    create: async (path: string | URL) => {
      refuse(path);
      return limited(path, await ORIGINAL.create(path));
    },
    mkdir: async (path: string | URL, options?: Deno.MkdirOptions) => {
      refuse(path);
      await ORIGINAL.mkdir(path, options);
    },
    writeFile,
    writeTextFile: (path: string | URL, text: string, options?: Deno.WriteFileOptions) =>
      writeFile(path, new TextEncoder().encode(text), options),
  });
  try {
    return await use({
      setFree: (bytes) => free = bytes,
      failNext: (attempts) => failures = attempts,
    });
  } finally {
    Object.assign(Deno, ORIGINAL);
  }
}
