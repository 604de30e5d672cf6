/** The parts of the check of a GPU: what each runs, on which WebGPU, and how long at most. */
import type { WebGpu } from "../../kernels/device.ts";

/** What a part finds out, as far as the command line names it. */
export const TOPICS = [
  "doctor",
  "units",
  "tests",
  "parity",
  "step-8192",
  "step-2048",
  "kernels",
  "decode",
  "s2",
  "variants",
  "memory",
  "toggles",
] as const;
export type Topic = typeof TOPICS[number];

/** Topics of a check that names none: all but the experiments. */
export const USUAL: readonly Topic[] = TOPICS.filter((topic) => topic !== "toggles");

/** One process. */
export interface Part {
  readonly name: string;
  readonly topic: Topic;
  readonly webgpu: WebGpu;
  /** Seconds after which it is ended, in a check of {@linkcode SECONDS}. */
  readonly limit: number;
  /** Script, from the project's root, and its words. */
  readonly script: string;
  readonly words: readonly string[];
  /** The words on a processor: work that it can do. */
  readonly softwareWords?: readonly string[];
  /** Whether it takes `--json FILE` and writes its result there; otherwise its output is the result. */
  readonly writesJson: boolean;
}

/** Seconds of a whole check, unless told. */
export const SECONDS = 240;

const BENCH = "bench/main.ts";
/** Runs tests, and takes the seconds after which it is to end. */
export const TESTS = "tools/test_device.ts";

/** Toggles of Dawn, one set for each experiment; `mostWork` is that of a submit. */
const EXPERIMENTS: readonly {
  readonly name: string;
  readonly toggles: string;
  readonly mostWork?: string;
}[] = [
  { name: "usual", toggles: "" },
  { name: "no maximal reconvergence", toggles: "-use_spirv_reconvergence_mode" },
  { name: "no robustness", toggles: "disable_robustness" },
  { name: "no reconvergence, SPIR-V 1.3", toggles: "-use_spirv_reconvergence_mode,-use_spirv_1_4" },
  { name: "no validation", toggles: "skip_validation" },
  { name: "no zeroing of new buffers", toggles: "-lazy_clear_resource_on_first_use" },
  { name: "submits 16 times as large", toggles: "", mostWork: String(2 ** 44) },
];

/** In the order of a check that has little time: doctor's verdicts, the step, its kernels, then all tests. */
export const PARTS: readonly Part[] = [
  doctor("deno"),
  doctor("dawn"),
  units("units", "units", ""),
  step("deno", 2048, 30),
  step("deno", 8192, 60),
  step("dawn", 8192, 80),
  kernels("deno"),
  kernels("dawn"),
  tests("tests", "deno", ["tests/kernels"], 50),
  tests("parity", "deno", ["tests/parity"], 50),
  step("dawn", 2048, 40),
  tests("tests", "dawn", ["tests/kernels"], 50),
  bench("decode", "deno", 30, ["--decode", "--shape", "llama2-7b", "--seconds", "0.4"], [
    "--decode",
    "--filter",
    "after 256.*cache f32",
    "--seconds",
    "0.1",
  ]),
  bench("s2", "deno", 20, ["--s2", "--seconds", "0.1", "--filter", "s2 over length"], [
    "--s2",
    "--filter",
    "s2 over length attention H2 D32 T8192",
    "--seconds",
    "0.05",
  ]),
  {
    name: "memory",
    topic: "memory",
    webgpu: "deno",
    limit: 30,
    script: "bench/gpu/fit.ts",
    words: [],
    writesJson: true,
  },
  ...(["deno", "dawn"] as const).map((webgpu) =>
    bench("variants", webgpu, 30, ["--variants", "--filter", "large|16-bit.*medium|128"], [
      "--variants",
      "--filter",
      "nt dense 8 rows",
    ])
  ),
  ...EXPERIMENTS.flatMap(({ name, toggles, mostWork }): Part[] => {
    const flags = [`--toggles=${toggles}`, ...(mostWork === undefined ? [] : ["--most-work", mostWork])];
    const step = ["--step", "--shape", "llama2-7b", "--tokens", "2048", "--seconds", "1", ...flags];
    return [
      units(`units, ${name}`, "toggles", toggles),
      {
        ...bench("toggles", "dawn", 60, step, ["--step", "--tokens", "64", "--seconds", "0.1", ...flags]),
        name: `step-2048, ${name}`,
      },
    ];
  }),
];

function doctor(webgpu: WebGpu): Part {
  return {
    name: "doctor",
    topic: "doctor",
    webgpu,
    limit: 60,
    script: "cli/main.ts",
    words: ["doctor", "--json", "--webgpu", webgpu],
    writesJson: false,
  };
}

function units(name: string, topic: Topic, toggles: string): Part {
  return {
    name,
    topic,
    webgpu: "dawn",
    limit: 30,
    script: "bench/gpu/units.ts",
    words: [`--toggles=${toggles}`],
    writesJson: true,
  };
}

function tests(topic: Topic, webgpu: WebGpu, paths: readonly string[], limit: number): Part {
  return {
    name: topic,
    topic,
    webgpu,
    limit,
    script: TESTS,
    words: [`--webgpu=${webgpu}`, ...paths],
    softwareWords: [`--webgpu=${webgpu}`, "tests/kernels/device_test.ts"],
    writesJson: false,
  };
}

function bench(
  topic: Topic,
  webgpu: WebGpu,
  limit: number,
  words: readonly string[],
  softwareWords: readonly string[],
): Part {
  return { name: topic, topic, webgpu, limit, script: BENCH, words, softwareWords, writesJson: true };
}

function step(webgpu: WebGpu, tokens: 2048 | 8192, limit: number): Part {
  return bench(
    `step-${tokens}`,
    webgpu,
    limit,
    ["--step", "--shape", "llama2-7b", "--tokens", String(tokens), "--room", "12", "--seconds", "0.5"],
    ["--step", "--tokens", String(tokens / 32), "--seconds", "0.1"],
  );
}

/** Products of a linear layer and of LoRA, attention of a layer, one token: what the goals name. */
function kernels(webgpu: WebGpu): Part {
  return bench("kernels", webgpu, 40, [
    "--all",
    "--seconds",
    "0.1",
    "--filter",
    "M(8192|512) N4096 K4096|M8192 N64 K4096|M8192 N4096 K64|H32 D128 T8192|M1 N4096 K4096",
  ], ["--quick", "--filter", "M1 N1024 K1024", "--seconds", "0.05"]);
}
