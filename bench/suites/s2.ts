/** Cost of S2-Attn: the same for each token however long the text, and a share of full attention. */
import type { AttentionShape } from "../../kernels/attention/attention.ts";
import type { Row } from "../result.ts";
import { attentionPair } from "./attention.ts";
import type { Case, Extent } from "./case.ts";

interface Sizes {
  readonly shape: AttentionShape;
  /** G of the rows over the length. */
  readonly groupSize: number;
  /** Whether the backward pass is measured against full attention too: five times the work. */
  readonly backward: boolean;
}

const SIZES: Record<Extent, Sizes> = {
  quick: { shape: { heads: 2, kvHeads: 2, headDim: 32 }, groupSize: 512, backward: false },
  all: { shape: { heads: 32, kvHeads: 32, headDim: 128 }, groupSize: 2048, backward: true },
};
const LENGTHS = [8192, 16384, 32768, 65536];
/** T of the comparison with full attention, where G = T / 4. */
const AGAINST_FULL = 32768;

const OVER_LENGTH = "s2 over length";
const FULL = "full and s2";

/** Goals: time per token within this share from the shortest to the longest; S2 at most this share of full. */
const S2_GOALS = { flat: 0.1, ofFull: 0.3 } as const;

/** Rows at fixed G over the length, and rows with and without groups at one length. */
export function s2Cases(extent: Extent): Case[] {
  const { shape, groupSize, backward } = SIZES[extent];
  const format = extent === "quick" ? "f32" : "bf16";
  const over = LENGTHS.flatMap((tokens) =>
    attentionPair({ ...shape, tokens, groupSize, format, suite: OVER_LENGTH })
  );
  const sizes = { ...shape, tokens: AGAINST_FULL, format, suite: FULL } as const;
  const pairs = [attentionPair(sizes), attentionPair({ ...sizes, groupSize: AGAINST_FULL / 4 })];
  return [...over, ...pairs.flatMap(([forward, back]) => backward ? [forward, back] : [forward])];
}

/** Holds the rows against the goals, one line each. */
export function judgeS2(rows: readonly Row[]): string[] {
  const lines: string[] = [];
  for (const op of ["attention", "attention backward"]) {
    const perToken = rows.filter((row) => row.suite === OVER_LENGTH && row.op === op)
      .map((row) => ({ row, us: 1000 * row.bestMs / tokensOf(row) }));
    if (perToken.length > 1) {
      const times = perToken.map(({ us }) => us);
      const spread = Math.max(...times) / Math.min(...times) - 1;
      lines.push(
        `${op}, microseconds a token: ` +
          perToken.map(({ row, us }) => `T${tokensOf(row)} ${us.toFixed(2)}`).join(", ") +
          `; ${verdict(spread, S2_GOALS.flat, "apart")}`,
      );
    }
    const [full, grouped] = rows.filter((row) => row.suite === FULL && row.op === op);
    if (full && grouped) {
      lines.push(
        `${op}, S2 over full at T${AGAINST_FULL}, G = T / 4: ${
          verdict(grouped.bestMs / full.bestMs, S2_GOALS.ofFull, "of the time")
        }`,
      );
    }
  }
  return lines;
}

function verdict(value: number, goal: number, what: string): string {
  return `${(100 * value).toFixed(1)} % ${what} (goal at most ${100 * goal} %: ${
    value <= goal ? "met" : "missed"
  })`;
}

function tokensOf({ shape }: Row): number {
  return Number(/T(\d+)/.exec(shape)![1]);
}
