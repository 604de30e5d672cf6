/** The architectures that can be loaded: one line each. */
import type { Architecture } from "./architecture.ts";
import { GEMMA2 } from "./gemma2/architecture.ts";
import { GEMMA3 } from "./gemma3/architecture.ts";
import { GPT_NEOX } from "./gpt_neox/architecture.ts";
import { GRANITE } from "./granite/architecture.ts";
import { LLAMA } from "./llama/architecture.ts";
import { MISTRAL } from "./mistral/architecture.ts";
import { MIXTRAL } from "./mixtral/architecture.ts";
import type { ModelConfig } from "./model_config.ts";
import { OLMO2 } from "./olmo2/architecture.ts";
import { PHI3 } from "./phi3/architecture.ts";
import { QWEN2 } from "./qwen2/architecture.ts";
import { QWEN3 } from "./qwen3/architecture.ts";
import { QWEN3_MOE } from "./qwen3_moe/architecture.ts";
import { SMOLLM3 } from "./smollm3/architecture.ts";

/** Every architecture, in the order in which messages name them. */
export const ARCHITECTURES: readonly Architecture[] = [
  LLAMA,
  MISTRAL,
  QWEN2,
  GPT_NEOX,
  QWEN3,
  GEMMA2,
  GEMMA3,
  GRANITE,
  OLMO2,
  SMOLLM3,
  PHI3,
  MIXTRAL,
  QWEN3_MOE,
];

/** Finds the architecture that serves a `model_type`. */
export function architectureNamed(modelType: unknown): Architecture | undefined {
  return ARCHITECTURES.find(({ modelTypes }) => (modelTypes as readonly unknown[]).includes(modelType));
}

/** Finds a model's architecture. */
export function architectureOf({ model_type }: Pick<ModelConfig, "model_type">): Architecture {
  const architecture = architectureNamed(model_type);
  if (!architecture) throw new RangeError(`no architecture serves model_type "${model_type}"`);
  return architecture;
}
