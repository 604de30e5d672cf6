/**
 * Every `.wgsl` file compiles in every specialisation that training and writing use, on the compiler that will run it;
 * none is left over; and none can be broken without a run failing by its name.
 */
import { runEveryKernel, SMALL_LLAMA, SMALL_OTHERS } from "../../bench/every_kernel.ts";
import { matmul } from "../../kernels/matmul/matmul.ts";
import { Gpu } from "../../kernels/gpu.ts";
import { assemble, type Kernel, readInterface } from "../../kernels/wgsl.ts";
import { assert, assertEquals, assertThrows } from "../support/assert_close.ts";
import { ALL_SHARINGS, sharingTest } from "../support/sharing.ts";

/** Kernels on matrix units, and their trials. */
const ON_MATRICES = /matrix\.wgsl$|\/matrix_trials\//;

/** @param all those on matrix units too, which this compiler does not know */
async function wgslFiles(folder: string, all = false): Promise<string[]> {
  const files: string[] = [];
  for await (const { name, isDirectory } of Deno.readDir(folder)) {
    if (isDirectory) files.push(...await wgslFiles(`${folder}/${name}`, all));
    else if (name.endsWith(".wgsl") && (all || !ON_MATRICES.test(`${folder}/${name}`))) {
      files.push(`${folder}/${name}`);
    }
  }
  return files.sort();
}

sharingTest("subgroup", "Training and writing compile every .wgsl file without a complaint", async () => {
  const compiled: string[] = [];
  const original = GPUDevice.prototype.createShaderModule;
  const problems: Promise<string[]>[] = [];
  GPUDevice.prototype.createShaderModule = function (descriptor) {
    const module = original.call(this, descriptor);
    compiled.push(descriptor.code);
    problems.push(
      module.getCompilationInfo().then(({ messages }) =>
        messages.map(({ message }) => `${descriptor.label}: ${message}`)
      ),
    );
    return module;
  };
  try {
    for (const sharing of ALL_SHARINGS) {
      for (const format of ["f32", "bf16", "f16"] as const) {
        using gpu = await Gpu.open({ sharing });
        await runEveryKernel(gpu, SMALL_LLAMA, format);
      }
    }
    for (const config of SMALL_OTHERS) {
      using gpu = await Gpu.open({ sharing: "subgroup" });
      await runEveryKernel(gpu, config, "bf16");
    }
    // Nobody's default.
    using gpu = await Gpu.open({
      sharing: "workgroup",
      tuning: { "matmul nt dense medium": "direct 32x32" },
    });
    await gpu.readBytes([matmul(gpu, gpu.zeros([256, 64]), gpu.zeros([256, 64]))]);
  } finally {
    GPUDevice.prototype.createShaderModule = original;
  }
  assertEquals((await Promise.all(problems)).flat(), []);
  const unused: string[] = [];
  for (const file of await wgslFiles("kernels")) {
    // The first line is the file's own comment, which unrolling leaves as it is.
    const [header] = (await Deno.readTextFile(file)).split("\n");
    assert(header!.startsWith("// "), `${file} must begin with a comment that says what it computes`);
    if (!compiled.some((code) => code.includes(header!))) unused.push(file);
  }
  assertEquals(unused, [], "files that no step compiles");
});

