/** Kernels that drivers may get wrong: tried before they are trusted, and replaced where they are wrong. */
import { Gpu, type GpuInfo, type GpuOptions } from "../../kernels/gpu.ts";
import { matmul } from "../../kernels/matmul/matmul.ts";
import { matmulReference } from "../../kernels/matmul/reference.ts";
import { matmulTunables } from "../../kernels/matmul/variants.ts";
import { attention } from "../../kernels/attention/attention.ts";
import { makeAttentionMap } from "../../kernels/attention/map.ts";
import { attentionTunables } from "../../kernels/attention/variants.ts";
import { matvec } from "../../kernels/matvec/matvec.ts";
import { openGpu } from "../../kernels/open.ts";
import { describeRefusal, type Risk, type Verdict, type VerdictStore } from "../../kernels/refusal.ts";
import { largestError, runTrial } from "../../kernels/trial.ts";
import { trialsOf } from "../../kernels/trials.ts";
import { DRY_INFO, TYPICAL_LIMITS } from "../../kernels/dry_device.ts";
import { assemble, type Kernel } from "../../kernels/wgsl.ts";
import { planDevice } from "../../train/plan/step_cost.ts";
import { assert, assertEquals } from "../support/assert_close.ts";
import { normal } from "../support/random.ts";
import { testUnless } from "../support/skipped.ts";
import { assertIncludes } from "../support/text.ts";

const probe = await Gpu.open();
const withoutSubgroups = probe.sharing === "subgroup"
  ? undefined
  : "kernels by subgroups are not the first choice";
probe.close();
/** Needs an adapter on which kernels by subgroups are the first choice. */
const subgroupTest = (name: string, fn: () => Promise<void>) => testUnless(withoutSubgroups, name, fn);

const ALL_BY_SUBGROUPS: readonly Risk[] = [
  "attention by subgroups",
  "cache attention by subgroups",
  "matmul by subgroups",
  "matvec by subgroups",
];

/** A driver that compiles kernels with `pattern` in their text to something else. */
function breakDriver(gpu: Gpu, pattern: RegExp, replacement: string): Gpu {
  const run = gpu.run.bind(gpu);
  gpu.run = (kernel: Kernel, ...rest) => {
    const change = (text: string) => text.replace(pattern, replacement);
    const libraries = kernel.libraries?.map(change);
    run({ ...kernel, wgsl: change(kernel.wgsl), ...(libraries && { libraries }) }, ...rest);
  };
  return gpu;
}

