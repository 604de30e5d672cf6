/** What a GPU is held to: shares of what its probes reach, and on an H100 also times and rates. */
import type { WebGpu } from "../../kernels/device.ts";
import { type Figures, nameOf } from "./figures.ts";

/** A goal, and how far a check is from it. */
export interface Goal {
  readonly what: string;
  /** Text of the bound. */
  readonly goal: string;
  /** Goals in seconds, tokens and TFLOP/s are of one adapter. */
  readonly adapter?: RegExp;
  /** Reads the value; `undefined` where something that it takes was not measured. */
  readonly read: (figure: Read) => number | undefined;
  /** Whether a value is good enough. */
  readonly isMet: (value: number) => boolean;
  /** Text of a value. */
  readonly show: (value: number) => string;
}

type Read = (webgpu: WebGpu, what: string, unit: string) => number | undefined;

/** A goal held against a check. */
export interface Judged {
  readonly what: string;
  readonly goal: string;
  /** "not measured" where it was not. */
  readonly ours: string;
  readonly verdict: "met" | "missed" | "";
}

const H100 = /H100/;
const NT = "x W^T M8192 N4096 K4096";
const NN = "dy W M8192 N4096 K4096";
const TN = "dy^T x M8192 N4096 K4096";
const ATTENTION = "H32 D128 T8192 bf16";
const LORA = ["x W^T M8192 N64 K4096 LoRA, x bf16", "x W^T M8192 N4096 K64 LoRA, x bf16"] as const;
const STEP = { long: "step of 8192 tokens", short: "step of 2048 tokens" } as const;

export const GPU_GOALS: readonly Goal[] = [
  ofPeak("x W^T, bf16, M8192 N4096 K4096", `${NT} bf16`, 0.75),
  ofPeak("dy W, bf16", `${NN} bf16`, 0.75),
  ofPeak("dy^T x, bf16", `${TN} bf16`, 0.7),
  share(
    "x W^T, NF4 with bf16 x, of bf16 weights' rate",
    "deno",
    `${NT} nf4, x bf16`,
    "deno",
    `${NT} bf16`,
    0.95,
  ),
  share(
    "the same at 512 rows",
    "deno",
    "x W^T M512 N4096 K4096 nf4, x bf16",
    "deno",
    "x W^T M512 N4096 K4096 bf16",
    0.95,
  ),
  ...LORA.map((row) => ofMemory(`LoRA's ${row.slice(0, row.indexOf(" LoRA"))}`, row, 0.5)),
  ofPeak("causal attention, H32 D128 T8192", `attention ${ATTENTION}`, 0.5),
  ofPeak("causal attention, backward", `attention backward ${ATTENTION}`, 0.4),
  {
    what: "S2-Attn, G2048, time per token from 8k to 64k, apart",
    goal: "within 10 %",
    read(figure) {
      const times = [8192, 16384, 32768, 65536].map((tokens) =>
        quotient(figure("deno", `attention H32 D128 T${tokens} G2048 bf16`, "ms"), tokens)
      );
      if (times.some((time) => time === undefined)) return undefined;
      return Math.max(...times as number[]) / Math.min(...times as number[]) - 1;
    },
    isMet: (apart) => apart <= 0.1,
    show: percent,
  },
  {
    what: "S2-Attn at 8192, G2048, of full attention's time",
    goal: "30 % or less",
    read: (figure) =>
      quotient(
        figure("deno", "attention H32 D128 T8192 G2048 bf16", "ms"),
        figure("deno", `attention ${ATTENTION}`, "ms"),
      ),
    isMet: (part) => part <= 0.3,
    show: percent,
  },
  ofPeak("Llama-2-7B step, 8192 tokens", STEP.long, 0.65),
  most("Llama-2-7B step, 8192 tokens", "deno", STEP.long, "s", 8, H100),
  {
    what: "tokens a second at 2048 against 8192",
    goal: "within 10 %",
    read: (figure) => quotient(figure("deno", STEP.short, "tokens/s"), figure("deno", STEP.long, "tokens/s")),
    isMet: (ratio) => Math.abs(ratio - 1) <= 0.1,
    show: (ratio) => `${ratio.toFixed(2)}x`,
  },
  most("dispatches of that step", "deno", STEP.long, "dispatches", 2500),
  {
    what: "memory of that step, counted against planned",
    goal: "within 5 %",
    read: (figure) =>
      quotient(
        figure("deno", `${STEP.long}, counted`, "GiB"),
        figure("deno", `${STEP.long}, planned`, "GiB"),
      ),
    isMet: (ratio) => Math.abs(ratio - 1) <= 0.05,
    show: (ratio) => `${ratio.toFixed(3)}x`,
  },
  least("x W^T, bf16, matrix units", "dawn", `${NT} bf16`, "TFLOP/s", 300, H100),
  {
    what: "the three layouts on matrix units, apart",
    goal: "within 15 %",
    read(figure) {
      const rates = [NT, NN, TN].map((row) => figure("dawn", `${row} bf16`, "TFLOP/s"));
      if (rates.some((rate) => rate === undefined)) return undefined;
      return 1 - Math.min(...rates as number[]) / Math.max(...rates as number[]);
    },
    isMet: (apart) => apart <= 0.15,
    show: percent,
  },
  share("NF4 on matrix units, of bf16 weights' rate", "dawn", `${NT} nf4, x bf16`, "dawn", `${NT} bf16`, 0.9),
  least("causal attention on matrix units", "dawn", `attention ${ATTENTION}`, "TFLOP/s", 150, H100),
  least(
    "causal attention on matrix units, backward",
    "dawn",
    `attention backward ${ATTENTION}`,
    "TFLOP/s",
    100,
    H100,
  ),
  {
    what: "Llama-2-7B step on Dawn: the clock against the device's time",
    goal: "within 5 %",
    read: (figure) =>
      quotient(figure("dawn", STEP.long, "s"), figure("dawn", `${STEP.long}, on the device`, "s")),
    isMet: (ratio) => ratio <= 1.05,
    show: (ratio) => `${ratio.toFixed(2)}x`,
  },
  most("compiling the kernels of that step", "dawn", `${STEP.long}, compiling`, "s", 3),
  most("Llama-2-7B step on Dawn, 8192 tokens", "dawn", STEP.long, "s", 2, H100),
  most("the same, next", "dawn", STEP.long, "s", 1.4, H100),
  {
    what: "decoding Llama-2-7B in NF4 after 1024 tokens, kernels",
    goal: "50 % or more of the memory's rate",
    read: (figure) =>
      quotient(
        figure("deno", "one token llama2-7b, after 1024 nf4, x bf16, cache bf16", "GB/s"),
        figure("deno", "memory probe", "GB/s"),
      ),
    isMet: (part) => part >= 0.5,
    show: percent,
  },
  least("an answer of Llama-2-7B in NF4", "deno", "an answer, reading included", "tokens/s", 120, H100),
  share(
    "matvec 4096 x 4096, NF4: 16-bit x against f32",
    "deno",
    "x W^T M1 N4096 K4096 nf4, x bf16",
    "deno",
    "x W^T M1 N4096 K4096 nf4, x f32",
    1,
    "GB/s",
  ),
];

