import { UserError } from "../../errors.ts";
import { join } from "../../checkpoint/deps.ts";
import { diskFiles, type Files, writeWhole } from "../../checkpoint/files.ts";
import {
  findLatest,
  lockFolder,
  removeReplaced,
  rotate,
  saveAtomic,
  saveFileAtomic,
  saveFinal,
  saveFolderAtomic,
  verify,
  writeFileAtomic,
} from "../../checkpoint/store.ts";
import { assert, assertEquals, assertThrows } from "../support/assert_close.ts";
import { namesIn, withFolder } from "../support/files.ts";
import { uniform } from "../support/random.ts";
import { systemError, watchedFiles } from "./support.ts";

/** Bytes that tell the step and the file apart. */
function content(step: number, length: number): Uint8Array {
  const next = uniform(step * 1000 + length);
  return Uint8Array.from({ length }, () => Math.floor(256 * next()));
}

/** Writes two files and one in a subfolder. */
function writer(step: number, files: Files = diskFiles): (folder: string) => Promise<void> {
  return async (folder) => {
    await writeWhole(join(folder, "weights.bin"), "create", content(step, 500), files);
    await writeWhole(join(folder, "state.json"), "create", content(step, 40), files);
    await files.makeFolder(join(folder, "rank"));
    await writeWhole(join(folder, "rank", "0"), "create", content(step, 60), files);
  };
}

function save(outputDir: string, step: number, files: Files = diskFiles): Promise<string> {
  return saveAtomic(outputDir, `checkpoint-${step}`, writer(step, files), { files });
}

async function latestStep(outputDir: string): Promise<number | undefined> {
  return (await findLatest(outputDir)).latest?.step;
}

Deno.test("saveAtomic() saves what verify() accepts and findLatest() finds, by number", async () => {
  await withFolder(async (out) => {
    assertEquals(await findLatest(join(out, "missing")), { latest: undefined, notes: [] });
    for (const step of [9, 10, 100, 20]) assertEquals(await save(out, step), join(out, `checkpoint-${step}`));
    for (const name of namesIn(out)) await verify(join(out, name));
    assertEquals(await findLatest(out), {
      latest: { path: join(out, "checkpoint-100"), step: 100 },
      notes: [],
    });
    assertEquals([...Deno.readFileSync(join(out, "checkpoint-9", "rank", "0"))], [...content(9, 60)]);
  });
});

Deno.test("saveAtomic() makes everything durable before the folder gets its name", async () => {
  await withFolder(async (out) => {
    const calls: string[] = [];
    const short = (path: string) => path.replaceAll(out, "").replace(/\.tmp-[0-9a-f]{8}/g, ".tmp");
    const files = watchedFiles((operation, path) => void calls.push(`${operation} ${short(path)}`));
    await save(out, 5, files);
    const rename = calls.indexOf("rename /checkpoint-5.tmp -> /checkpoint-5");
    const manifest = calls.indexOf("open-create /checkpoint-5.tmp/manifest.json");
    assert(rename > 0, "no rename was seen");
    for (const name of ["weights.bin", "state.json", "rank/0", "rank"]) {
      const synced = calls.indexOf(`sync /checkpoint-5.tmp/${name}`);
      assert(synced > 0 && synced < manifest, `${name} was not synced before the manifest was written`);
    }
    const written = calls.lastIndexOf("write /checkpoint-5.tmp/manifest.json");
    for (const path of ["/checkpoint-5.tmp/manifest.json", "/checkpoint-5.tmp"]) {
      const synced = calls.lastIndexOf(`sync ${path}`);
      assert(
        written < synced && synced < rename,
        `${path} was not synced between its writing and the rename`,
      );
    }
    assertEquals(calls.at(-1), "sync ", "the last operation on the output folder");
  });
});

