/**
 * Matrix units of any size on a driver that has none: what Deno's device is given to compile becomes plain WGSL, so that
 * kernels run with values at the sizes of GPUs that nobody here has. Lanes hold sums in an order of their own, as hardware
 * does, and reach each other through workgroup memory. What only hardware gets wrong does not show here.
 */
import { findAdapter, isSoftware, MATRICES, type MatrixShape, SIZE_CONTROL } from "../../kernels/device.ts";
import { testUnless } from "./skipped.ts";

/** What a GPU says of its matrices and subgroups. */
export interface Units extends Pick<MatrixShape, "M" | "N" | "K"> {
  readonly name: string;
  /** Fewest and most lanes of a subgroup. */
  readonly lanes: readonly [number, number];
}

/** Those of today's GPUs. */
export const GPUS = [
  { name: "NVIDIA", M: 16, N: 16, K: 16, lanes: [32, 32] },
  { name: "AMD", M: 16, N: 16, K: 16, lanes: [32, 64] },
  { name: "AMD with subgroups of 64", M: 16, N: 16, K: 16, lanes: [64, 64] },
  { name: "Intel", M: 8, N: 16, K: 16, lanes: [8, 32] },
  { name: "Apple", M: 8, N: 8, K: 8, lanes: [32, 32] },
] as const satisfies readonly Units[];

/** Bytes of workgroup memory of NVIDIA's GPUs; the software driver has what is asked for, but says less. */
const WORKGROUP_BYTES = 48 * 1024;

/** By the type of an array's elements: how many numbers each has, and number `e` of array `$`. */
const MEMORY: Readonly<Record<string, { per: number; f16?: string; f32?: string }>> = {
  vec4u: { per: 8, f16: "unpack2x16float($[e / 8u][e % 8u / 2u])[e % 2u]" },
  f16: { per: 1, f16: "f32($[e])" },
  vec4f: { per: 4, f32: "$[e / 4u][e % 4u]" },
  f32: { per: 1, f32: "$[e]" },
};

/** An array that matrices are loaded from, or stored to. */
type Memory = { readonly array: string } & typeof MEMORY[string];

/** Why kernels are not tested so; undefined where they are. */
async function reasonNot(): Promise<string | undefined> {
  if (Deno.env.has("LONGREACH_TEST_DEVICE")) return "a device is named";
  const adapter = await findAdapter("deno");
  return adapter && isSoftware(adapter.info) ? undefined : "for software drivers, which have the memory";
}
const reason = await reasonNot();

/** Defines a test on Deno's adapter with such units. */
export function emulatedTest(units: Units, name: string, fn: () => Promise<void>): void {
  testUnless(reason, `${units.name}, emulated: ${name}`, async () => {
    using _ = emulateUnits(units);
    await fn();
  });
}

/** Makes Deno's adapter one with such units, until it is disposed of. */
function emulateUnits(
  { name, M, N, K, lanes: [subgroupMinSize, subgroupMaxSize] }: Units,
): Disposable {
  const { gpu } = navigator;
  const { requestAdapter } = gpu;
  const added = new Set<string>([MATRICES, SIZE_CONTROL]);
  gpu.requestAdapter = async (options) => {
    const adapter = (await requestAdapter.call(gpu, options))!;
    const { maxComputeWorkgroupStorageSize } = adapter.limits;
    const limits = new Proxy(adapter.limits, {
      get: (of, key) => key === "maxComputeWorkgroupStorageSize" ? WORKGROUP_BYTES : Reflect.get(of, key, of),
    });
    const info = {
      vendor: name,
      device: "",
      description: `${name}, emulated`,
      subgroupMinSize,
      subgroupMaxSize,
      subgroupMatrixConfigs: [{ componentType: "f16", resultComponentType: "f32", M, N, K }],
    };
    const requestDevice = async ({ requiredFeatures = [], requiredLimits }: GPUDeviceDescriptor) => {
      const device = await adapter.requestDevice({
        requiredFeatures: [...requiredFeatures].filter((feature) => !added.has(feature)),
        requiredLimits: { ...requiredLimits, maxComputeWorkgroupStorageSize },
      });
      const createShaderModule = device.createShaderModule.bind(device);
      device.createShaderModule = ({ label = "", code }) =>
        createShaderModule({ label, code: emulated(code) });
      return Object.defineProperty(device, "limits", { value: limits });
    };
    const features = new Set([...adapter.features, ...added]);
    return { info, limits, features, requestDevice } as unknown as GPUAdapter;
  };
  return { [Symbol.dispose]: () => void (gpu.requestAdapter = requestAdapter) };
}