/** Holds a check against all goals. Those of another adapter are left out. */
export function judge(figures: Figures, adapter: string): Judged[] {
  const figure: Read = (webgpu, what, unit) => figures[nameOf(webgpu, what, unit)];
  return GPU_GOALS.filter(({ adapter: only }) => only === undefined || only.test(adapter))
    .map(({ what, goal, read, isMet, show }) => {
      const value = read(figure);
      if (value === undefined) return { what, goal, ours: "not measured", verdict: "" };
      return { what, goal, ours: show(value), verdict: isMet(value) ? "met" : "missed" };
    });
}

function quotient(a: number | undefined, b: number | undefined): number | undefined {
  return a === undefined || b === undefined || b === 0 ? undefined : a / b;
}

function percent(part: number): string {
  return `${(100 * part).toFixed(1)} %`;
}

/** A rate as a share of the multiply-add probe, on Deno's WebGPU. */
function ofPeak(what: string, row: string, part: number): Goal {
  return {
    what,
    goal: `${100 * part} % or more of the f32 probe`,
    read: (figure) => quotient(figure("deno", row, "TFLOP/s"), figure("deno", "f32 probe", "TFLOP/s")),
    isMet: (value) => value >= part,
    show: percent,
  };
}

function ofMemory(what: string, row: string, part: number): Goal {
  return {
    what,
    goal: `${100 * part} % or more of the memory's rate`,
    read: (figure) => quotient(figure("deno", row, "GB/s"), figure("deno", "memory probe", "GB/s")),
    isMet: (value) => value >= part,
    show: percent,
  };
}

function share(
  what: string,
  webgpu: WebGpu,
  row: string,
  otherWebgpu: WebGpu,
  other: string,
  part: number,
  unit = "TFLOP/s",
): Goal {
  return {
    what,
    goal: `${100 * part} % or more`,
    read: (figure) => quotient(figure(webgpu, row, unit), figure(otherWebgpu, other, unit)),
    isMet: (value) => value >= part,
    show: percent,
  };
}

function least(
  what: string,
  webgpu: WebGpu,
  row: string,
  unit: string,
  bound: number,
  adapter?: RegExp,
): Goal {
  return {
    what,
    goal: `${bound} ${unit} or more`,
    ...(adapter && { adapter }),
    read: (figure) => figure(webgpu, row, unit),
    isMet: (value) => value >= bound,
    show: (value) => `${number(value)} ${unit}`,
  };
}

function most(
  what: string,
  webgpu: WebGpu,
  row: string,
  unit: string,
  bound: number,
  adapter?: RegExp,
): Goal {
  return {
    ...least(what, webgpu, row, unit, bound, adapter),
    goal: `${bound} ${unit} or less`,
    isMet: (value) => value <= bound,
  };
}

/** Three digits, or all of a whole number. */
export function number(value: number): string {
  return Number.isInteger(value) ? String(value) : value.toPrecision(3);
}