Deno.test("saveAtomic() replaces a checkpoint of the same name", async () => {
  await withFolder(async (out) => {
    await save(out, 7);
    await saveAtomic(out, "checkpoint-7", writer(8));
    assertEquals(namesIn(out), ["checkpoint-7"]);
    await verify(join(out, "checkpoint-7"));
    assertEquals([...Deno.readFileSync(join(out, "checkpoint-7", "state.json"))], [...content(8, 40)]);
    await assertThrows(() => saveAtomic(out, "../checkpoint-7", writer(8)), "not a checkpoint's name");
  });
});

/** Runs `act` with the n-th file operation failing, for n = 1, 2, ... until it passes; checks after each. */
async function failEach(
  code: string,
  act: (files: Files) => Promise<unknown>,
  check: (operation: string, error: unknown) => Promise<void>,
): Promise<number> {
  for (let n = 1;; n++) {
    let count = 0;
    let failed = "";
    const files = watchedFiles((operation, path) => {
      if (++count !== n) return;
      failed = `${operation} ${path}`;
      throw systemError(code);
    });
    let error: unknown;
    try {
      await act(files);
    } catch (caught) {
      error = caught;
    }
    // What is not known to be on the disk is not saved.
    assert(error !== undefined || !/^(write|sync) /.test(failed), `${failed} failed, and nothing is said`);
    if (count < n) {
      assert(error === undefined, `failed with nothing injected: ${error}`);
      return n - 1;
    }
    await check(`operation ${n} (${failed})`, error);
  }
}

Deno.test("saveAtomic() keeps the last checkpoint whole whichever file operation fails", async () => {
  for (const code of ["ENOSPC", "EIO", "EROFS"]) {
    await withFolder(async (out) => {
      await save(out, 1);
      const operations = await failEach(code, (files) => save(out, 2, files), async (where, error) => {
        const { latest } = await findLatest(out);
        assert(latest !== undefined, `${where}: no checkpoint is left`);
        if (error !== undefined) assert(error instanceof UserError, `${where}: ${error}`);
        // Only making the final rename durable may fail after the checkpoint is there.
        if (latest.step === 1) assertEquals(namesIn(out), ["checkpoint-1"], where);
        await Deno.remove(join(out, "checkpoint-2"), { recursive: true }).catch(() => {});
      });
      assert(operations > 30, `only ${operations} operations were tried`);
      assertEquals(await latestStep(out), 2);
    });
  }
});

Deno.test("saveAtomic() keeps the old bytes whichever operation fails while replacing them", async () => {
  await withFolder(async (out) => {
    await save(out, 3);
    const replace = (files: Files) => saveAtomic(out, "checkpoint-3", writer(4, files), { files });
    await failEach("ENOSPC", replace, async (where) => {
      const { latest } = await findLatest(out);
      assertEquals(latest?.step, 3, where);
      const bytes = Deno.readFileSync(join(latest!.path, "state.json"));
      const isOneOf = [3, 4].some((step) => content(step, 40).every((byte, i) => byte === bytes[i]));
      assert(isOneOf, `${where}: neither the old bytes nor the new ones`);
      assert(namesIn(out).includes("checkpoint-3"), `${where}: it has lost its name`);
    });
  });
});

Deno.test("a full or read-only disk is reported with the folder and the bytes needed, and leaves nothing", async () => {
  await withFolder(async (out) => {
    const failing = (code: string) =>
      watchedFiles((operation, path) => {
        if (operation === "write" && path.endsWith("state.json")) throw systemError(code);
      });
    const attempt = (code: string, byteLength?: number) => {
      const files = failing(code);
      return saveAtomic(
        out,
        "checkpoint-4",
        writer(4, files),
        byteLength === undefined ? { files } : { files, byteLength },
      );
    };
    const path = join(out, "checkpoint-4");
    await assertThrows(
      () => attempt("ENOSPC", 5_000_000),
      path,
      "disk is full",
      "needs 4.8 MiB",
      "Free some space",
    );
    await assertThrows(() => attempt("ENOSPC"), path, "needs more than 500 B");
    await assertThrows(() => attempt("EROFS"), path, "read-only");
    await assertThrows(() => attempt("EACCES"), path, "permission denied");
    assertEquals(namesIn(out), []);
  });
});

