/** The README.md that presents a model or adapter on the hub. */
import { stringify } from "yaml";
import { createHash } from "../data/deps.ts";
import type { RopeScaling } from "../model/rope_scaling.ts";

/** Facts of a model card; what is not known is left out. */
export interface CardFacts {
  /** `org/name`, or the folder, by which it is loaded. */
  readonly name: string;
  /** The heading; the last part of the name unless given. */
  readonly title?: string;
  readonly kind: "adapter" | "model";
  /** `org/name` of the model it was made from. */
  readonly baseModel: string | undefined;
  /** Method of training, in words. */
  readonly method: string | undefined;
  readonly data: readonly string[];
  /** Tokens. */
  readonly contextLength: number | undefined;
  readonly ropeTheta: number | undefined;
  readonly ropeScaling: RopeScaling | null | undefined;
  /** Further rows of the table: settings and results. */
  readonly rows: readonly (readonly [name: string, value: string])[];
}

/** The card as Markdown with the hub's YAML in front. */
export function modelCard(facts: CardFacts): string {
  const { name, title, kind, baseModel, data } = facts;
  const datasets = data.filter((each) => /^hf:\/\/datasets\//.test(each)).map((each) => each.slice(14));
  const head = {
    ...(baseModel === undefined ? {} : { base_model: baseModel }),
    ...(datasets.length > 0 ? { datasets } : {}),
    library_name: kind === "adapter" ? "peft" : "transformers",
    pipeline_tag: "text-generation",
    tags: ["longreach", "long-context", ...(kind === "adapter" ? ["lora"] : [])],
  };
  return [
    `---\n${stringify(head).trimEnd()}\n---\n`,
    `# ${title ?? name.split("/").at(-1)}\n`,
    kind === "adapter"
      ? `A LoRA adapter${
        baseModel === undefined ? "" : ` for [${baseModel}](https://huggingface.co/${baseModel})`
      }` +
        `, made with Longreach.\n`
      : `A language model${baseModel === undefined ? "" : ` made from ${baseModel}`} with Longreach.\n`,
    "| | |\n|---|---|",
    ...tableRows(facts).map(([key, value]) => `| ${cell(key)} | ${cell(value)} |`),
    "",
    "## Use\n",
    usage(facts),
  ].join("\n");
}

function tableRows({ method, contextLength, ropeTheta, ropeScaling, data, rows }: CardFacts) {
  const known: [string, string | undefined][] = [
    ["Trained", method],
    ["Context", contextLength === undefined ? undefined : `${contextLength.toLocaleString("en-US")} tokens`],
    ["RoPE base", ropeTheta === undefined ? undefined : String(ropeTheta)],
    ["RoPE scaling", ropeScaling === undefined ? undefined : scalingText(ropeScaling)],
    ["Data", data.length === 0 ? undefined : data.join(", ")],
    ...rows.map(([key, value]): [string, string] => [key, value]),
  ];
  return known.filter((row): row is [string, string] => row[1] !== undefined);
}

function scalingText(scaling: RopeScaling | null): string {
  return scaling === null ? "none" : `${scaling.type} by ${scaling.factor}`;
}

/** A table's cell: one line, no bars. */
function cell(text: string): string {
  return text.replaceAll(/\s+/g, " ").replaceAll("|", "\\|").replaceAll("<", "&lt;");
}

function usage({ name, kind, baseModel, contextLength, ropeScaling, ropeTheta }: CardFacts): string {
  if (kind === "model") {
    return fenced("python", [
      "from transformers import AutoModelForCausalLM, AutoTokenizer",
      "",
      `tokenizer = AutoTokenizer.from_pretrained("${name}")`,
      `model = AutoModelForCausalLM.from_pretrained("${name}", torch_dtype="auto")`,
    ]) + `\nWith Longreach:\n\n` +
      fenced("sh", [`./longreach evaluate --base_model ${name} --data_path test.txt`]);
  }
  const base = baseModel ?? "BASE_MODEL";
  const scaling = ropeScaling && { rope_type: ropeScaling.type, ...withoutType(ropeScaling) };
  const size = contextLength === undefined ? "" : ` --context_size ${contextLength}`;
  return "With PEFT; the positions must be those of training:\n\n" + fenced("python", [
    "from peft import PeftModel",
    "from transformers import AutoConfig, AutoModelForCausalLM",
    "",
    `config = AutoConfig.from_pretrained("${base}")`,
    ...(scaling ? [`config.rope_scaling = ${pythonMap(scaling)}`] : []),
    ...(ropeTheta === undefined ? [] : [`config.rope_theta = ${ropeTheta}`]),
    `model = AutoModelForCausalLM.from_pretrained("${base}", config=config, torch_dtype="auto")`,
    `model = PeftModel.from_pretrained(model, "${name}")`,
  ]) + "\nWith Longreach:\n\n" + fenced("sh", [
    `./longreach merge --base_model ${base} --peft_model ${name}${size} --save_path merged`,
    `./longreach evaluate --base_model ${base} --peft_model ${name}${size} --data_path test.txt`,
  ]);
}

/** The map as Python writes it; a factor of 2 would be no float to transformers. */
function pythonMap(map: Readonly<Record<string, unknown>>): string {
  return JSON.stringify(map).replace(/("factor":\d+)(?=[,}])/, "$1.0").replace(":false", ":False");
}

function withoutType({ type: _, ...rest }: RopeScaling): Record<string, unknown> {
  return rest;
}

function fenced(language: string, lines: readonly string[]): string {
  return `\`\`\`${language}\n${lines.join("\n")}\n\`\`\`\n`;
}

const SIGNATURE = /\n<!-- Longreach wrote this card [0-9a-f]{16}: once changed, it stays as it is\. -->\n$/;

/** A card with a last line by which {@linkcode isUnchanged} knows it again. */
export function signed(card: string): string {
  const hash = createHash("sha256").update(card).digest("hex").slice(0, 16);
  return `${card}\n<!-- Longreach wrote this card ${hash}: once changed, it stays as it is. -->\n`;
}

/** Whether a README.md is a card as {@linkcode signed} made it, and nobody's own. */
export function isUnchanged(text: string): boolean {
  return text === signed(text.replace(SIGNATURE, ""));
}
