/** A disk that fills up, for whatever writes through `Deno` itself. */

const ORIGINAL = {
  open: Deno.open,
  create: Deno.create,
  mkdir: Deno.mkdir,
  writeFile: Deno.writeFile,
  writeTextFile: Deno.writeTextFile,
};

/**
 * Runs `use` with a disk that has room for `bytes` more below `root`, and then behaves as Linux does: the last write is
 * short, the next one fails with ENOSPC. With `bytes` below 0 nothing can be made at all, as on a read-only disk.
 */
export async function withDisk<T>(root: string, bytes: number, use: () => Promise<T>): Promise<T> {
  let free = bytes;
  const code = bytes < 0 ? "EROFS" : "ENOSPC";
  const message = bytes < 0 ? "Read-only file system (os error 30)" : "No space left on device (os error 28)";
  const fail = () => Object.assign(new Error(message), { code });
  const isBelow = (path: string | URL) => String(path).startsWith(root);
  const refuse = (path: string | URL) => {
    if (bytes < 0 && isBelow(path)) throw fail();
  };
  const take = (wanted: number): number => {
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
    const taken = free <= 0 ? 0 : Math.min(content.length, free);
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
    return await use();
  } finally {
    Object.assign(Deno, ORIGINAL);
  }
}