Deno.test("an error of the writer itself passes through, and its folder is removed", async () => {
  await withFolder(async (out) => {
    const write = async (folder: string) => {
      await writer(1)(folder);
      throw new RangeError("a bug");
    };
    await assertThrows(() => saveAtomic(out, "checkpoint-1", write), "a bug");
    assertEquals(namesIn(out), []);
  });
});

Deno.test("verify() detects every flipped byte, every truncation and every missing file", async () => {
  await withFolder(async (out) => {
    const folder = await save(out, 6);
    const next = uniform(42);
    for (const name of ["weights.bin", "state.json", "rank/0", "manifest.json"]) {
      const path = join(folder, name);
      const good = Deno.readFileSync(path);
      for (let i = 0; i < 60; i++) {
        const at = Math.floor(next() * good.length);
        const bad = good.slice();
        bad[at]! ^= 1 + Math.floor(next() * 255);
        Deno.writeFileSync(path, bad);
        await assertThrows(() => verify(folder), folder, "damaged");
      }
      for (let i = 0; i < 20; i++) {
        Deno.writeFileSync(path, good.subarray(0, Math.floor(next() * good.length)));
        await assertThrows(() => verify(folder), folder, "damaged");
      }
      Deno.removeSync(path);
      await assertThrows(() => verify(folder), folder, "no such file");
      Deno.writeFileSync(path, good);
      await verify(folder);
    }
  });
});

Deno.test("verify() detects changes of the manifest that JSON does not see", async () => {
  await withFolder(async (out) => {
    const folder = await save(out, 6);
    const path = join(folder, "manifest.json");
    const good = Deno.readTextFileSync(path);
    for (
      const bad of [good.trimEnd(), good + " ", good.replace("\n", "\r"), good.replace("{", '{"more":1,')]
    ) {
      Deno.writeTextFileSync(path, bad);
      await assertThrows(() => verify(folder), folder, "damaged");
    }
  });
});

Deno.test("verify() opens nothing outside the folder, whatever the manifest says", async () => {
  await withFolder(async (out) => {
    const folder = await save(out, 6);
    Deno.writeTextFileSync(join(out, "secret"), "s");
    const manifest = JSON.parse(Deno.readTextFileSync(join(folder, "manifest.json")));
    manifest.files[0].name = "../secret";
    Deno.writeTextFileSync(join(folder, "manifest.json"), JSON.stringify(manifest, null, 2) + "\n");
    await assertThrows(() => verify(folder), "Refused the file name");
  });
});

Deno.test("findLatest() falls back past damaged checkpoints and says so; leftovers are ignored", async () => {
  await withFolder(async (out) => {
    for (const step of [1, 2, 3]) await save(out, step);
    Deno.truncateSync(join(out, "checkpoint-3", "weights.bin"), 499);
    Deno.removeSync(join(out, "checkpoint-2", "manifest.json"));
    Deno.mkdirSync(join(out, "checkpoint-4.tmp-0123abcd"));
    Deno.mkdirSync(join(out, "checkpoint-notes"));
    Deno.writeTextFileSync(join(out, "checkpoint-9"), "a file");
    const { latest, notes } = await findLatest(out);
    assertEquals(latest, { path: join(out, "checkpoint-1"), step: 1 });
    assertEquals(notes.length, 3);
    for (const part of ["checkpoint-4.tmp-0123abcd", "has 499 bytes, not 500", "manifest.json"]) {
      assert(notes.some((note) => note.includes(part)), `no note says ${part}: ${notes}`);
    }
  });
});

Deno.test("findLatest() finds a checkpoint whose replacement was interrupted between the two renames", async () => {
  await withFolder(async (out) => {
    await save(out, 5);
    Deno.renameSync(join(out, "checkpoint-5"), join(out, "checkpoint-5.old-0123abcd"));
    assertEquals(await latestStep(out), 5);
    await save(out, 5);
    assertEquals((await findLatest(out)).latest?.path, join(out, "checkpoint-5"));
  });
});

