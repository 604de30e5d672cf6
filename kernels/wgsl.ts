/**
 * From a `.wgsl` file to the text a device compiles: constants declared, loops unrolled, pieces put together, bindings
 * read. `deno task wgsl` prints that text.
 *
 * A kernel file is WGSL but for four things, all resolved here:
 *
 * - A name in capitals that the file does not declare is a constant of the kernel or of its launch. `const NAME = 4u;`
 *   is prepended for each. There are no overrides: a pipeline is made for each set of constants anyway.
 * - `#for i in 0..N` ... `#end` repeats the lines between with `$i` replaced by 0, 1, ... N-1. The bounds are whole
 *   numbers or names of constants (`0..N/2` also works); loops nest. Registers must have names: the CPU driver turns
 *   arrays indexed in a loop into memory, which halves the speed of a matmul (docs/lab-log.md). On a GPU it is not
 *   measured whether arrays and plain loops would do.
 * - `#needs a_fetch store` names what other pieces must define. What none of them does is an error by its name.
 * - A type named in the launch's `formats`, such as `X`, is one quad of four consecutive elements as stored:
 *   `alias X`, `load_X(X) -> vec4f` and `store_X(vec4f) -> X` are appended for it.
 */

/** Storage format of an element. Sums and registers are always f32. */
export type Format = "f32" | "bf16" | "f16";

/** WGSL constants by name: whole numbers become u32, the others bool. */
export type Constants = Readonly<Record<string, number | boolean>>;

/** One kernel: its name in errors and traces, and its source. */
export interface Kernel {
  readonly name: string;
  readonly wgsl: string;
  /** Further pieces of source, appended after it. */
  readonly libraries?: readonly string[];
  /** Constants that every launch of it has. */
  readonly constants?: Constants;
}

/** Values fixed when a pipeline is made. */
export interface Specialisation {
  readonly constants?: Constants | undefined;
  readonly formats?: Readonly<Record<string, Format>> | undefined;
}

/** A kernel as a pipeline is made of it. */
export interface KernelForm extends Specialisation {
  readonly kernel: Kernel;
}

export interface Binding {
  readonly index: number;
  readonly name: string;
  readonly type: "uniform" | "read-only-storage" | "storage";
}

/** Declarations of a source. */
export interface Interface {
  readonly bindings: readonly Binding[];
  /** Fields of `struct Params`, in order: each 4 bytes. */
  readonly uniforms: readonly { readonly name: string; readonly type: "u32" | "i32" | "f32" }[];
}

/**
 * Makes the text to compile for one specialisation of a kernel.
 * @throws {TypeError} if it lacks a name that a piece needs, or has a constant that no piece reads
 */
export function assemble(kernel: Kernel, { constants = {}, formats = {} }: Specialisation): string {
  const values = { ...kernel.constants, ...constants };
  const pieces = [kernel.wgsl, ...(kernel.libraries ?? [])];
  const read = new Set(pieces.join("\n").replaceAll(/\/\/.*/g, "").match(/\w+/g));
  for (const name of Object.keys(values)) {
    if (!read.has(name)) throw new TypeError(`Kernel "${kernel.name}" has no constant "${name}"`);
  }
  // Directives must come before all else in a module.
  const [directives, needs, body]: [string[], string[], string[]] = [[], [], []];
  for (const line of pieces.flatMap((text) => unroll(kernel.name, text, values))) {
    if (/^(enable|requires|diagnostic)\b/.test(line)) directives.push(line);
    else if (/^\s*#needs\b/.test(line)) {
      needs.push(...line.replace(/\/\/.*/, "").trim().split(/\s+/).slice(1));
    } else body.push(line);
  }
  const text = [
    ...directives,
    ...Object.entries(values).map(([name, value]) => declaration(kernel.name, name, value)),
    ...body,
    ...Object.entries(formats).map(([alias, format]) => quadFormat(alias, format)),
  ].join("\n");
  const defined = new Set(
    [...text.matchAll(/^\s*(?:@\S+\s+)*(?:fn|struct|alias|const|var<[^>]*>)\s+(\w+)/gm)].map(([, name]) =>
      name!
    ),
  );
  const missing = needs.filter((name) => !defined.has(name));
  if (missing.length > 0) {
    throw new TypeError(`Kernel "${kernel.name}" needs ${missing.join(", ")}, which no piece of it defines`);
  }
  return text;
}