/** Of every broadcast between lanes the sign is lost: what subgroups share is wrong. */
const openBroken = async (options: GpuOptions) =>
  breakDriver(await Gpu.open(options), /\bsubgroup(Broadcast|Shuffle\w*)\(/g, "-subgroup$1(");

class MemoryStore implements VerdictStore {
  verdicts: readonly Verdict[] = [];
  reads = 0;
  saves = 0;
  read(_: GpuInfo) {
    this.reads++;
    return Promise.resolve(this.verdicts);
  }
  save(_: GpuInfo, verdicts: readonly Verdict[]) {
    this.saves++;
    this.verdicts = verdicts;
    return Promise.resolve();
  }
}

const SIZE = { M: 40, N: 36, K: 72 };
const [x, w] = [normal(1, SIZE.M * SIZE.K), normal(2, SIZE.N * SIZE.K)];

async function matmulError(gpu: Gpu): Promise<number> {
  const y = matmul(gpu, gpu.tensor([SIZE.M, SIZE.K], x), gpu.tensor([SIZE.N, SIZE.K], w));
  return largestError(await gpu.read(y), matmulReference(x, w, SIZE));
}

Deno.test("every kernel that this adapter would be given is right, each with a name of its own", async () => {
  using gpu = await Gpu.open();
  const trials = trialsOf(gpu);
  assertEquals(new Set(trials.map(({ kernel }) => kernel)).size, trials.length);
  for (const trial of trials) {
    const verdict = await runTrial(gpu, trial);
    // Sums of few values of 8 bits are exact, all others round.
    const isExact = / 16-bit |^matrix units/.test(trial.kernel);
    assert(verdict.ok && (verdict.error! > 0 || isExact), JSON.stringify(verdict));
  }
});

subgroupTest("what is tried are the kernels that need subgroups, in every op that has some", async () => {
  using gpu = await Gpu.open();
  assertEquals([...new Set(trialsOf(gpu).flatMap(({ risks }) => risks))].sort(), ALL_BY_SUBGROUPS);
  using plain = await Gpu.open({ sharing: "workgroup" });
  assertEquals(trialsOf(plain), [], "plain kernels");
});

Deno.test("matrix units are tried in every layout and form, where they are chosen", () => {
  const gpu = Gpu.dry({
    limits: { ...TYPICAL_LIMITS, maxComputeWorkgroupStorageSize: 2 ** 16 },
    info: { ...DRY_INFO, matrices: [{ component: "f16", result: "f32", M: 16, N: 16, K: 16 }] },
  });
  const names = trialsOf(gpu).map(({ kernel }) => kernel);
  for (const product of ["nt dense", "nn dense", "tn dense", "nt nf4", "nn nf4"]) {
    // Of many rows NF4 is dequantised first.
    for (const tile of product.endsWith("nf4") ? ["64x64 by 8"] : ["64x64 by 8", "64x128", "128x128"]) {
      const kernel = `matmul ${product} 16-bit matrix ${tile}`;
      // Of the largest tiles the rows are f16 first, where it has rows.
      const isHalves = tile === "128x128" && !product.startsWith("tn");
      assert(names.includes(isHalves ? `${kernel} of halves` : kernel), `${kernel} in ${names}`);
    }
  }
  for (const part of ["forward", "dq", "dkv"]) {
    for (const headDim of [32, 64, 128]) {
      const kernel = `attention ${part} ${headDim} 16-bit matrix`;
      assert(names.some((name) => name.startsWith(kernel)), `${kernel} in ${names}`);
    }
  }
  const refused = Gpu.dry({
    limits: gpu.limits,
    info: gpu.info,
    refused: new Set<Risk>([
      "matmul by matrices",
      "attention by matrices",
      "attention gradients by matrices",
    ]),
  });
  assertEquals(trialsOf(refused), []);
  const all = [...matmulTunables(refused), ...attentionTunables(refused)];
  assert(all.every(({ variants }) => variants.every((name) => !name.startsWith("matrix"))), "no matrices");
  assertEquals(new Set(all.map(({ key }) => key)).size, all.length, "classes of their own");
});

Deno.test("matrix units are used where subgroups vary in size only if kernels can say which", () => {
  const matrices = [{ component: "f16", result: "f32", M: 16, N: 16, K: 16 }];
  const sourcesOn = (features: readonly string[], subgroupSize: number, subgroupMaxSize: number) => {
    const sources: string[] = [];
    const gpu = Gpu.dry({
      limits: { ...TYPICAL_LIMITS, maxComputeWorkgroupStorageSize: 2 ** 16 },
      info: { ...DRY_INFO, matrices, features: new Set(features), subgroupSize, subgroupMaxSize },
      onDispatch: ({ form }) => sources.push(assemble(form.kernel, form)),
    });
    const [x, w] = [gpu.empty([256, 64], "bf16"), gpu.empty([64, 64], "bf16")];
    const map = makeAttentionMap(gpu, { starts: [0], rows: 256 });
    const q = matmul(gpu, x, w);
    attention(gpu, q, q, q, map, { heads: 2, kvHeads: 2, headDim: 32 });
    return sources.filter((source) => source.includes("subgroup_matrix_left"));
  };
  const asking = (sources: string[]) =>
    sources.map((source) => {
      const [, lanes] = /const LANES = (\d+)u;/.exec(source)!;
      const asks = source.includes("@subgroup_size(LANES)") &&
        source.includes("enable subgroup_size_control;");
      return `${lanes}${asks ? " asked for" : ""}`;
    });
  assertEquals(asking(sourcesOn([], 32, 32)), ["32", "32"]);
  assertEquals(asking(sourcesOn([], 32, 64)), []);
  assertEquals(asking(sourcesOn(["subgroup-size-control"], 32, 64)), ["32 asked for", "32 asked for"]);
  assertEquals(asking(sourcesOn(["subgroup-size-control"], 8, 16)), ["16 asked for", "16 asked for"]);
});

subgroupTest("a kernel that is wrong is not used: results are right, and it is said", async () => {
  {
    using broken = await openBroken({});
    assert(await matmulError(broken) > 0.01, "the fault shows where kernels are trusted");
  }
  const told: Verdict[] = [];
  using gpu = breakDriver(
    await openGpu({ verdicts: new MemoryStore(), onRefusal: (verdict) => told.push(verdict) }, openBroken),
    /\bsubgroup(Broadcast|Shuffle\w*)\(/g,
    "-subgroup$1(",
  );
  assert(gpu.refused.has("matmul by subgroups"), [...gpu.refused].join());
  assert(await matmulError(gpu) < 1e-5, "the plain kernel");
  assertEquals(told.flatMap(({ risks }) => risks).sort(), [...gpu.refused].sort(), "each once");
  const line = describeRefusal(told.find(({ risks }) => risks.includes("matmul by subgroups"))!);
  assertIncludes(line, "matmul by subgroups (matmul nt dense subgroup 8x32");
  assert(!line.includes("\n"), "one line");
});

subgroupTest(
  "without its kernels by subgroups every op is right by the plain ones, tuned or not",
  async () => {
    const tuning = { "matmul nt dense medium": "subgroup 16x32", "attention forward 32": "subgroup 6" };
    const refused = new Set(ALL_BY_SUBGROUPS);
    using gpu = await Gpu.open({ refused, tuning, poison: true });
    const kernels: string[] = [];
    const run = gpu.run.bind(gpu);
    gpu.run = (kernel, ...rest) => {
      kernels.push([kernel.wgsl, ...kernel.libraries ?? []].join("\n"));
      run(kernel, ...rest);
    };
    using trusting = await Gpu.open();
    for (const trial of trialsOf(trusting).filter(({ risks }) => !risks.includes("matmul by subgroups"))) {
      const verdict = await runTrial(gpu, trial);
      assert(verdict.ok, JSON.stringify(verdict));
    }
    assert(await matmulError(gpu) < 1e-5, "matmul");
    const y = matvec(gpu, gpu.tensor([1, SIZE.K], x.slice(0, SIZE.K)), gpu.tensor([SIZE.N, SIZE.K], w));
    const expected = matmulReference(x.slice(0, SIZE.K), w, { ...SIZE, M: 1 });
    assert(largestError(await gpu.read(y), expected) < 1e-5, "matvec");
    assert(kernels.length > 5 && kernels.every((text) => !/\bsubgroup\w+\(/.test(text)), "no subgroups");
  },
);

subgroupTest(
  "a kernel that fails is refused with its error, and the others are tried all the same",
  async () => {
    const store = new MemoryStore();
    let opened = 0;
    using gpu = await openGpu({ verdicts: store }, async (options) => {
      opened++;
      return breakDriver(
        await Gpu.open(options),
        /^(?=[^]*\bsubgroup_size\b|[^]*fn accumulate)/,
        "not WGSL;\n",
      );
    });
    const failed = store.verdicts.filter(({ failure }) => failure !== null);
    assert(failed.length > 0 && failed.every(({ ok }) => !ok), "failures");
    assert(opened === failed.length + 1, "a device of its own after each");
    for (const risk of failed.flatMap(({ risks }) => risks)) assert(gpu.refused.has(risk), risk);
    assert(await matmulError(gpu) < 1e-5, "results");
  },
);

subgroupTest("kernels are compiled, side by side, before they are tried", async () => {
  const counts: number[] = [];
  using _ = await openGpu({ verdicts: new MemoryStore() }, async (options) => {
    const gpu = await Gpu.open(options);
    const { compile, close } = gpu;
    gpu.compile = async (forms) => {
      await compile.call(gpu, forms);
      counts.push(gpu.pipelineCount);
    };
    gpu.close = () => {
      counts.push(gpu.pipelineCount);
      close.call(gpu);
    };
    return gpu;
  });
  const [compiled, used] = counts;
  assert(compiled! > 0, "kernels compiled ahead");
  assertEquals(used, compiled, "kernels of the trials");
});

subgroupTest("where no device opens for trials, nothing is trusted and work goes on", async () => {
  using gpu = await openGpu(
    { verdicts: new MemoryStore() },
    () => Promise.reject(new Error("only one device")),
  );
  assertEquals([...gpu.refused].sort(), ALL_BY_SUBGROUPS);
});

subgroupTest("values that are no number are refused", async () => {
  const store = new MemoryStore();
  using gpu = await openGpu({ verdicts: store }, async (options) => {
    const trial = await Gpu.open(options);
    const read = trial.read.bind(trial);
    trial.read = async (tensor) => (await read(tensor)).fill(NaN, 3, 4);
    return trial;
  });
  assertEquals([...gpu.refused].sort(), ALL_BY_SUBGROUPS);
  assert(store.verdicts.every(({ ok, error }) => !ok && error === null), JSON.stringify(store.verdicts));
});

subgroupTest("verdicts are kept: the second time nothing is tried, only what has no verdict is", async () => {
  const store = new MemoryStore();
  let opened = 0;
  const open = async (options: GpuOptions) => {
    opened++;
    return await Gpu.open(options);
  };
  const openAgain = async () => (await openGpu({ verdicts: store }, open)).close();
  await openAgain();
  assertEquals([opened, store.saves], [1, 1]);
  await openAgain();
  assertEquals([opened, store.reads, store.saves], [1, 2, 1], "known");
  const first = store.verdicts[0]!;
  store.verdicts = store.verdicts.slice(1);
  await openAgain();
  assertEquals([opened, store.saves], [2, 2], "one unseen");
  assert(store.verdicts.some(({ kernel }) => kernel === first.kernel), "with the others");
  store.verdicts = store.verdicts.map((verdict) => ({
    ...verdict,
    ok: !verdict.risks.includes("matvec by subgroups"),
  }));
  using gpu = await openGpu({ verdicts: store }, open);
  assertEquals(
    [[...gpu.refused], opened],
    [["matvec by subgroups"], 2],
    "a verdict that is known is kept to",
  );
});

Deno.test("nothing is tried where the sharing or the refusals are given", async () => {
  const store = new MemoryStore();
  const open = () => Promise.reject(new Error("tried"));
  using shared = await openGpu({ verdicts: store, sharing: "workgroup" }, open);
  using told = await openGpu({ verdicts: store, refused: new Set<Risk>(["matvec by subgroups"]) }, open);
  assertEquals([store.reads, shared.refused.size, [...told.refused]], [0, 0, ["matvec by subgroups"]]);
});

Deno.test("a plan makes the choices of the device that it is for", async () => {
  const refused = new Set<Risk>(["matmul by subgroups", "attention by subgroups"]);
  using gpu = await Gpu.open({ refused });
  const dry = Gpu.dry(planDevice(gpu));
  assertEquals(matmulTunables(dry), matmulTunables(gpu));
  assertEquals(attentionTunables(dry), attentionTunables(gpu));
});
