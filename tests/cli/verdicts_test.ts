import { kernelVersion } from "../../cli/adapter_file.ts";
import { gpuOptionsOf } from "../../cli/gpu_options.ts";
import { describe, examine } from "../../cli/doctor.ts";
import { fileVerdicts, tellOnce, verdictsFile } from "../../cli/verdicts.ts";
import { DRY_INFO } from "../../kernels/dry_device.ts";
import type { Verdict } from "../../kernels/refusal.ts";
import { assert, assertEquals } from "../support/assert_close.ts";
import { withFolder } from "../support/files.ts";
import { assertIncludes } from "../support/text.ts";
import { MemoryIo } from "./memory_io.ts";

const WRONG: Verdict = {
  kernel: "matmul nt nf4 16-bit matrix 64x64",
  risks: ["matmul by matrices"],
  ok: false,
  error: 0.7,
  tolerance: 0.002,
  failure: null,
  wrong: [],
};

const neverNoted = (note: string): never => {
  throw new Error(note);
};

Deno.test("verdicts are kept on disk, by adapter, for the next process", async () => {
  assertEquals(verdictsFile((name) => ({ HOME: "/h" })[name], "linux"), "/h/.cache/longreach/verdicts.json");
  await withFolder(async (folder) => {
    const file = `${folder}/deep/verdicts.json`;
    const store = fileVerdicts({ file, onNote: neverNoted });
    assertEquals(await store.read(DRY_INFO), []);
    await store.save(DRY_INFO, [WRONG]);
    assertEquals(await fileVerdicts({ file, onNote: neverNoted }).read(DRY_INFO), [WRONG]);
    for (const change of [{ description: "driver 2" }, { vendor: "2" }, { webgpu: "dawn" as const }]) {
      const other = fileVerdicts({ file, onNote: neverNoted });
      assertEquals(await other.read({ ...DRY_INFO, ...change }), [], JSON.stringify(change));
    }
  });
});

Deno.test("verdicts on other kernels do not count", async () => {
  await withFolder(async (folder) => {
    const file = `${folder}/verdicts.json`;
    await fileVerdicts({ file, onNote: neverNoted }).save(DRY_INFO, [WRONG]);
    const text = await Deno.readTextFile(file);
    await Deno.writeTextFile(file, text.replace(await kernelVersion(), "0123456789abcdef"));
    assertEquals(await fileVerdicts({ file, onNote: neverNoted }).read(DRY_INFO), []);
  });
});

Deno.test("a broken file of verdicts is noted, and replaced", async () => {
  await withFolder(async (folder) => {
    const file = `${folder}/verdicts.json`;
    const of = '"adapter":"a","kernels":"k","date":"d"';
    for (
      const text of [
        "",
        "{",
        "null",
        '{"version":1,"adapters":[{}]}',
        `{"version":1,"adapters":[{${of}}]}`,
        `{
        "version":1,"adapters":[{${of},"verdicts":[{"kernel":1}]}]}`,
      ]
    ) {
      await Deno.writeTextFile(file, text);
      const notes: string[] = [];
      const store = fileVerdicts({ file, onNote: (note) => notes.push(note) });
      assertEquals(await store.read(DRY_INFO), [], text);
      assertEquals(notes.length, 1, text);
      assertIncludes(notes[0]!, 'verdicts.json" is not used');
      assert(!notes[0]!.includes("\n"), "one line");
      await store.save(DRY_INFO, [WRONG]);
      assertEquals(await fileVerdicts({ file, onNote: neverNoted }).read(DRY_INFO), [WRONG]);
    }
  });
});

Deno.test("a file that cannot be written is noted, and the process remembers all the same", async () => {
  await withFolder(async (folder) => {
    await Deno.writeTextFile(`${folder}/file`, "");
    const notes: string[] = [];
    const store = fileVerdicts({ file: `${folder}/file/verdicts.json`, onNote: (note) => notes.push(note) });
    await store.save(DRY_INFO, [WRONG]);
    assertEquals(await store.read(DRY_INFO), [WRONG]);
    assertEquals(notes.length, 1);
    assertIncludes(notes[0]!, "is not written");
  });
});

Deno.test("commands hand devices where verdicts are kept and whom to tell, and say a thing once", () => {
  const io = new MemoryIo();
  const verdicts = fileVerdicts({ file: null, onNote: neverNoted });
  const tell = tellOnce((text) => io.err(text));
  const options = gpuOptionsOf({ verdicts, onRefusal: ({ kernel }) => tell(kernel) }, "deno");
  assertEquals(options.verdicts, verdicts);
  for (let i = 0; i < 2; i++) options.onRefusal!(WRONG);
  assertEquals(io.stderr, `${WRONG.kernel}\n`);
});

Deno.test("a kernel that failed is tried again by the next process", async () => {
  await withFolder(async (folder) => {
    const file = `${folder}/verdicts.json`;
    const failed: Verdict = { ...WRONG, kernel: "another", error: null, failure: "no memory" };
    const store = fileVerdicts({ file, onNote: neverNoted });
    await store.save(DRY_INFO, [WRONG, failed]);
    assertEquals(await store.read(DRY_INFO), [WRONG, failed], "but not by this one");
    assertEquals(await fileVerdicts({ file, onNote: neverNoted }).read(DRY_INFO), [WRONG]);
  });
});

Deno.test("doctor lists what is refused", async () => {
  const report = await examine();
  assert(!describe(report, false).includes("Not used on this adapter"), "nothing refused");
  const text = describe({ ...report, refused: [WRONG] }, false);
  assertIncludes(text, "matmul by matrices (matmul nt nf4 16-bit matrix 64x64: an error of 7.0e-1");
});

Deno.test("doctor says in words what matrix units get wrong", async () => {
  const report = await examine();
  const part = { part: "used once", count: 3, of: 64, first: 17 };
  const overwrite = {
    ...WRONG,
    kernel: "matrix units, overwrite",
    wrong: [part, { ...part, part: "used twice" }],
  };
  const right = { ...WRONG, kernel: "matrix units, reset", ok: true };
  const text = describe({ ...report, units: [overwrite, right] }, false);
  assertIncludes(text, "1 of 2 right");
  assertIncludes(
    text,
    "Wrong on matrix units, overwrite: used once: 3 of 64 values are wrong, the first at 17, and 1 part more",
  );
  assert(!text.includes("Wrong on matrix units, reset"), text);
});
