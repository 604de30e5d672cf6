/**
 * Goals for speed and memory: against other WebGPU libraries on the same adapter, against unsloth's longest contexts, and
 * in bytes that models must fit into; and where in the results each figure is. What a GPU can do: gpu/goals.ts.
 */
import { formatBytes } from "../text.ts";
import type { ContestResult, Score } from "./peers/contest.ts";
import { type LoadReport, LOADS } from "./loading.ts";
import type { AnyResult, BenchResult, LoadResult, MemoryResult, Row } from "./result.ts";

/** Results of one device, by kind; what was not measured is not there. */
export interface DeviceResults {
  readonly kernels?: BenchResult;
  readonly s2?: BenchResult;
  readonly step?: BenchResult;
  readonly decode?: BenchResult;
  readonly peers?: PeersResult;
  readonly models?: PeersResult;
  readonly memory?: MemoryResult;
  readonly load?: LoadResult;
}

/** Results that bench/peers writes, of kernels or of whole models. */
export interface PeersResult extends AnyResult {
  readonly kind: "peers" | "models";
  readonly contests: readonly ContestResult[];
}

export type Kind = keyof DeviceResults;
/** Kinds of devices: a driver on the processor, a GPU. */
export type Device = "software" | "gpu";

/** A figure and what it is held against. */
export interface Figure {
  readonly ours: string;
  readonly peer?: string;
  /** Ours over the peer's, or over whatever the goal is of. */
  readonly ratio?: string;
  /** Share of the probe's peak. */
  readonly share?: number;
  /** Null where the goal names no bound for this figure. */
  readonly isMet: boolean | null;
}

/** One goal, and how it is read from the results. */
export interface Goal {
  readonly device: Device;
  readonly kind: Kind;
  readonly what: string;
  readonly goal: string;
  /** Figures, one a shape; none where the results have no such row. */
  read(results: Required<DeviceResults>): readonly Figure[];
}

export const GOALS: readonly Goal[] = [
  peerGoal("f32 matmul against jax-js", /matmul f32/, "jax-js", 3),
  peerGoal("4-bit matmul against `MatMulNBits`", /^matmul 4-bit/, "onnxruntime", 8),
  {
    ...peerGoal("NF4 matmul against our f32", /^matmul 4-bit/, "longreach, f32", 0.97),
    goal: "1x or more, within 3 %",
  },
  peerGoal("causal attention against jax-js", /^causal attention$/, "jax-js", 4),
  peerGoal("causal attention against onnxruntime", /^causal attention$/, "onnxruntime", 4),
  peerGoal("causal attention, forward and backward", /attention, forward and backward/, "jax-js", 3),
  peerGoal("SwiGLU MLP, forward and backward", /^SwiGLU/, "jax-js", 3),
  ...(["software", "gpu"] as const).flatMap((device) => [
    modelGoal(device, "tokens read a second (prefill) against onnxruntime", /^prefill/),
    modelGoal(device, "tokens written a second (decode) against onnxruntime", /^decode/),
  ]),
  {
    device: "software",
    kind: "step",
    what: "demo's LoRA step: products and attention, of the device's time",
    goal: "80 % or more",
    read: ({ step }) =>
      step.steps.map(({ productsAndAttention: share }) => ({ ours: percent(share), isMet: share >= 0.8 })),
  },
  {
    device: "software",
    kind: "step",
    what: "demo's LoRA step: the device, of the time on the clock",
    goal: "90 % or more",
    read: ({ step }) =>
      step.steps.map(({ onDevice }) => ({ ours: percent(onDevice), isMet: onDevice >= 0.9 })),
  },
  {
    device: "software",
    kind: "memory",
    what: "peak on the device, planned",
    goal: "as listed",
    read: ({ memory }) =>
      memory.goals.map(({ shape, tokens, gib, plannedBytes }) => ({
        ours: `${shape}, ${tokens} tokens: ${formatBytes(plannedBytes)}`,
        peer: `${gib} GiB`,
        ratio: `${(plannedBytes / gib / 2 ** 30).toFixed(2)}x`,
        isMet: plannedBytes <= gib * 2 ** 30,
      })),
  },
  {
    device: "software",
    kind: "memory",
    what: "longest context of Llama-3-8B against unsloth, planned",
    goal: "1x or more",
    read: ({ memory }) =>
      memory.longest.map(({ gib, full, unsloth }) => ({
        ours: `${gib} GiB: ${full} tokens, full attention`,
        peer: String(unsloth),
        ratio: `${(full / unsloth).toFixed(2)}x`,
        isMet: full >= unsloth,
      })),
  },
  {
    device: "software",
    kind: "step",
    what: "peak as measured, against the plan",
    goal: "within 5 %",
    read: ({ step }) =>
      step.steps.map(({ name, peakBytes, plannedBytes }) => ({
        ours: `${name.split(",")[0]}: ${formatBytes(peakBytes)}`,
        peer: `${formatBytes(plannedBytes)} planned`,
        ratio: (peakBytes / plannedBytes).toFixed(3),
        isMet: Math.abs(peakBytes / plannedBytes - 1) <= 0.05,
      })),
  },
  {
    device: "software",
    kind: "load",
    what: "loading dense bf16, of the rate at which its files are read",
    goal: "60 % or more",
    read: ({ load: { loads } }) =>
      loads.filter(({ name }) => name === LOADS.dense).map((each) => againstReading(each, loads[0]!)),
  },
  {
    device: "software",
    kind: "load",
    what: "loading: host memory above the process's floor",
    goal: "2 GiB or less",
    read: ({ load: { loads } }) =>
      loads.filter(({ name }) => name === LOADS.dense || name === LOADS.nf4).map(({ name, hostBytes }) => ({
        ours: `${name}: ${formatBytes(Math.max(0, hostBytes))}`,
        isMet: hostBytes <= 2 ** 31,
      })),
  },
  ...s2Goals(),
  decodeGoal(),
];

