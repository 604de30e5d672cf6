import { type Bytes, diskFiles, type FileHandle, type Files } from "../../checkpoint/files.ts";

/** Calls `before` ahead of every file operation, with its name and path; it may throw instead of it. */
export function watchedFiles(
  before: (operation: string, path: string) => void,
  files: Files = diskFiles,
): Files {
  // deno-lint-ignore require-await
  const guarded = async <T>(operation: string, path: string, run: () => Promise<T>): Promise<T> => {
    before(operation, path);
    return run();
  };
  const watchHandle = (path: string, handle: FileHandle): FileHandle => ({
    size: () => handle.size(),
    readAt: (offset, into) => guarded("read", path, () => handle.readAt(offset, into)),
    write: (bytes) => guarded("write", path, () => handle.write(bytes)),
    sync: () => guarded("sync", path, () => handle.sync()),
    close: () => handle.close(),
  });
  return {
    open: (path, mode) =>
      guarded(`open-${mode}`, path, async () => watchHandle(path, await files.open(path, mode))),
    makeFolder: (path) => guarded("makeFolder", path, () => files.makeFolder(path)),
    sync: (path) => guarded("sync", path, () => files.sync(path)),
    rename: (from, to) => guarded("rename", `${from} -> ${to}`, () => files.rename(from, to)),
    remove: (path) => guarded("remove", path, () => files.remove(path)),
    removeTree: (path) => guarded("removeTree", path, () => files.removeTree(path)),
    list: (path) => guarded("list", path, () => files.list(path)),
  };
}

/** An error as the operating system raises it. */
export function systemError(code: string): Error {
  return Object.assign(new Error(`injected ${code}`), { code });
}

/** A safetensors file from a header and the bytes after it. `length` overrides the length field. */
export function safetensorsBytes(header: string | Uint8Array, data: Uint8Array, length?: bigint): Bytes {
  const text = typeof header === "string" ? new TextEncoder().encode(header) : header;
  const bytes = new Uint8Array(8 + text.length + data.length);
  new DataView(bytes.buffer).setBigUint64(0, length ?? BigInt(text.length), true);
  bytes.set(text, 8);
  bytes.set(data, 8 + text.length);
  return bytes;
}
