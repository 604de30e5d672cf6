import type { FileHandle, Files } from "../../checkpoint/files.ts";
import { basename } from "../../checkpoint/deps.ts";
import { systemError } from "../checkpoint/support.ts";

/** A file layer that holds one file, under any name. */
export function memoryFile(bytes: Uint8Array): Files {
  return { ...READ_ONLY, open: () => Promise.resolve(handleOf(bytes)) };
}

/** A file layer of one folder, of any name, with these files. */
export function memoryFolder(files: Readonly<Record<string, Uint8Array>>): Files {
  return {
    ...READ_ONLY,
    open: (path) => {
      const name = basename(path);
      return Object.hasOwn(files, name)
        ? Promise.resolve(handleOf(files[name]!))
        : Promise.reject(systemError("ENOENT"));
    },
    list: () => Promise.resolve(Object.keys(files).map((name) => ({ name, isFile: true, isFolder: false }))),
  };
}

const refuse = () => Promise.reject(new Error("this file layer only reads"));

const READ_ONLY: Files = {
  open: refuse,
  makeFolder: refuse,
  sync: refuse,
  rename: refuse,
  remove: refuse,
  removeTree: refuse,
  list: refuse,
};

function handleOf(bytes: Uint8Array): FileHandle {
  return {
    size: () => Promise.resolve(bytes.length),
    readAt: (offset, into) => {
      const part = bytes.subarray(offset, offset + into.length);
      into.set(part);
      return Promise.resolve(part.length);
    },
    write: refuse,
    sync: refuse,
    close: () => {},
  };
}
