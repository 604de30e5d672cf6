/** The comparisons of the papers, as changes of the demo's recipe. */

/** One way of training. */
export interface Variant {
  readonly name: string;
  /** Options of train_args that differ from the recipe. */
  readonly options: Readonly<Record<string, string>>;
}

/** What the numbers of a variant are, by its name: perplexity at the longest length, the mean over seeds. */
export type Scores = Readonly<Record<string, number>>;

export interface Experiment {
  readonly id: string;
  readonly title: string;
  /** What the papers say of it, with the source. */
  readonly claim: string;
  readonly variants: readonly Variant[];
  /** Whether the claim holds in these scores. */
  readonly holds: (scores: Scores) => boolean;
}

const RECIPE: Variant = { name: "S2-Attn, rank 32 + embed + norm", options: {} };
const lora = (rank: number, trained: string): Variant => ({
  name: `LoRA rank ${rank}${trained === "" ? "" : ` + ${trained.replace(",", " + ")}`}`,
  options: {
    lora_rank: String(rank),
    lora_alpha: String(2 * rank),
    ...(trained === "" ? { trainable_params: "none" } : { trainable_params: trained }),
  },
});
const FULL_TUNING: Variant = {
  name: "full fine-tuning",
  options: { low_rank_training: "false", load_in_4bit: "false", trainable_params: "none" },
};
/** Raised by 4^(D / (D - 2)) for D = 32: the slowest pair turns at a quarter of its speed, the fastest stays. */
const RAISED_THETA: Variant = {
  name: "rope_theta raised",
  options: { rope_theta: "43875", rope_scaling: '{"rope_type": "default"}' },
};

/** LongLoRA is Chen et al. 2023, arXiv:2309.12307. */
export const EXPERIMENTS: readonly Experiment[] = [
  {
    id: "attention",
    title: "S2-Attn against full attention in training",
    claim:
      "Training with shifted groups gives nearly the perplexity of training with full attention, and the shift " +
      "matters (LongLoRA, tables 1 and 2). Here: within 5 % of full attention, and better than groups without shift",
    variants: [
      RECIPE,
      { name: "full attention", options: { use_full_attn: "true" } },
      { name: "groups without shift", options: { group_shift: "false" } },
    ],
    holds: (scores) =>
      scores[RECIPE.name]! < 1.05 * scores["full attention"]! &&
      scores[RECIPE.name]! < scores["groups without shift"]!,
  },
  {
    id: "groups",
    title: "The size of the groups",
    claim:
      "Groups of N/2 and N/4 are about as good, N/6 and N/8 are worse (LongLoRA, table 7). Here: N/4 within 3 % of " +
      "N/2, and better than N/8",
    variants: [
      { name: "N/2", options: { group_size_ratio: "0.5" } },
      { name: "N/4", options: {} },
      { name: "N/6", options: { group_size_ratio: String(1 / 6) } },
      { name: "N/8", options: { group_size_ratio: "0.125" } },
    ],
    holds: (scores) => scores["N/4"]! < 1.03 * scores["N/2"]! && scores["N/4"]! < scores["N/8"]!,
  },
  {
    id: "trained",
    title: "What is trained",
    claim:
      "LoRA alone stays behind full fine-tuning at any rank; with embeddings and norms trained, rank 8 comes close " +
      "(LongLoRA, table 2). Here: rank 256 alone worse than rank 8 + embed + norm, and that within 5 % of full " +
      "fine-tuning",
    variants: [
      lora(8, ""),
      lora(32, ""),
      lora(64, ""),
      lora(128, ""),
      lora(256, ""),
      lora(8, "norm"),
      lora(8, "embed"),
      lora(8, "embed,norm"),
      FULL_TUNING,
    ],
    holds: (scores) =>
      scores["LoRA rank 256"]! > scores["LoRA rank 8 + embed + norm"]! &&
      scores["LoRA rank 8 + embed + norm"]! < 1.05 * scores["full fine-tuning"]!,
  },
  {
    id: "precision",
    title: "A base in 4 bits",
    claim:
      "QLoRA on an NF4 base loses nothing that matters against a base that is not quantised (Dettmers et al. 2023, " +
      "arXiv:2305.14314; LongQLoRA). Here: within 2 %",
    variants: [
      { name: "NF4 base", options: {} },
      { name: "base not quantised", options: { load_in_4bit: "false" } },
    ],
    holds: (scores) => scores["NF4 base"]! < 1.02 * scores["base not quantised"]!,
  },
  {
    id: "positions",
    title: "Position interpolation against a raised rope_theta",
    claim:
      "LongLoRA interpolates positions (Chen et al. 2023, arXiv:2306.15595), Long-LLM raises rope_theta instead. " +
      "Here: both within 5 % of each other",
    variants: [{ name: "interpolation by 4", options: {} }, RAISED_THETA],
    holds: (scores) => {
      const [a, b] = [scores["interpolation by 4"]!, scores[RAISED_THETA.name]!];
      return Math.max(a, b) < 1.05 * Math.min(a, b);
    },
  },
  {
    id: "steps",
    title: "Perplexity against steps",
    claim:
      "Most of the gain comes early, and more steps go on helping (LongLoRA, figure 5). Here: the first quarter of " +
      "the longest run brings more than half of its gain",
    variants: [0.25, 0.5, 1, 2].map((share) => ({
      name: `${share} x`,
      options: { max_steps: `${share}` },
    })),
    holds: (scores) => {
      const gain = (name: string) => scores["untrained"]! - scores[name]!;
      return gain("0.5 x") > 0.5 * gain("2 x") && scores["2 x"]! < scores["0.25 x"]!;
    },
  },
];
