/** Prints what a device compiles: `deno task wgsl "matmul nt nf4 large"`. For reviewers, profilers and other compilers. */
import { type Io, terminalIo } from "../cli/io.ts";
import { gpuOptionsOf } from "../cli/gpu_options.ts";
import { readTuning } from "../cli/tuning.ts";
import { EXIT, exitCodeOf } from "../cli/exit.ts";
import { UserError } from "../errors.ts";
import { type WebGpu, WEBGPUS } from "../kernels/device.ts";
import { Gpu, type Sharing } from "../kernels/gpu.ts";
import { matrixTrials } from "../kernels/matrix_trials/matrix_trials.ts";
import type { Tuning } from "../kernels/tuning.ts";
import { assemble } from "../kernels/wgsl.ts";
import { nearest } from "../nearest.ts";
import { type PlanDevice, planDevice, TYPICAL_DEVICE } from "../train/plan/step_cost.ts";
import { parseArgs } from "./deps.ts";
import { runEveryKernel, SMALL_LLAMA, SMALL_OTHERS } from "./every_kernel.ts";
import { oneOf } from "./options.ts";
import { tunableCases } from "./suites/tunables.ts";

const HELP = `Usage: deno task wgsl [flags] [NAME]

Prints the WGSL that this machine's device compiles for a kernel; without a name, the names that there are.

NAME is a class of products or attentions (matmul nt nf4 large), one of its variants (matmul nt nf4 large, workgroup
64x64 4x4), or a kernel as traces and errors name it (rms_norm), of which all specialisations are printed.

  --typical           for a GPU as most are, in place of this machine's
  --sharing MODE      subgroup or workgroup, in place of the adapter's own
  --webgpu NAME       deno (default) or dawn
  --help              this text
`;

/** Texts by the names that they go by: a class, a class and its variant, a kernel. */
export type Sources = ReadonlyMap<string, ReadonlySet<string>>;

/**
 * Assembles every kernel that training, writing and tuning can run on a device. Nothing is compiled or computed.
 */
export async function sourcesOf(device: PlanDevice): Promise<Sources> {
  const sources = new Map<string, Set<string>>();
  const add = (name: string, text: string) => {
    if (!sources.has(name)) sources.set(name, new Set());
    sources.get(name)!.add(text);
  };
  const open = (tuning: Tuning, namesOf: () => readonly string[] = () => []): Gpu =>
    Gpu.dry({
      ...device,
      tuning,
      onDispatch: ({ kernel, form }) =>
        [kernel, ...namesOf()].forEach((name) => add(name, assemble(form.kernel, form))),
    });
  const { tuning = {} } = device;
  for (const { tunable: { key, variants }, work } of tunableCases(open({}))) {
    for (const variant of variants) {
      let names: string[] = [];
      const { run } = work.prepare(open({ [key]: variant }, () => names));
      // What made the inputs is no part of the class.
      names = [`${key}, ${variant}`, ...(variant === (tuning[key] ?? variants[0]) ? [key] : [])];
      run();
    }
  }
  const gpu = open(tuning);
  for (const { run } of matrixTrials(gpu)) await run(gpu);
  for (const format of ["f32", "bf16", "f16"] as const) {
    for (const config of [SMALL_LLAMA, ...SMALL_OTHERS]) await runEveryKernel(open(tuning), config, format);
  }
  return sources;
}

/** The command. Returns the exit code. @param env reads a variable of the environment */
export async function runWgsl(
  words: readonly string[],
  io: Pick<Io, "out" | "err" | "tuning" | "trace">,
  env: (name: string) => string | undefined = () => undefined,
): Promise<number> {
  try {
    const options = readOptions(words, env);
    if (options === null) {
      io.out(HELP.trimEnd());
      return EXIT.ok;
    }
    const sources = await sourcesOf(await deviceOf(options, io));
    io.out(options.name === "" ? [...sources.keys()].sort().join("\n") : textOf(sources, options.name));
    return EXIT.ok;
  } catch (error) {
    if (!(error instanceof UserError)) throw error;
    io.err(error.message);
    return exitCodeOf(error);
  }
}

/** Prints what is compiled under a name, a kernel after the other. @throws {UserError} if nothing goes by it */
function textOf(sources: Sources, name: string): string {
  const texts = sources.get(name);
  if (texts) return [...texts].join("\n\n// ----\n\n");
  const near = nearest(name, [...sources.keys()]);
  throw new UserError(
    `No kernel goes by "${name}": ${
      near === null ? "without a name all are listed" : `did you mean "${near}"?`
    }`,
    { kind: "usage" },
  );
}

interface WgslOptions {
  readonly name: string;
  readonly isTypical: boolean;
  readonly sharing: Sharing | undefined;
  readonly webgpu: WebGpu;
}

const FLAGS = {
  typical: { type: "boolean" },
  sharing: { type: "string" },
  webgpu: { type: "string" },
  help: { type: "boolean", short: "h" },
} as const;

/** @throws {UserError} with exit code 2 if a flag is not known, or its value cannot be used */
function readOptions(
  words: readonly string[],
  env: (name: string) => string | undefined,
): WgslOptions | null {
  const { values, positionals } = parse(words);
  if (values.help) return null;
  return {
    name: positionals.join(" "),
    isTypical: values.typical ?? false,
    sharing: oneOf("sharing", values.sharing, ["subgroup", "workgroup"]),
    webgpu: oneOf("webgpu", values.webgpu ?? env("LONGREACH_WEBGPU"), WEBGPUS) ?? "deno",
  };
}

function parse(words: readonly string[]) {
  try {
    return parseArgs({ args: [...words], options: FLAGS, strict: true, allowPositionals: true });
  } catch (error) {
    throw new UserError((error as Error).message.split(". ")[0]!, { kind: "usage" });
  }
}

async function deviceOf(
  { isTypical, sharing, webgpu }: WgslOptions,
  io: Pick<Io, "tuning" | "trace">,
): Promise<PlanDevice> {
  const chosen = sharing === undefined ? {} : { sharing };
  if (isTypical) return { ...TYPICAL_DEVICE, ...chosen };
  using gpu = await Gpu.open({ ...gpuOptionsOf(io, webgpu), ...chosen });
  return planDevice(gpu);
}

if (import.meta.main) {
  // What is printed is what the commands run.
  const io: Io = { ...terminalIo(), tuning: async (info) => (await readTuning(info)).tuning };
  Deno.exit(await runWgsl(Deno.args, io, (name) => Deno.env.get(name)));
}