Deno.test("A kernel file with one name misspelt stops the run, naming the kernel", async () => {
  for (const file of await wgslFiles("kernels")) {
    const source = await Deno.readTextFile(file);
    if (!/@compute/.test(source)) continue;
    using gpu = await Gpu.open();
    const wgsl = source.replaceAll(/^ *#needs.*$/gm, "").replace("fn main(", "fn main_misspelt(");
    const kernel: Kernel = { name: file, wgsl };
    // As it is with every loop run once.
    const { bindings, uniforms: values } = readInterface(source.replaceAll(/\$\w/g, "0"));
    const tensors = Object.fromEntries(
      bindings.filter(({ type }) => type !== "uniform").map(({ name }) => [name, gpu.zeros([4])]),
    );
    const bounds = (pattern: RegExp, value: number) =>
      [...source.matchAll(pattern)].map(([, name]) => [name!, value] as const);
    const constants = Object.fromEntries([
      ...bounds(/^\s*#for \w+ in ([A-Z]\w*)\.\./gm, 1),
      ...bounds(/^\s*#for \w+ in \w+\.\.([A-Z]\w*)/gm, 1),
    ]);
    const uniforms = Object.fromEntries(values.map(({ name }) => [name, 0]));
    gpu.run(kernel, tensors, { grid: [1], uniforms, constants });
    await assertThrows(() => gpu.read(gpu.zeros([1])), `Kernel "${file}" does not compile`);
  }
});

/** Functions of WGSL itself that kernels call. */
const BUILTIN = new Set(
  ("abs all any array atomicAdd atomicLoad atomicMax atomicOr atomicStore bitcast ceil clamp cos countOneBits dot exp exp2 f16 f32 " +
    "firstLeadingBit floor fma i32 inverseSqrt log log2 mat2x4f mat4x4f max min pack2x16float pow round saturate select sign sin sqrt " +
    "storageBarrier subgroupAdd subgroupBroadcast subgroupMatrixLoad subgroupMatrixMultiply " +
    "subgroupMatrixMultiplyAccumulate subgroupMatrixScalarMultiply " +
    "subgroupMatrixStore subgroupMax subgroupShuffle subgroupShuffleXor tanh transpose trunc u32 unpack2x16float " +
    "unpack2x16unorm vec2f vec2h vec2u vec3f vec3u vec4 vec4f vec4i vec4u workgroupBarrier workgroupUniformLoad")
    .split(
      " ",
    ),
);

/** Files that name in `#needs` what operands are given, of which some read masks. */
const FOR_OPERANDS = new Set(["kernels/matmul/store.wgsl", "kernels/experts/grouped_params.wgsl"]);

Deno.test("Every .wgsl file says in #needs what it takes from others: functions, constants and nothing else", async () => {
  const problems: string[] = [];
  for (const file of await wgslFiles("kernels", true)) {
    // Unrolled over the pairs of operands, of which pair 1 is always there.
    const code = (await Deno.readTextFile(file)).replaceAll(/\/\/.*/g, "").replaceAll("_$pair", "_1");
    const needs = new Set(
      [...code.matchAll(/^ *#needs (.*)$/gm)].flatMap(([, names]) => names!.trim().split(/ +/)),
    );
    const text = code.replaceAll(/^ *#needs.*$/gm, "");
    const defined = new Set(
      [...text.matchAll(/\b(?:fn|struct|alias|const|var(?:<[^>]*>)?) ([\w$]+)/g)].map(([, name]) => name!),
    );
    const called = [...text.matchAll(/(?<![@.\w$])([a-zA-Z_][\w$]*)(?=\()/g)].map(([, name]) => name!)
      .filter((name) =>
        !BUILTIN.has(name) &&
        !/^(if|for|while|switch|return|builtin|binding|group|enable|diagnostic|workgroup_size|vec4|[A-Z]|(load|store)_[A-Z])$/
          .test(name)
      );
    const constants = [...text.matchAll(/\b[A-Z][A-Z0-9_]+\b/g)].map(([name]) => name);
    const used = new Set([...called, ...constants].filter((name) => !defined.has(name)));
    for (const name of used.difference(needs)) problems.push(`${file} does not say that it needs ${name}`);
    for (const name of FOR_OPERANDS.has(file) ? [] : needs) {
      if (!new RegExp(`(?<![\\w$])${name.replaceAll("$", "\\$")}(?![\\w$])`).test(text)) {
        problems.push(`${file} does not use ${name}`);
      }
    }
  }
  assertEquals(problems, []);
});

Deno.test("What no piece defines, and constants that none reads, are errors by name", async () => {
  const piece = "#needs twice N    // a factor\nfn f() -> u32 { return twice(N); }";
  const kernel = (...libraries: string[]): Kernel => ({
    name: "k",
    wgsl: piece,
    libraries,
    constants: { N: 3 },
  });
  assertEquals(
    assemble(kernel("enable f16;\nfn twice(n: u32) -> u32 { return 2u * n; }"), {}).split("\n"),
    [
      "enable f16;",
      "const N = 3u;",
      "fn f() -> u32 { return twice(N); }",
      "fn twice(n: u32) -> u32 { return 2u * n; }",
    ],
  );
  await assertThrows(() => assemble(kernel("fn thrice() {}"), {}), `Kernel "k" needs twice`);
  await assertThrows(() => assemble({ ...kernel("fn twice() {}"), constants: {} }, {}), `Kernel "k" needs N`);
  await assertThrows(() => assemble(kernel("fn twice() {}"), { constants: { M: 1 } }), `no constant "M"`);
  await assertThrows(() => assemble(kernel("fn twice() {}"), { constants: { N: -1 } }), `"N" must be a u32`);
});

Deno.test("#for unrolls, nests and takes constants; what it cannot unroll it names", async () => {
  const kernel = (wgsl: string): Kernel => ({ name: "k", wgsl });
  const nested = "#for g in 0..2\n#for e in 1..N\na$g_$e\n#end\n#end";
  assertEquals(assemble(kernel(nested), { constants: { N: 3 } }), "const N = 3u;\na0_1\na0_2\na1_1\na1_2");
  assertEquals(
    assemble(kernel("#for i in 0..N/4\nb$i\n#end"), { constants: { N: 8 } }),
    "const N = 8u;\nb0\nb1",
  );
  await assertThrows(() => assemble(kernel("#for i in 0..M\n#end"), {}), `kernel "k"`, `"M"`);
  await assertThrows(() => assemble(kernel("#for i in 0..2\n"), {}), "without #end");
  await assertThrows(() => assemble(kernel("#end"), {}), "without #for");
});
