import { join } from "../../checkpoint/deps.ts";
import {
  lockFolder,
  lockTarget,
  removeLeftovers,
  saveFileAtomic,
  saveFolderAtomic,
} from "../../checkpoint/store.ts";
import { finalName, removeUnfinished, temporaryName } from "../../data/temporary.ts";
import { assertEquals, assertThrows } from "../support/assert_close.ts";
import { namesIn, withFolder } from "../support/files.ts";

const bytes = (text: string) => new TextEncoder().encode(text);

Deno.test("temporary names are never the same, and tell what they stand for", () => {
  const names = Array.from({ length: 50 }, () => temporaryName("a/out"));
  assertEquals(new Set(names).size, 50);
  assertEquals(names.map(finalName).every((name) => name === "a/out"), true);
  assertEquals(["out", "out.tmp-xyz", "out.tmp-0123abcd.txt"].map(finalName).filter(Boolean), []);
  removeUnfinished();
});

Deno.test("what killed work left of a target is removed at the next start, and nothing else", async () => {
  await withFolder(async (folder) => {
    for (const name of ["out.tmp-0123abcd", "out.trash-0123abcd", "other.tmp-0123abcd"]) {
      Deno.mkdirSync(join(folder, name, "part"), { recursive: true });
    }
    for (const name of ["out.json.tmp-11112222", "out.tmp-file", "mine"]) {
      Deno.writeTextFileSync(join(folder, name), "x");
    }
    const notes: string[] = [];
    await saveFolderAtomic(join(folder, "out"), (staged) => Deno.writeTextFile(join(staged, "a"), "b"), {
      note: (line) => notes.push(line),
    });
    assertEquals(namesIn(folder), ["mine", "other.tmp-0123abcd", "out", "out.tmp-file"]);
    assertEquals(notes, [
      `Removed what interrupted work left in "${folder}": "out.json.tmp-11112222", "out.tmp-0123abcd", ` +
      `"out.trash-0123abcd"`,
    ]);
  });
});

Deno.test("a target that another process is making is refused, and its unfinished files stay", async () => {
  await withFolder(async (folder) => {
    const path = join(folder, "model.gguf");
    const writing = Promise.withResolvers<void>();
    const begun = Promise.withResolvers<void>();
    const first = saveFileAtomic(path, async (file) => {
      await file.write(bytes("first"));
      begun.resolve();
      await writing.promise;
    });
    await begun.promise;
    const before = namesIn(folder);
    await assertThrows(
      () => saveFileAtomic(path, async (file) => void await file.write(bytes("second"))),
      path,
      `process ${Deno.pid} is already writing it`,
    );
    assertEquals(namesIn(folder), before);
    writing.resolve();
    await first;
    assertEquals([namesIn(folder), Deno.readTextFileSync(path)], [["model.gguf"], "first"]);
  });
});

Deno.test("a lock file that a killed process left is no obstacle", async () => {
  await withFolder(async (folder) => {
    Deno.writeTextFileSync(join(folder, ".out.longreach.lock"), "999999");
    (await lockTarget(join(folder, "out"))).release();
    assertEquals(namesIn(folder), []);
  });
});

Deno.test("one of many starts at the same moment has the lock at a time", async () => {
  await withFolder(async (folder) => {
    let holders = 0;
    let most = 0;
    let held = 0;
    await Promise.all(Array.from({ length: 30 }, async () => {
      for (let tries = 0; tries < 200; tries++) {
        try {
          using _lock = await lockTarget(join(folder, "out"));
          most = Math.max(most, ++holders);
          await new Promise((done) => setTimeout(done, 1));
          holders--;
          held++;
          return;
        } catch {
          await new Promise((done) => setTimeout(done, 2));
        }
      }
    }));
    assertEquals([held, most, namesIn(folder)], [30, 1, []]);
  });
});

Deno.test("a signal removes what was begun, and what was settled stays", async () => {
  await withFolder(async (folder) => {
    const begun = temporaryName(join(folder, "a"));
    Deno.mkdirSync(join(begun, "deep"), { recursive: true });
    Deno.writeTextFileSync(temporaryName(join(folder, "b")), "x");
    await saveFileAtomic(join(folder, "c"), async (file) => void await file.write(bytes("done")));
    using _lock = await lockTarget(join(folder, "d"));
    removeUnfinished();
    assertEquals(namesIn(folder), ["c"]);
  });
});

Deno.test("a folder that cannot be read is left alone", async () => {
  const notes: string[] = [];
  await removeLeftovers("/nowhere/at/all", { isLeftover: () => true, note: (line) => notes.push(line) });
  assertEquals(notes, []);
});

Deno.test("a folder's lock is waited for where a process is about to end, and refused at once otherwise", async () => {
  await withFolder(async (folder) => {
    const first = await lockFolder(folder);
    await assertThrows(() => lockFolder(folder), "already training into it");
    await assertThrows(() => lockFolder(folder, { patienceMs: 150 }), "already training into it");
    setTimeout(() => first.release(), 150);
    using _second = await lockFolder(folder, { patienceMs: 20_000 });
  });
});
