/** The comparisons of the papers, as changes of the demo's recipe. */

/** One way of training. */
export interface Variant {
  readonly name: string;
  /** Options of train_args that differ from the recipe. */
  readonly options: Readonly<Record<string, string>>;
}

/** Perplexity at the longest length by a variant's name, of runs with one seed. */
export type Scores = Readonly<Record<string, number>>;

/** Something the papers say that one seed's runs can bear out or not. */
export interface Claim {
  /** With the source. */
  readonly text: string;
  readonly holds: (scores: Scores) => boolean;
}

export interface Experiment {
  readonly id: string;
  readonly title: string;
  readonly variants: readonly Variant[];
  readonly claims: readonly Claim[];
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

/** The base model untouched, its positions its own at every length: what every run is to be better than. */
export const BASE: Variant = { name: "base, as it is", options: { max_steps: "0", model_max_length: "256" } };

/** The base model with positions interpolated and nothing trained: where every run begins. */
export const UNTRAINED: Variant = { name: "interpolated, not trained", options: { max_steps: "0" } };

const within = (percent: number, one: string, other: string) => (scores: Scores) =>
  scores[one]! <= (1 + percent / 100) * scores[other]!;
const better = (one: string, ...others: readonly string[]) => (scores: Scores) =>
  others.every((other) => scores[one]! < scores[other]!);

const ALONE = [8, 32, 64, 128, 256].map((rank) => lora(rank, ""));

/** LongLoRA is Chen et al. 2023, arXiv:2309.12307. */
export const EXPERIMENTS: readonly Experiment[] = [
  {
    id: "attention",
    title: "S2-Attn against full attention in training",
    variants: [
      RECIPE,
      { name: "full attention", options: { use_full_attn: "true" } },
      { name: "groups without shift", options: { group_shift: "false" } },
    ],
    claims: [
      {
        text: "Shifted groups in training end within 5 % of full attention (LongLoRA)",
        holds: within(5, RECIPE.name, "full attention"),
      },
      {
        text: "They end better than groups that are not shifted (LongLoRA)",
        holds: better(RECIPE.name, "groups without shift"),
      },
    ],
  },
  {
    id: "groups",
    title: "The size of the groups",
    variants: [
      { name: "N/2", options: { group_size_ratio: "0.5" } },
      { name: "N/4", options: {} },
      { name: "N/6", options: { group_size_ratio: String(1 / 6) } },
      { name: "N/8", options: { group_size_ratio: "0.125" } },
    ],
    claims: [
      { text: "Groups of N/4 end within 3 % of N/2 (LongLoRA)", holds: within(3, "N/4", "N/2") },
      { text: "Groups of N/8 end worse than N/4 (LongLoRA)", holds: better("N/4", "N/8") },
    ],
  },
  {
    id: "trained",
    title: "What is trained",
    variants: [
      ...ALONE,
      lora(8, "norm"),
      lora(8, "embed"),
      lora(8, "embed,norm"),
      FULL_TUNING,
    ],
    claims: [
      {
        text: "LoRA alone ends worse than full fine-tuning at every rank (LongLoRA)",
        holds: better(FULL_TUNING.name, ...ALONE.map(({ name }) => name)),
      },
      {
        text: "Embeddings and norms trained beside rank 8 end better than rank 8 alone (LongLoRA)",
        holds: better("LoRA rank 8 + embed + norm", "LoRA rank 8"),
      },
      {
        text: "They end within 5 % of full fine-tuning (LongLoRA)",
        holds: within(5, "LoRA rank 8 + embed + norm", FULL_TUNING.name),
      },
    ],
  },
  {
    id: "precision",
    title: "A base in 4 bits",
    variants: [
      { name: "NF4 base", options: {} },
      { name: "base not quantised", options: { load_in_4bit: "false" } },
    ],
    claims: [
      {
        text:
          "On a base in NF4, LoRA ends within 2 % of a base that is not quantised (Dettmers et al. 2023, " +
          "arXiv:2305.14314)",
        holds: within(2, "NF4 base", "base not quantised"),
      },
    ],
  },
  {
    id: "positions",
    title: "Position interpolation against a raised rope_theta",
    variants: [{ name: "interpolation by 4", options: {} }, RAISED_THETA],
    claims: [
      {
        text:
          "Interpolated positions (LongLoRA, after Chen et al. 2023, arXiv:2306.15595) end within 5 % of a " +
          "raised rope_theta (Long-LLM)",
        holds: within(5, "interpolation by 4", RAISED_THETA.name),
      },
    ],
  },
  {
    id: "steps",
    title: "Perplexity against steps",
    variants: [0.25, 0.5, 1, 2].map((share) => ({
      name: `${share} x`,
      options: { max_steps: `${share}` },
    })),
    claims: [
      {
        text: "A quarter of the steps of the longest run brings more than half of its gain (LongLoRA)",
        holds: (scores) => {
          const gain = (name: string) => scores[UNTRAINED.name]! - scores[name]!;
          return gain("0.5 x") > 0.5 * gain("2 x");
        },
      },
      { text: "More steps go on helping (LongLoRA)", holds: better("2 x", "1 x", "0.5 x", "0.25 x") },
    ],
  },
];
