/** Memory on the device as planned: the goals for real models, and the longest contexts by size of card. No adapter is used. */
import { formatBytes, formatTable } from "../text.ts";
import { shapeConfig } from "../model/shapes.ts";
import { resolvePlacement } from "../train/plan/placement.ts";
import { longestContext } from "../train/plan/longest_context.ts";
import { loadTrainArgs, type TrainArgs } from "../train_args/load.ts";

const GIB = 2 ** 30;

/** Goals of memory: QLoRA on all linears, bf16, S2-Attn, checkpointing, batch 1, paged AdamW. */
interface MemoryGoal {
  readonly shape: string;
  readonly tokens: number;
  readonly rank: number;
  readonly gib: number;
}

export const MEMORY_GOALS: readonly MemoryGoal[] = [
  { shape: "llama2-7b", tokens: 8192, rank: 64, gib: 10 },
  { shape: "llama2-13b", tokens: 8192, rank: 64, gib: 16 },
  { shape: "llama2-7b", tokens: 12288, rank: 64, gib: 12 },
  { shape: "llama3-8b", tokens: 81920, rank: 32, gib: 24 },
  { shape: "llama2-70b", tokens: 32768, rank: 64, gib: 80 },
];

/** Longest contexts of unsloth's documentation for Llama-3.1-8B, QLoRA rank 32 on all linears, batch 1, by GB of the card. */
const UNSLOTH: Readonly<Record<number, number>> = {
  8: 2_972,
  12: 21_848,
  16: 40_724,
  24: 78_475,
  48: 191_728,
  80: 342_733,
};

/** A goal and what is planned for it. */
export interface PlannedGoal extends MemoryGoal {
  readonly plannedBytes: number;
  readonly phase: string;
  /** Bytes in host memory meanwhile. */
  readonly hostBytes: number;
}

/** Longest contexts, in tokens, that fit a card. */
export interface LongestContexts {
  readonly gib: number;
  readonly full: number;
  readonly s2: number;
  readonly unsloth: number;
}

export interface MemoryReport {
  readonly goals: readonly PlannedGoal[];
  readonly longest: readonly LongestContexts[];
}

/**
 * Plans everything, in a few minutes.
 * @param filter plans only what it finds in a goal's model and tokens, or in "longest" and a size
 * @param note is told what goes on
 */
export async function planMemory(
  filter: RegExp | undefined,
  note: (line: string) => void,
): Promise<MemoryReport> {
  const isWanted = (label: string): boolean => {
    const wanted = filter === undefined || filter.test(label);
    if (wanted) note(label);
    return wanted;
  };
  const goals: PlannedGoal[] = [];
  for (const goal of MEMORY_GOALS) {
    const { shape, tokens, rank, gib } = goal;
    if (!isWanted(`${shape}, ${tokens} tokens`)) continue;
    const args = await settings(tokens, rank);
    const { cost: { peak, hostBytes } } = await resolvePlacement(args, shapeConfig(shape), gib * GIB);
    goals.push({ ...goal, plannedBytes: peak.heldBytes, phase: peak.phase, hostBytes });
  }
  const longest: LongestContexts[] = [];
  for (const [size, unsloth] of Object.entries(UNSLOTH)) {
    const gib = Number(size);
    if (!isWanted(`longest llama3-8b in ${gib} GiB`)) continue;
    const find = async (full: boolean) => {
      const args = {
        ...await settings(8192, 32),
        use_full_attn: full,
        attention: full ? "full" : "s2",
      } as const;
      return await longestContext(args, shapeConfig("llama3-8b"), gib * GIB);
    };
    longest.push({ gib, full: await find(true), s2: await find(false), unsloth });
  }
  return { goals, longest };
}

/** QLoRA on all linears in bf16. */
export async function settings(tokens: number, rank: number): Promise<TrainArgs> {
  const { args } = await loadTrainArgs(null, {
    model_name_or_path: "unused",
    train_file: "unused",
    output_dir: "unused",
    model_max_length: String(tokens),
    max_seq_length: String(tokens),
    lora_rank: String(rank),
    bf16: "true",
    optim: "paged_adamw_32bit",
  });
  return args;
}

/** Both tables, their heads first. */
export function memoryTables(
  { goals, longest }: MemoryReport,
): { planned: string[][]; contexts: string[][] } {
  const verdict = (isMet: boolean) => isMet ? "met" : "missed";
  return {
    planned: [
      ["model", "tokens", "rank", "device, planned", "goal", "", "host", "peak at"],
      ...goals.map(({ shape, tokens, rank, gib, plannedBytes, hostBytes, phase }) => [
        shape,
        String(tokens),
        String(rank),
        formatBytes(plannedBytes),
        `${gib} GiB`,
        verdict(plannedBytes <= gib * GIB),
        formatBytes(hostBytes),
        phase,
      ]),
    ],
    contexts: [
      ["Llama-3-8B, rank 32, in", "S2-Attn", "full", "unsloth", "full is", ""],
      ...longest.map(({ gib, full, s2, unsloth }) => [
        `${gib} GiB`,
        String(s2),
        String(full),
        String(unsloth),
        `${(full / unsloth).toFixed(2)}x`,
        verdict(full >= unsloth && s2 >= unsloth),
      ]),
    ],
  };
}

/** Both tables as text. */
export function describeMemory(report: MemoryReport): string {
  const { planned, contexts } = memoryTables(report);
  return [formatTable(planned, "lrrrrlrl"), "", formatTable(contexts, "lrrrrl")].join("\n");
}
