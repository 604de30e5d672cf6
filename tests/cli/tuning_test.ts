import { adapterKey, kernelVersion } from "../../cli/adapter_file.ts";
import { readTuning, saveTuning, tuningFile } from "../../cli/tuning.ts";
import { Gpu, type GpuInfo } from "../../kernels/gpu.ts";
import { assert, assertEquals } from "../support/assert_close.ts";
import { withFolder } from "../support/files.ts";
import { assertIncludes } from "../support/text.ts";

const INFO: GpuInfo = {
  webgpu: "deno",
  description: "a card",
  vendor: "1",
  isSoftware: false,
  subgroupSize: 32,
  subgroupMaxSize: 32,
  features: new Set(),
  matrices: [],
};

Deno.test("tuningFile() goes by the platform's folder for caches", () => {
  const at = (os: typeof Deno.build.os, env: Record<string, string>) => tuningFile((name) => env[name], os);
  assertEquals(at("linux", { HOME: "/h" }), "/h/.cache/longreach/tuning.json");
  assertEquals(at("linux", { HOME: "/h", XDG_CACHE_HOME: "/x" }), "/x/longreach/tuning.json");
  assertEquals(at("linux", { HOME: "/h", XDG_CACHE_HOME: "" }), "/h/.cache/longreach/tuning.json");
  assertEquals(at("darwin", { HOME: "/h" }), "/h/Library/Caches/longreach/tuning.json");
  assertEquals(at("windows", { LOCALAPPDATA: "C:/l" }), "C:/l/longreach/tuning.json");
  assertEquals(at("linux", {}), null);
});

Deno.test("what is saved for an adapter is read back, beside that of others", async () => {
  await withFolder(async (folder) => {
    const file = `${folder}/deep/tuning.json`;
    const other = { ...INFO, description: "another card" };
    await saveTuning(INFO, { "matmul": "a" }, file);
    await saveTuning(other, { "matmul": "b" }, file);
    await saveTuning(INFO, { "matmul": "c" }, file);
    const mine = await readTuning(INFO, file);
    assertEquals(mine.tuning, { "matmul": "c" });
    assertEquals(mine.note, null);
    assert(mine.date !== null && !Number.isNaN(Date.parse(mine.date)), "a date");
    assertEquals((await readTuning(other, file)).tuning, { "matmul": "b" });
    assertEquals(JSON.parse(await Deno.readTextFile(file)).adapters.length, 2);
    for await (const { name } of Deno.readDir(`${folder}/deep`)) assertEquals(name, "tuning.json");
  });
});

Deno.test("another driver, WebGPU or subgroup size is another adapter", () => {
  const changes: Partial<GpuInfo>[] = [
    { webgpu: "dawn" },
    { description: "driver 2" },
    { subgroupSize: 16 },
    {
      vendor: "2",
    },
  ];
  for (const change of changes) {
    assert(adapterKey({ ...INFO, ...change }) !== adapterKey(INFO), JSON.stringify(change));
  }
});

Deno.test("tuning for other kernels is not used, and says so", async () => {
  await withFolder(async (folder) => {
    const file = `${folder}/tuning.json`;
    await saveTuning(INFO, { "matmul": "a" }, file);
    const text = await Deno.readTextFile(file);
    await Deno.writeTextFile(file, text.replace(await kernelVersion(), "0123456789abcdef"));
    const { tuning, note } = await readTuning(INFO, file);
    assertEquals(tuning, {});
    assertIncludes(note!, "for other kernels");
    assertIncludes(note!, "deno task bench --tune");
  });
});

Deno.test("kernelVersion() changes with any kernel's text or name", async () => {
  await withFolder(async (folder) => {
    await Deno.mkdir(`${folder}/deep`);
    const versions = new Set<string>();
    const note = async () => versions.add(await kernelVersion(folder));
    await Deno.writeTextFile(`${folder}/deep/a.wgsl`, "one");
    await note();
    await Deno.writeTextFile(`${folder}/deep/a.wgsl`, "two");
    await note();
    await Deno.rename(`${folder}/deep/a.wgsl`, `${folder}/deep/b.wgsl`);
    await note();
    await Deno.writeTextFile(`${folder}/variants.ts`, "tiles");
    await note();
    assertEquals(versions.size, 4);
    await Deno.writeTextFile(`${folder}/reference.ts`, "no kernel");
    await note();
    assertEquals(versions.size, 4);
  });
});

Deno.test("a broken file is never fatal: it is noted, and replaced when something is saved", async () => {
  await withFolder(async (folder) => {
    const file = `${folder}/tuning.json`;
    assertEquals(await readTuning(INFO, file), { tuning: {}, date: null, note: null });
    const broken = [
      "",
      "{",
      "null",
      "[]",
      '{"version":2,"adapters":[]}',
      '{"version":1,"adapters":[null]}',
      '{"version":1,"adapters":[{"adapter":"a","kernels":"k","date":"d","tuning":{"matmul":1}}]}',
    ];
    for (const text of broken) {
      await Deno.writeTextFile(file, text);
      const { tuning, note } = await readTuning(INFO, file);
      assertEquals(tuning, {}, text);
      assertIncludes(note ?? "", "is not used");
    }
    await saveTuning(INFO, { "matmul": "a" }, file);
    assertEquals((await readTuning(INFO, file)).tuning, { "matmul": "a" });
  });
});

Deno.test("a device looks up its tuning, unless it is told how to share or what to choose", async () => {
  const asked: string[] = [];
  const tuning = (info: GpuInfo) => {
    asked.push(info.description);
    return Promise.resolve({ "some work": "some variant" });
  };
  using gpu = await Gpu.open({ tuning });
  assertEquals(gpu.tuning, { "some work": "some variant" });
  assertEquals(asked, [gpu.info.description]);
  using told = await Gpu.open({ tuning: { "some work": "another" } });
  assertEquals(told.tuning, { "some work": "another" });
  using shared = await Gpu.open({ tuning, sharing: "workgroup" });
  assertEquals(shared.tuning, {});
  using untuned = await Gpu.open();
  assertEquals(untuned.tuning, {});
  assertEquals(asked.length, 1);
});
