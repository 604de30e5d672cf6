import { nearest } from "../nearest.ts";
import { parseArgs } from "./deps.ts";
import { UserError } from "../errors.ts";
import { type WebGpu, WEBGPUS } from "../kernels/device.ts";
import type { Sharing } from "../kernels/gpu.ts";
import type { Clock } from "./clock.ts";
import type { Extent } from "./suites/case.ts";

/** Kind of measurement. */
export type Mode = "kernels" | "s2" | "step" | "decode" | "memory" | "load" | "tune" | "variants";

/** The command line, read. */
export interface BenchOptions {
  readonly mode: Mode;
  /** Chosen by the adapter unless set. */
  readonly extent: Extent | undefined;
  /** Rows whose name has this in it. */
  readonly filter: RegExp | undefined;
  /** One mode of sharing, or each the adapter has; its own unless set. */
  readonly sharing: Sharing | "both" | undefined;
  /** Implementation of WebGPU: Deno's unless set, here or in the environment. */
  readonly webgpu: WebGpu;
  /** Toggles of Dawn besides its usual ones. */
  readonly toggles: readonly string[];
  /** Most multiply-adds of a submit; the device's own unless set. */
  readonly mostWork: number | undefined;
  /** `device` unless set. */
  readonly clock: Clock;
  /** Seconds a row; by the extent unless set. */
  readonly seconds: number | undefined;
  /** GiB on the device that a row may take, by the adapter unless set; or a step, which takes the least unless set. */
  readonly room: number | undefined;
  /** Path of the result as JSON. */
  readonly json: string | undefined;
  /** An earlier result to set beside this one. */
  readonly compare: string | undefined;
  /** Model of `step` and `decode`: a name of model/shapes.ts, or `demo`. */
  readonly shape: string;
  /** T of `step`. */
  readonly tokens: number | undefined;
  /** Whether `step` uses full attention in place of S2-Attn with G = T / 4. */
  readonly full: boolean;
  /** R of `step`. */
  readonly rank: number | undefined;
}

/** Text of `--help`. */
export const HELP = `Usage: deno task bench [flags]

Measures every kernel forward and backward, and beside each its share of what the adapter reaches in two probes
(f32 multiply-add, memory read) of the same run. A row's rate is that of its best run.

What to measure (kernels, unless one of these is given)
  --s2                S2-Attn: time per token at fixed G over the length, and against full attention
  --step              one whole training step: by kind of kernel, on the device and on the clock
  --decode            one token after another, with the cache
  --memory            what real models take on the device, as planned, and the longest contexts; needs no adapter
  --load              loading a model against reading its files
  --tune              the variants of each kernel; keeps the fastest for this adapter in the user's cache folder
  --variants          the variants of each kernel; keeps nothing

How much
  --quick             small shapes, about two minutes on a software adapter (the default there)
  --all               shapes of real models (the default on a GPU)
  --filter TEXT       rows with this regular expression in suite, op, shape or format
  --seconds N         time for each row
  --room GIB          leaves out rows that take more on the device (default: 3 on a software adapter, 12 on a GPU);
                      of --step what it may take, as max_memory, for fewer dispatches (default: the least)
  --sharing MODE      subgroup or workgroup, in place of the adapter's own
  --both              every sharing mode that the adapter can run
  --webgpu NAME       deno (default) or dawn, which has tensor cores: deno task bench:dawn
  --toggles NAMES     toggles of Dawn, with commas; a minus before a name turns it off: disable_robustness,-use_spirv_1_4
  --most-work N       multiply-adds after which work is submitted (default: 2^40)
  --clock CLOCK       device: pass timestamps (default); cpu: processor time of this process, for a software adapter
                      on a machine that others use too, best with LP_NUM_THREADS=1 in the environment

Of --step and --decode
  --shape NAME        demo (default), llama2-7b, llama2-13b, llama2-70b, llama3-8b, llama3-70b: random weights
  --tokens N          length of the sequence (default: 1024 for demo, 8192 else)
  --rank N            LoRA rank on every linear (default: 32 for demo, 64 else)
  --full              full attention in place of S2-Attn with G = T / 4

Results
  --json FILE         writes commit, date, adapter, Deno version and rows
  --compare FILE      an earlier --json: the ratio of every row, and which changed by more than the noise
  --help              this text
`;

