/** The lines of a recipe's header that say what `plan` counts for it on a typical GPU. */
import { formatBytes } from "../text.ts";
import { shapeConfig } from "../model/shapes.ts";
import { planTraining } from "../train/plan/plan.ts";
import { TYPICAL_DEVICE } from "../train/plan/step_cost.ts";
import { loadTrainArgs } from "../train_args/load.ts";

const FOLDER = new URL("../train_args/", import.meta.url);
/** As `--max_binding 2GiB`: the limit of most GPUs, whatever the one here has. */
const MAX_BINDING_BYTES = 2 ** 31;

/** By part of a recipe's model_name_or_path, the shape that stands for it. */
const SHAPES: Readonly<Record<string, string>> = {
  "llama-2-7b": "llama2-7b",
  "vicuna-13b": "llama2-13b",
  "llama-2-70b": "llama2-70b",
  "llama-3-8b": "llama3-8b",
  "pythia-1.4b": "pythia-1.4b",
  "smollm3-3b": "smollm3-3b",
  "phi-4-mini": "phi4-mini",
  "qwen3-4b": "qwen3-4b",
  "qwen3-8b": "qwen3-8b",
  "gemma-3-4b": "gemma3-4b",
};

/** Names of the recipe files, sorted. */
export async function recipeNames(): Promise<string[]> {
  const entries = await Array.fromAsync(Deno.readDir(FOLDER));
  return entries.map(({ name }) => name).filter((name) => name.endsWith(".yaml")).sort();
}

/** Path of a recipe. */
export function recipePath(name: string): string {
  return new URL(name, FOLDER).pathname;
}

/** The lines about memory in a recipe's header, with the command that counts it. */
export async function memoryLines(name: string): Promise<string> {
  const { args } = await loadTrainArgs(recipePath(name));
  const [, shape] =
    Object.entries(SHAPES).find(([part]) => args.model_name_or_path.toLowerCase().includes(part)) ?? [];
  if (shape === undefined) throw new Error(`${name}: no shape is known for its model: add it to SHAPES`);
  const peak = async (offload_activations: boolean) => {
    const device = { ...TYPICAL_DEVICE, maxBindingBytes: MAX_BINDING_BYTES };
    const plan = await planTraining({ ...args, offload_activations }, shapeConfig(shape), { device });
    return formatBytes(plan.peak.heldBytes);
  };
  return `# Memory on the device: ${await peak(false)}, or ${await peak(
    true,
  )} with offload_activations: true, by\n` +
    `#   ./longreach plan train_args/${name} --shape ${shape} --max_binding 2GiB`;
}

const LINES = /^# Memory on the device: .*\n# {3}\.\/longreach plan .*$/m;

/** The lines about memory that a recipe has; undefined if it has none. */
export function writtenLines(recipe: string): string | undefined {
  return LINES.exec(recipe)?.[0];
}

/** A recipe with these lines in place of its own. */
export function withLines(recipe: string, lines: string): string {
  return recipe.replace(LINES, lines);
}
