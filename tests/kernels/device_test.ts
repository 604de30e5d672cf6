import { openDevice, type WebGpu } from "../../kernels/device.ts";
import { assert, assertEquals, assertThrows } from "../support/assert_close.ts";

const MATRICES = "chromium-experimental-subgroup-matrix";
const MAPPABLE = "mappable-primary-buffers";

/** What a fake adapter has, and was asked for. */
interface Fake {
  readonly adapter: GPUAdapter;
  readonly asked: readonly string[][];
}

/** An adapter that grants all but some features; `listed` are those that it admits to. */
function fakeAdapter(refused: readonly string[], listed: readonly string[] = []): Fake {
  const asked: string[][] = [];
  const config = (componentType: string) => ({
    componentType,
    resultComponentType: "f32",
    M: 16,
    N: 16,
    K: 16,
  });
  const adapter = {
    features: new Set(listed),
    limits: { maxBufferSize: 2 ** 30 },
    info: {
      description: "a fake",
      vendor: "1",
      subgroupMinSize: 32,
      subgroupMaxSize: 32,
      subgroupMatrixConfigs: [config("f16"), config("i8")],
    },
    requestDevice({ requiredFeatures = [] }: { requiredFeatures?: string[] }) {
      asked.push([...requiredFeatures]);
      const wrong = requiredFeatures.find((feature) => refused.includes(feature));
      if (wrong !== undefined) return Promise.reject(new TypeError(`no ${wrong}`));
      return Promise.resolve({ features: new Set(requiredFeatures) });
    },
  };
  return { adapter: adapter as unknown as GPUAdapter, asked };
}

async function open({ adapter }: Fake, webgpu: WebGpu, timestamps = false, without: string[] = []) {
  const { info } = await openDevice(webgpu, { timestamps, without, find: () => Promise.resolve(adapter) });
  return { ...info, features: [...info.features].sort() };
}

Deno.test("all features are had in one request where none is refused", async () => {
  const native = fakeAdapter([]);
  assertEquals((await open(native, "deno")).features, [MAPPABLE, "subgroups"]);
  assertEquals(native.asked.length, 1);
  const dawn = fakeAdapter([], [MATRICES, "timestamp-query"]);
  const { features, subgroupSize, matrices } = await open(dawn, "dawn", true);
  assertEquals(features, [MATRICES, "shader-f16", "subgroups", "timestamp-query"]);
  assertEquals([subgroupSize, matrices.map(({ component }) => component)], [32, ["f16", "i8"]]);
  assertEquals(dawn.asked.length, 1);
});

Deno.test("a feature that is refused takes no other with it, but those that need it", async () => {
  const all = ["shader-f16", "subgroups", MATRICES];
  const left: Record<string, readonly string[]> = {
    "shader-f16": ["subgroups", MATRICES],
    "subgroups": ["shader-f16"],
    [MATRICES]: ["shader-f16", "subgroups"],
  };
  for (const refused of all) {
    const { features, subgroupSize, matrices } = await open(fakeAdapter([refused], [MATRICES]), "dawn");
    assertEquals(features, [...left[refused]!].sort(), `without ${refused}`);
    assertEquals(subgroupSize, refused === "subgroups" ? 0 : 32, `without ${refused}`);
    // Matrices of f16 are of no use to a device that has no f16.
    const components = { "shader-f16": ["i8"] }[refused] ?? [];
    assertEquals(matrices.map(({ component }) => component), components, `without ${refused}`);
  }
  assertEquals((await open(fakeAdapter(["subgroups"]), "deno")).features, [MAPPABLE]);
  assertEquals((await open(fakeAdapter([MAPPABLE]), "deno")).features, ["subgroups"]);
  assertEquals((await open(fakeAdapter(["subgroups", MAPPABLE]), "deno")).features, []);
});

Deno.test("a feature that is withheld is not asked for, nor what is of no use without it", async () => {
  const fake = fakeAdapter([], [MATRICES]);
  const { features, subgroupSize } = await open(fake, "dawn", false, ["subgroups"]);
  assertEquals([features, subgroupSize], [["shader-f16"], 0]);
  assert(fake.asked.every((asked) => !asked.includes("subgroups")), JSON.stringify(fake.asked));
  assertEquals((await open(fakeAdapter([]), "deno", false, [MAPPABLE])).features, ["subgroups"]);
});

Deno.test("timestamps are asked for alone, and an adapter without them is refused by name", async () => {
  const fake = fakeAdapter([], ["timestamp-query"]);
  assertEquals((await open(fake, "deno")).features.includes("timestamp-query"), false);
  assert((await open(fake, "deno", true)).features.includes("timestamp-query"), "asked for");
  await assertThrows(() => open(fakeAdapter([]), "deno", true), `"a fake" has no timestamp queries`);
});

Deno.test("an adapter that opens no device at all says why", async () => {
  const { adapter } = fakeAdapter([]);
  adapter.requestDevice = () => Promise.reject(new Error("out of handles"));
  await assertThrows(() => open({ adapter, asked: [] }, "deno"), "out of handles");
  await assertThrows(
    () => openDevice("dawn", { timestamps: false, find: () => Promise.resolve(null) }),
    "Dawn finds no GPU adapter",
  );
});