/** Reads bindings and uniforms from an assembled source. */
export function readInterface(source: string): Interface {
  const bindings: Binding[] = [];
  for (const [, index, space, name] of source.matchAll(/@binding\((\d+)\)\s*var<([^>]+)>\s*(\w+)/g)) {
    const type = space === "uniform"
      ? "uniform"
      : space!.includes("read_write")
      ? "storage"
      : "read-only-storage";
    bindings.push({ index: Number(index), name: name!, type });
  }
  const struct = (/struct Params \{([^}]*)\}/.exec(source)?.[1] ?? "").replaceAll(/\/\/.*/g, "");
  const uniforms = [...struct.matchAll(/(\w+)\s*:\s*(u32|i32|f32)/g)].map(([, name, type]) => ({
    name: name!,
    type: type as "u32" | "i32" | "f32",
  }));
  return { bindings: bindings.sort((a, b) => a.index - b.index), uniforms };
}

function declaration(kernel: string, name: string, value: number | boolean): string {
  if (typeof value === "boolean") return `const ${name} = ${value};`;
  if (Number.isInteger(value) && value >= 0 && value < 2 ** 32) return `const ${name} = ${value}u;`;
  throw new TypeError(`Kernel "${kernel}": constant "${name}" must be a u32, got ${value}`);
}

/** The lines of a piece with its loops written out. */
function unroll(kernel: string, source: string, constants: Constants): string[] {
  const lines = source.split("\n");
  let at = 0;

  function bound(text: string): number {
    const [, name, divisor] = /^(\w+)(?:\/(\d+))?$/.exec(text) ?? [];
    const value = name === undefined ? NaN : /^\d+$/.test(name) ? Number(name) : constants[name];
    const count = typeof value === "number" ? value / Number(divisor ?? 1) : NaN;
    if (!Number.isInteger(count)) {
      throw new TypeError(`Cannot unroll kernel "${kernel}": no whole number for "${text}" at line ${at}`);
    }
    return count;
  }

  function block(inside: boolean): string[] {
    const out: string[] = [];
    while (at < lines.length) {
      const line = lines[at++]!;
      const loop = /^\s*#for (\w+) in (\w+)\.\.(\S+)\s*$/.exec(line);
      if (loop) {
        const [, name, first, last] = loop;
        const body = block(true);
        for (let i = bound(first!); i < bound(last!); i++) {
          out.push(...body.map((text) => text.replace(/^ {2}/, "").replaceAll(`$${name}`, String(i))));
        }
      } else if (/^\s*#end\s*$/.test(line)) {
        if (!inside) throw new TypeError(`Cannot unroll kernel "${kernel}": #end without #for at line ${at}`);
        return out;
      } else {
        out.push(line);
      }
    }
    if (inside) throw new TypeError(`Cannot unroll kernel "${kernel}": #for without #end`);
    return out;
  }
  return block(false);
}

/** Quads of bf16 and f16 are two u32 with the earlier element in the low half: no device feature is needed. */
function quadFormat(alias: string, format: Format): string {
  switch (format) {
    case "f32":
      return `alias ${alias} = vec4f;
fn load_${alias}(q: vec4f) -> vec4f { return q; }
fn store_${alias}(v: vec4f) -> vec4f { return v; }`;
    case "bf16":
      return `alias ${alias} = vec2u;
fn load_${alias}(q: vec2u) -> vec4f {
  return bitcast<vec4f>(vec4u(q.x << 16u, q.x & 0xffff0000u, q.y << 16u, q.y & 0xffff0000u));
}
fn store_${alias}(v: vec4f) -> vec2u {
  let bits = bitcast<vec4u>(v);
  let is_nan = (bits & vec4u(0x7fffffffu)) > vec4u(0x7f800000u);
  let even = bits + vec4u(0x7fffu) + ((bits >> vec4u(16u)) & vec4u(1u));
  let h = select(even, bits | vec4u(0x400000u), is_nan) >> vec4u(16u);
  return vec2u(h.x | (h.y << 16u), h.z | (h.w << 16u));
}`;
    case "f16":
      return `alias ${alias} = vec2u;
fn load_${alias}(q: vec2u) -> vec4f { return vec4f(unpack2x16float(q.x), unpack2x16float(q.y)); }
fn store_${alias}(v: vec4f) -> vec2u {
  // Past 65519.99 the result of pack2x16float is not defined: make it infinity, so that loss scaling sees it.
  let finite = abs(v) < vec4f(65520.0);
  let packed = vec2u(pack2x16float(select(vec2f(), v.xy, finite.xy)), pack2x16float(select(vec2f(), v.zw, finite.zw)));
  let sign = (bitcast<vec4u>(v) >> vec4u(16u)) & vec4u(0x8000u);
  let is_nan = (bitcast<vec4u>(v) & vec4u(0x7fffffffu)) > vec4u(0x7f800000u);
  let special = select(sign | vec4u(0x7c00u), vec4u(0x7e00u), is_nan);
  let h = select(special, vec4u(packed.x & 0xffffu, packed.x >> 16u, packed.y & 0xffffu, packed.y >> 16u), finite);
  return vec2u(h.x | (h.y << 16u), h.z | (h.w << 16u));
}`;
  }
}