/** Rewrites a kernel for matrix units. Factors are read where they are used: none may be held while its memory changes. */
function emulated(code: string): string {
  if (!/\bsubgroup_(id|matrix)/.test(code)) return code;
  const memories: Memory[] = [...code.matchAll(/var<(?:workgroup|storage)[^>]*>\s*(\w+)\s*:\s*array<(\w+)/g)]
    .flatMap(([, array, type]) => type! in MEMORY ? [{ array: array!, ...MEMORY[type!]! }] : []);
  const enabled = code.includes("f16(") ? ["enable f16;"] : [];
  const body = code
    .replaceAll(/^(enable|requires|diagnostic)\b.*$/gm, "")
    .replaceAll(/^alias (Left|Right|Sums) = .*$/gm, "")
    .replace(/ @subgroup_size\(\w+\)/, "")
    .replaceAll(/^\s*@builtin\(subgroup\w+\).*$/gm, "")
    .replace(
      /\bfn main\([^{]*\{/,
      "$& emulated_thread = thread; let subgroup = thread / LANES; let lane = thread % LANES;",
    )
    .replaceAll(/subgroupMatrixLoad<(?:Left|Right), (\w+)_major>\(\s*&(\w+),/g, (_, order, array) => {
      const id = memories.findIndex((memory) => memory.array === array);
      return `Factor(${id}u, ${memories[id]!.per}u, ${order === "col"},`;
    })
    .replaceAll(/subgroupMatrixLoad<Sums, row_major>\(\s*&(\w+),/g, "emulated_load_$1(")
    .replaceAll(/subgroupMatrixStore<row_major>\(\s*&(\w+),/g, "emulated_store_$1(")
    .replaceAll("subgroupMatrixMultiply<f32>(", "emulated_multiply(")
    .replaceAll("subgroupMatrixMultiplyAccumulate(", "emulated_add(")
    .replaceAll("subgroupMatrixScalarMultiply(", "emulated_scale(")
    .replaceAll("Sums(0.0)", "Sums()")
    .replaceAll(
      /subgroupMax\((?=(largest_of)?)/g,
      (_, isInteger) => `emulated_max_${isInteger ? "i32" : "f32"}(`,
    )
    .replaceAll(
      /subgroupShuffleXor\((?=(lane|select)?)/g,
      (_, isInteger) => `emulated_xor_${isInteger ? "u32" : "f32"}(`,
    )
    // naga has no such bitcast.
    .replaceAll(/bitcast<u32>\(vec2h\(([^,]*), ([^)]*)\)\)/g, "pack2x16float(vec2f(f32($1), f32($2)))");
  return [
    ...enabled,
    "var<private> emulated_thread: u32;",
    ...(body.includes("emulated_add(") ? [matrices(body, memories)] : []),
    ...(/emulated_(max|xor)/.test(body) ? [SHUFFLES] : []),
    body,
  ].join("\n");
}

/** The types of matrices and what is done with them. A lane has the sums at every LANES-th place, the last first. */
function matrices(body: string, memories: readonly Memory[]): string {
  const ofMemory = memories.map(({ array, per, f16, f32 }, id) => {
    const e = `first * ${per}u + emulated_place(i) / SN * stride * ${per}u + emulated_place(i) % SN`;
    const number = (f16 ?? f32!).replace("$", array);
    return {
      case: f16 ? `case ${id}u: { return ${number}; }` : "",
      load: body.includes(`emulated_load_${array}(`)
        ? `fn emulated_load_${array}(first: u32, stride: u32) -> Sums {
  var own = Sums();
  for (var i = 0u; i < PLACES; i++) { let e = ${e}; own[i] = ${number}; }
  return own;
}`
        : "",
      store: body.includes(`emulated_store_${array}(`)
        ? `fn emulated_store_${array}(first: u32, given: Sums, stride: u32) {
  var own = given;
  for (var i = 0u; i < PLACES; i++) { let e = ${e}; ${number} = own[i]; }
}`
        : "",
    };
  });
  return `const PLACES = SM * SN / LANES;
alias Sums = array<f32, PLACES>;
fn emulated_place(i: u32) -> u32 { return (PLACES - 1u - i) * LANES + (emulated_thread + 3u) % LANES; }
fn emulated_f16(memory: u32, e: u32) -> f32 {
  switch memory { ${ofMemory.map((memory) => memory.case).join(" ")} default: { return 0.0; } }
}
// Where a factor lies: in which memory, of how many f16 an element; by lines of rows, or of columns.
struct Factor { memory: u32, per: u32, by_columns: bool, first: u32, stride: u32 }
fn emulated_element(factor: Factor, row: u32, column: u32) -> f32 {
  let line = select(row, column, factor.by_columns);
  let at = (factor.first + line * factor.stride) * factor.per + select(column, row, factor.by_columns);
  return emulated_f16(factor.memory, at);
}
fn emulated_add(left: Factor, right: Factor, sums_before: Sums) -> Sums {
  var own = sums_before;
  for (var i = 0u; i < PLACES; i++) {
    let n = emulated_place(i);
    for (var k = 0u; k < SK; k++) { own[i] += emulated_element(left, n / SN, k) * emulated_element(right, k, n % SN); }
  }
  return own;
}
fn emulated_multiply(left: Factor, right: Factor) -> Sums { return emulated_add(left, right, Sums()); }
fn emulated_scale(given: Sums, factor: f32) -> Sums {
  var own = given;
  for (var i = 0u; i < PLACES; i++) { own[i] *= factor; }
  return own;
}
${ofMemory.map(({ load, store }) => load + store).join("\n")}`;
}

/** Shuffles through workgroup memory: kernels call them where all threads come by. */
const SHUFFLES = `var<workgroup> emulated_words: array<u32, 1024>;
fn emulated_xor_u32(value: u32, mask: u32) -> u32 {
  workgroupBarrier();
  emulated_words[emulated_thread] = value;
  workgroupBarrier();
  return emulated_words[emulated_thread ^ mask];
}
fn emulated_xor_f32(value: f32, mask: u32) -> f32 { return bitcast<f32>(emulated_xor_u32(bitcast<u32>(value), mask)); }
fn emulated_max_i32(value: i32) -> i32 {
  var most = value;
  for (var mask = 1u; mask < LANES; mask *= 2u) { most = max(most, bitcast<i32>(emulated_xor_u32(bitcast<u32>(most), mask))); }
  return most;
}
fn emulated_max_f32(value: f32) -> f32 {
  var most = value;
  for (var mask = 1u; mask < LANES; mask *= 2u) { most = max(most, emulated_xor_f32(most, mask)); }
  return most;
}`;