function peerGoal(what: string, op: RegExp, peer: string, least: number): Goal {
  return {
    device: "software",
    kind: "peers",
    what,
    goal: `${least}x or more`,
    read: ({ peers }) =>
      peers.contests.filter((contest) => op.test(contest.op)).flatMap((contest) =>
        againstPeer(contest, contest.shape, peer, least, ({ gflops }) => `${gflops.toFixed(1)} GFLOP/s`)
      ),
  };
}

/** A whole model's tokens a second. */
function modelGoal(device: "software" | "gpu", what: string, op: RegExp): Goal {
  const least = 2;
  return {
    device,
    kind: "models",
    what,
    goal: `${least}x or more`,
    read: ({ models }) =>
      models.contests.filter((contest) => op.test(contest.op)).flatMap((contest) => {
        const [, format] = contest.op.split(" ");
        return againstPeer(
          contest,
          `${contest.shape}, ${format}`,
          "onnxruntime",
          least,
          ({ tokensPerSecond }) => tokensPerSecond!.toFixed(1),
        );
      }),
  };
}

/** Our score beside a peer's; none where it did not take part. */
function againstPeer(
  { scores }: ContestResult,
  shape: string,
  peer: string,
  least: number,
  rate: (score: Score) => string,
): Figure[] {
  const [ours, theirs] = [scores[0]!, scores.find(({ name }) => name.startsWith(peer))];
  if (!theirs) return [];
  return [{
    ours: `${shape}: ${rate(ours)}`,
    peer: rate(theirs),
    ratio: theirs.ratio === null ? "wrong values" : `${theirs.ratio.toFixed(1)}x`,
    isMet: theirs.ratio !== null && theirs.ratio >= least,
  }];
}

function s2Goals(): Goal[] {
  const own = (rows: readonly Row[], suite: string) =>
    rows.filter((row) => row.suite === suite && row.op === "attention");
  return [
    {
      device: "software",
      kind: "s2",
      what: "S2-Attn at fixed G: time per token from 8k to 64k",
      goal: "within 10 %",
      read({ s2 }) {
        const times = own(s2.rows, "s2 over length").map(({ bestMs, shape }) =>
          bestMs / Number(/T(\d+)/.exec(shape)![1])
        );
        const apart = Math.max(...times) / Math.min(...times) - 1;
        return times.length < 2 ? [] : [{ ours: `${percent(apart)} apart`, isMet: apart <= 0.1 }];
      },
    },
    {
      device: "software",
      kind: "s2",
      what: "S2-Attn at N = 32768, G = N / 4, of full attention's time",
      goal: "0.3 or less",
      read({ s2 }) {
        const [full, grouped] = own(s2.rows, "full and s2");
        if (!full || !grouped) return [];
        const ratio = grouped.bestMs / full.bestMs;
        return [{
          ours: `${grouped.bestMs.toFixed(0)} ms`,
          peer: `${full.bestMs.toFixed(0)} ms, full`,
          ratio: ratio.toFixed(3),
          isMet: ratio <= 0.3,
        }];
      },
    },
  ];
}

function decodeGoal(): Goal {
  return {
    device: "software",
    kind: "decode",
    what: "writing a token, of the memory's rate",
    goal: "",
    read: ({ decode }) =>
      decode.rows.map((row) => ({
        ours: `${row.shape}: ${row.bestMs.toFixed(2)} ms, ${row.gbps.toFixed(1)} GB/s`,
        share: row.share,
        // A driver on the processor is limited by its instructions, not by memory.
        isMet: null,
      })),
  };
}

function percent(share: number): string {
  return `${(100 * share).toFixed(1)} %`;
}

function againstReading(load: LoadReport["loads"][number], read: LoadReport["loads"][number]): Figure {
  const share = load.bytesPerSecond / read.bytesPerSecond;
  const rate = (bytes: number) => `${(bytes / 1e9).toFixed(2)} GB/s`;
  return {
    ours: rate(load.bytesPerSecond),
    peer: `${rate(read.bytesPerSecond)}, reading`,
    ratio: `${share.toFixed(2)}x`,
    isMet: share >= 0.6,
  };
}
