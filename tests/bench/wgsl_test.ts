import { tunableCases } from "../../bench/suites/tunables.ts";
import { runWgsl, sourcesOf } from "../../bench/wgsl.ts";
import { Gpu } from "../../kernels/gpu.ts";
import { matmulBackwardInput } from "../../kernels/matmul/matmul.ts";
import { assemble } from "../../kernels/wgsl.ts";
import { type PlanDevice, planDevice, TYPICAL_DEVICE } from "../../train/plan/step_cost.ts";
import { assert, assertEquals } from "../support/assert_close.ts";
import { assertIncludes } from "../support/text.ts";

const KEY = "matmul nt nf4 large";

/** A GPU whose subgroups multiply matrices. */
const WITH_MATRICES: PlanDevice = {
  ...TYPICAL_DEVICE,
  info: {
    ...TYPICAL_DEVICE.info,
    subgroupSize: 32,
    subgroupMaxSize: 32,
    matrices: [{ component: "f16", result: "f32", M: 16, N: 16, K: 16 }],
  },
};

async function wgslFiles(folder: string): Promise<string[]> {
  const files: string[] = [];
  for await (const { name, isDirectory } of Deno.readDir(folder)) {
    if (isDirectory) files.push(...await wgslFiles(`${folder}/${name}`));
    else if (name.endsWith(".wgsl")) files.push(`${folder}/${name}`);
  }
  return files;
}

async function printed(...words: string[]): Promise<{ code: number; out: string; err: string }> {
  const lines = { out: "", err: "" };
  const io = { out: (text: string) => lines.out += text, err: (text: string) => lines.err += text };
  return { code: await runWgsl(words, io), ...lines };
}

Deno.test("every .wgsl file is part of a kernel that is printed for one device or another", async () => {
  const devices: PlanDevice[] = [{ ...WITH_MATRICES, sharing: "subgroup" }, WITH_MATRICES];
  const texts = (await Promise.all(devices.map(sourcesOf))).flatMap((sources) =>
    [...sources.values()].flatMap((each) => [...each])
  );
  // f32 beside rows of 16 bits, as LoRA's factors are, in a product of more than 16 columns.
  const gpu = Gpu.dry({
    ...WITH_MATRICES,
    onDispatch: ({ form }) => texts.push(assemble(form.kernel, form)),
  });
  matmulBackwardInput(gpu, gpu.empty([256, 64], "bf16"), gpu.empty([64, 64]));
  for (const file of await wgslFiles("kernels")) {
    const [header] = (await Deno.readTextFile(file)).split("\n");
    assert(texts.some((text) => text.includes(header!)), `${file} is in no kernel`);
  }
});

Deno.test("what is printed for a class is what the device compiles for it", async () => {
  const compiled = new Set<string>();
  const original = GPUDevice.prototype.createShaderModule;
  GPUDevice.prototype.createShaderModule = function (descriptor) {
    compiled.add(descriptor.code);
    return original.call(this, descriptor);
  };
  try {
    using gpu = await Gpu.open();
    const { work } = tunableCases(gpu).find(({ tunable }) => tunable.key === KEY)!;
    const { run, free } = work.prepare(gpu);
    compiled.clear();
    run();
    free();
    await gpu.settle();
    assertEquals([...(await sourcesOf(planDevice(gpu))).get(KEY)!], [...compiled]);
  } finally {
    GPUDevice.prototype.createShaderModule = original;
  }
});

Deno.test("the command prints by class, by variant and by kernel; what it does not know it says", async () => {
  const { code, out } = await printed("--typical", ...KEY.split(" "));
  assertEquals(code, 0);
  assertIncludes(out, "const ROW_QUADS = 2u;");
  assertIncludes((await printed("--typical", `${KEY}, workgroup 64x64 4x4`)).out, "const ROW_QUADS = 1u;");
  const first = await printed("--typical", `${KEY}, dequantise first`);
  assertIncludes(first.out, "NF4 to floats");
  assertIncludes(first.out, "C = alpha A B^T + beta C");
  assertIncludes((await printed("--typical", "rms_norm")).out, "fn main");
  assertIncludes((await printed("--typical")).out, `${KEY}\n`);
  const unknown = await printed("--typical", "rms_nrm");
  assertEquals([unknown.code, unknown.out], [2, ""]);
  assertIncludes(unknown.err, 'did you mean "rms_norm"?');
});