Deno.test("removeReplaced() removes what a killed save had replaced, once its successor is whole", async () => {
  await withFolder(async (out) => {
    for (const step of [4, 5]) {
      await save(out, step);
      Deno.renameSync(join(out, `checkpoint-${step}`), join(out, `checkpoint-${step}.old-0123abcd`));
      await save(out, step);
    }
    Deno.truncateSync(join(out, "checkpoint-5", "weights.bin"), 3);
    await save(out, 6);
    Deno.renameSync(join(out, "checkpoint-6"), join(out, "checkpoint-6.old-0123abcd"));
    const notes: string[] = [];
    await removeReplaced(out, { note: (line) => notes.push(line) });
    assertEquals(namesIn(out), [
      "checkpoint-4",
      "checkpoint-5",
      "checkpoint-5.old-0123abcd",
      "checkpoint-6.old-0123abcd",
    ]);
    assertEquals(notes, [
      `Removed "${join(out, "checkpoint-4.old-0123abcd")}", which an interrupted save had replaced`,
    ]);
    assertEquals((await findLatest(out)).latest, { path: join(out, "checkpoint-6.old-0123abcd"), step: 6 });
  });
});

Deno.test("rotate() keeps the newest ones and never removes the last good one", async () => {
  await withFolder(async (out) => {
    for (const step of [0, 1, 2, 3, 4, 5]) await save(out, step);
    const path = (step: number) => join(out, `checkpoint-${step}`);
    assertEquals(await rotate(out, 3, { except: 0 }), [path(1), path(2)]);
    assertEquals(await rotate(out, 3), [path(0)]);
    assertEquals(namesIn(out), ["checkpoint-3", "checkpoint-4", "checkpoint-5"]);
    Deno.truncateSync(join(path(5), "weights.bin"), 3);
    Deno.truncateSync(join(path(4), "weights.bin"), 3);
    assertEquals(await rotate(out, 1), []);
    assertEquals(await rotate(out, 0), []);
    assertEquals(await latestStep(out), 3);
    Deno.truncateSync(join(path(3), "weights.bin"), 3);
    assertEquals(await rotate(out, 1), [], "with nothing whole, nothing is removed");
  });
});

Deno.test("rotate() leaves a whole checkpoint whichever operation fails", async () => {
  await withFolder(async (out) => {
    for (const step of [1, 2, 3, 4]) await save(out, step);
    const act = (files: Files) => rotate(out, 1, { files });
    await failEach("EIO", act, async (where) => assertEquals(await latestStep(out), 4, where));
    assertEquals(await rotate(out, 1), []);
    assertEquals(namesIn(out).filter((name) => !name.includes(".trash-")), ["checkpoint-4"]);
  });
});

Deno.test("writeFileAtomic() and saveFileAtomic() give the old bytes or the new ones, whichever operation fails", async () => {
  await withFolder(async (folder) => {
    const path = join(folder, "state.json");
    const newer = new TextEncoder().encode("newer");
    const writers: ((files: Files) => Promise<void>)[] = [
      (files) => writeFileAtomic(path, "newer", { files }),
      (files) =>
        saveFileAtomic(path, async (file) => void await file.write(newer), {
          files,
          byteLength: newer.length,
        }),
    ];
    for (const write of writers) {
      await writeFileAtomic(path, "old");
      await failEach("ENOSPC", write, async (where, error) => {
        const text = Deno.readTextFileSync(path);
        assert(text === "old" || text === "newer", `${where}: "${text}"`);
        if (text === "old") await assertThrows(() => Promise.reject(error), path, "disk is full", "5 B)");
        assertEquals(namesIn(folder), ["state.json"], where);
        await writeFileAtomic(path, "old");
      });
      assertEquals(Deno.readTextFileSync(path), "newer");
    }
    await writeFileAtomic(path, Uint8Array.of(104, 105));
    assertEquals(Deno.readTextFileSync(path), "hi");
    await assertThrows(() => writeFileAtomic(join(folder, "no", "x"), "x"), "no such file or folder");
  });
});

