/** The keys of `config.json` that say which experts a model has, and the modules that follow from them. */
import { z } from "zod";
import { UserError } from "../errors.ts";
import { MOST_EXPERTS } from "../kernels/experts/routing.ts";
import { count } from "./checked.ts";
import { type ExpertLinears, expertsMlp } from "./experts.ts";
import type { LayerModules } from "./layer_modules.ts";
import type { LinearSpec, ModuleSpec } from "./layout.ts";
import type { Mlp } from "./mlp.ts";

/** Names of the modules of a mixture of experts, within a layer. */
export interface ExpertNames {
  readonly router: string;
  /** What the experts' numbers come behind. */
  readonly experts: string;
  readonly gate: string;
  readonly up: string;
  readonly down: string;
}

/** Experts in place of the MLP. */
export interface Experts {
  /** E */
  readonly experts: number;
  /** k: experts of each token. */
  readonly perToken: number;
  /** Whether the weights of a token's experts are divided by their sum. */
  readonly isNormalised: boolean;
  /** F of one expert. */
  readonly intermediate_size: number;
  /** Whether a layer has them, layer by layer; the others have an MLP. */
  readonly layers: readonly boolean[];
  readonly names: ExpertNames;
}

/** Keys that all architectures with experts read. */
export const EXPERT_KEYS = {
  num_experts: count.nullish(),
  num_local_experts: count.nullish(),
  num_experts_per_tok: count.nullish(),
  output_router_logits: z.boolean().nullish(),
  router_aux_loss_coef: z.number().nullish(),
  router_jitter_noise: z.number().nullish(),
} as const;

const KEYS = z.object(EXPERT_KEYS);

/**
 * Reads how many experts there are.
 * @param defaults for keys that are not there
 * @throws {UserError} if the keys do not fit each other, or the router is trained by what is not computed here; `path` is
 *   for messages
 */
export function parseExperts(
  keys: z.infer<typeof KEYS>,
  defaults: { readonly experts: number; readonly perToken: number },
  path: string,
): Pick<Experts, "experts" | "perToken"> {
  const { num_experts, num_local_experts, output_router_logits, router_aux_loss_coef } = keys;
  const fail = (problem: string): never => {
    throw new UserError(`Cannot use "${path}": ${problem}`);
  };
  const experts = num_experts ?? num_local_experts ?? defaults.experts;
  const perToken = keys.num_experts_per_tok ?? defaults.perToken;
  if (num_experts && num_local_experts && num_experts !== num_local_experts) {
    fail(`its num_experts is ${num_experts}, but its num_local_experts is ${num_local_experts}`);
  }
  if (perToken > experts) {
    fail(`its num_experts_per_tok is ${perToken}, but there are ${experts} experts for a token to have`);
  }
  if (experts > MOST_EXPERTS.all || perToken > MOST_EXPERTS.perToken) {
    fail(
      `it has ${perToken} of ${experts} experts for a token; at most ${MOST_EXPERTS.perToken} of ` +
        `${MOST_EXPERTS.all} are allowed`,
    );
  }
  if (output_router_logits && router_aux_loss_coef !== 0) {
    fail(
      "its output_router_logits is true, which adds a loss for the balance of the experts in training, and that is not " +
        "computed here. Set it to false",
    );
  }
  if (keys.router_jitter_noise) {
    fail(
      `its router_jitter_noise is ${keys.router_jitter_noise}, noise that is not made here. Set it to 0`,
    );
  }
  return { experts, perToken };
}

/** Says what of the experts' shape the kernels cannot work with; undefined if nothing. */
export function problemOfExperts({ intermediate_size: F }: Experts, hidden: number): string | undefined {
  // An expert's matrix must begin where a buffer may be bound, and with a word of 8-bit scales.
  if (F % 4 === 0 && F * hidden % 256 === 0) return undefined;
  return `experts of ${F} x ${hidden} are not supported: both must be multiples of 4, their product of 256`;
}

/** llama.cpp's keys for how many experts there are. */
export function expertCounts({ experts, perToken }: Experts): Record<string, number> {
  return { expert_count: experts, expert_used_count: perToken };
}

/** Elements of the widest tensor that a token's experts make. */
export function widthOfExperts({ perToken, intermediate_size }: Experts, hidden: number): number {
  return perToken * Math.max(intermediate_size, hidden);
}

/** Modules of a mixture of experts on C = `hidden`: the router, then all experts' gates, ups and downs. */
export function expertModules(experts: Experts, hidden: number): ModuleSpec[] {
  const { intermediate_size: ffn, names } = experts;
  const linears = (name: string, shape: readonly [number, number]): LinearSpec[] =>
    Array.from({ length: experts.experts }, (_, number) => ({
      kind: "linear",
      name: `${names.experts}.${number}.${name}`,
      part: "mlp",
      shape,
      hasBias: false,
      isRecomputed: name !== names.down,
      expert: {
        stack: `${names.experts}.${name}`,
        experts: experts.experts,
        perToken: experts.perToken,
      },
    }));
  return [
    { kind: "router", name: names.router, shape: [experts.experts, hidden], hasBias: false },
    ...linears(names.gate, [ffn, hidden]),
    ...linears(names.up, [ffn, hidden]),
    ...linears(names.down, [hidden, ffn]),
  ];
}

/** Puts the MLP of a layer with experts together. */
export function mlpOfExperts(modules: LayerModules, { names, ...options }: Experts): Mlp {
  const stack = (name: string): ExpertLinears => modules.stack(`${names.experts}.${name}`);
  return expertsMlp({
    router: modules.router(names.router),
    gate: stack(names.gate),
    up: stack(names.up),
    down: stack(names.down),
    options,
  });
}