const FLAGS = {
  s2: { type: "boolean" },
  step: { type: "boolean" },
  decode: { type: "boolean" },
  memory: { type: "boolean" },
  load: { type: "boolean" },
  tune: { type: "boolean" },
  variants: { type: "boolean" },
  toggles: { type: "string" },
  "most-work": { type: "string" },
  quick: { type: "boolean" },
  all: { type: "boolean" },
  filter: { type: "string" },
  seconds: { type: "string" },
  room: { type: "string" },
  sharing: { type: "string" },
  both: { type: "boolean" },
  webgpu: { type: "string" },
  clock: { type: "string" },
  shape: { type: "string" },
  tokens: { type: "string" },
  rank: { type: "string" },
  full: { type: "boolean" },
  json: { type: "string" },
  compare: { type: "string" },
  help: { type: "boolean", short: "h" },
} as const;

/**
 * Reads the command line; `null` where help is asked for.
 * @param env reads a variable of the environment
 * @throws {UserError} with exit code 2 if a flag is not known, or its value cannot be used
 */
export function readOptions(
  words: readonly string[],
  env: (name: string) => string | undefined = () => undefined,
): BenchOptions | null {
  const values = parse(words);
  if (values.help) return null;
  return {
    mode: readMode(values),
    extent: readExtent(values),
    filter: values.filter === undefined ? undefined : readFilter(values.filter),
    sharing: values.both ? "both" : oneOf("sharing", values.sharing, ["subgroup", "workgroup"]),
    webgpu: oneOf("webgpu", values.webgpu ?? env("LONGREACH_WEBGPU"), WEBGPUS) ?? "deno",
    toggles: values.toggles?.split(",").filter(Boolean) ?? [],
    mostWork: readNumber("most-work", values["most-work"]),
    clock: oneOf("clock", values.clock, ["device", "cpu"]) ?? "device",
    seconds: readNumber("seconds", values.seconds),
    room: readNumber("room", values.room),
    json: values.json,
    compare: values.compare,
    shape: values.shape ?? "demo",
    tokens: readWhole("tokens", values.tokens),
    full: values.full ?? false,
    rank: readWhole("rank", values.rank),
  };
}

function parse(words: readonly string[]) {
  for (const word of words) {
    const name = /^--([^=]+)/.exec(word)?.[1];
    if (name === undefined || Object.hasOwn(FLAGS, name)) continue;
    const near = nearest(name, Object.keys(FLAGS));
    throw usage(
      `Unknown flag "--${name}" for bench: ${near === null ? "see --help" : `did you mean --${near}?`}`,
    );
  }
  try {
    return parseArgs({ args: [...words], options: FLAGS, strict: true }).values;
  } catch (error) {
    throw usage((error as Error).message.split(". ")[0]!);
  }
}

function readMode(values: Partial<Record<Mode, boolean>>): Mode {
  const asked = (["s2", "step", "decode", "memory", "load", "tune", "variants"] as const).filter((mode) =>
    values[mode]
  );
  if (asked.length > 1) throw usage(`Only one of ${asked.map((mode) => `--${mode}`).join(", ")} at a time`);
  return asked[0] ?? "kernels";
}

function readExtent({ quick, all }: { quick?: boolean; all?: boolean }): Extent | undefined {
  if (quick && all) throw usage("Only one of --quick and --all at a time");
  return quick ? "quick" : all ? "all" : undefined;
}

function readFilter(text: string): RegExp {
  try {
    return new RegExp(text, "i");
  } catch (error) {
    throw usage(`--filter: ${(error as Error).message}`);
  }
}

/** @throws {UserError} with exit code 2 if the value is none of the choices */
export function oneOf<const T extends string>(
  name: string,
  value: string | undefined,
  choices: readonly T[],
): T | undefined {
  const choice = choices.find((each) => each === value);
  if (value === undefined || choice !== undefined) return choice;
  throw usage(`--${name}: must be one of ${choices.join(", ")}, got "${value}"`);
}

function readNumber(name: string, value: string | undefined): number | undefined {
  if (value === undefined) return undefined;
  const number = Number(value);
  if (!(number > 0 && number < Infinity)) {
    throw usage(`--${name}: must be a number above 0, got "${value}"`);
  }
  return number;
}

function readWhole(name: string, value: string | undefined): number | undefined {
  const number = readNumber(name, value);
  if (number === undefined || Number.isInteger(number)) return number;
  throw usage(`--${name}: must be a whole number above 0, got "${value}"`);
}

function usage(message: string): UserError {
  return new UserError(message, { kind: "usage" });
}