Deno.test("saveFinal() puts each file in place whole, keeping what else is there", async () => {
  await withFolder(async (out) => {
    await save(out, 1);
    Deno.writeTextFileSync(join(out, "adapter_config.json"), "old");
    const order: string[] = [];
    const files = watchedFiles((operation, path) =>
      void (operation === "rename" && order.push(path.split("/").at(-1)!))
    );
    const write = async (folder: string) => {
      await writeWhole(join(folder, "adapter_config.json"), "create", new TextEncoder().encode("new"), files);
      await writeWhole(join(folder, "adapter_model.safetensors"), "create", new Uint8Array(9), files);
    };
    await saveFinal(out, write, { files });
    assertEquals(order, ["adapter_model.safetensors", "adapter_config.json"]);
    assertEquals(namesIn(out), ["adapter_config.json", "adapter_model.safetensors", "checkpoint-1"]);
    assertEquals(Deno.readTextFileSync(join(out, "adapter_config.json")), "new");
    // A folder is replaced whole.
    for (const step of [2, 3]) await saveFinal(out, writer(step));
    assertEquals([...Deno.readFileSync(join(out, "rank", "0"))], [...content(3, 60)]);
  });
});

Deno.test("saveFolderAtomic() makes a folder whole or not at all, and touches no other", async () => {
  await withFolder(async (outer) => {
    const path = join(outer, "merged", "model");
    await saveFolderAtomic(path + "/", writer(2));
    assertEquals(namesIn(path), ["rank", "state.json", "weights.bin"]);
    let called = false;
    const write = () => Promise.resolve(void (called = true));
    const message = await assertThrows(() => saveFolderAtomic(path, write), path, "not empty");
    assert(!called && message !== "", "the writer ran before the folder was refused");
    await assertThrows(() => saveFolderAtomic(join(path, "state.json"), write), "state.json", "not a folder");
    Deno.mkdirSync(join(outer, "empty"));
    await saveFolderAtomic(join(outer, "empty"), writer(2));
    await failEach(
      "ENOSPC",
      (files) => saveFolderAtomic(join(outer, "x"), writer(1, files), { files }),
      async (where) => {
        if (namesIn(outer).includes("x")) await Deno.remove(join(outer, "x"), { recursive: true });
        assertEquals(namesIn(outer), ["empty", "merged"], where);
      },
    );
  });
});

Deno.test("lockFolder() lets one in, names the holder, and ignores what a killed run left", async () => {
  await withFolder(async (outer) => {
    const out = join(outer, "new");
    const lock = await lockFolder(out);
    await assertThrows(() => lockFolder(out), out, `process ${Deno.pid}`, "output_dir");
    lock.release();
    assertEquals(Deno.readTextFileSync(join(out, ".longreach.lock")), "", "a released lock names nobody");
    lock.release();
    Deno.writeTextFileSync(join(out, ".longreach.lock"), "999999");
    (await lockFolder(out)).release();
    {
      using _held = await lockFolder(out);
      await assertThrows(() => lockFolder(out), "already training");
    }
    (await lockFolder(out)).release();
  });
});

Deno.test("findLatest() prefers a replacement to what it replaced, in whatever order the folder is listed", async () => {
  await withFolder(async (out) => {
    await save(out, 4);
    Deno.renameSync(join(out, "checkpoint-4"), join(out, "checkpoint-4.old-0123abcd"));
    await save(out, 4);
    for (const order of [1, -1]) {
      const sorted: Files["list"] = async (path) =>
        (await diskFiles.list(path)).sort((a, b) => order * (a.name < b.name ? -1 : 1));
      const { latest } = await findLatest(out, { files: { ...diskFiles, list: sorted } });
      assertEquals(latest, { path: join(out, "checkpoint-4"), step: 4 });
    }
  });
});
