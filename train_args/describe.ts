/** Settings as text for people: the option list of `--help` and of `docs/options.md`, and a run's settings as YAML. */
import { stringify } from "yaml";
import { type Group, GROUPS, OPTION_NAMES, OPTIONS, type TrainArgs, type TrainOption } from "./schema.ts";

/** One option, in words. */
export interface OptionDescription {
  readonly name: string;
  readonly group: string;
  /** Its values in words: "whole number", "path", "true or false". */
  readonly kind: string;
  readonly doc: string;
  /** The default in words, or "required". */
  readonly default: string;
  /** Whether `--name` alone means `--name true`. */
  readonly mayStandAlone: boolean;
  /** Whether `true` and `false` are all it may be. */
  readonly isBoolean: boolean;
}

/** Every option in words, in the order of the schema. */
export function describeOptions(): OptionDescription[] {
  return OPTION_NAMES.map((name) => {
    const option: TrainOption = OPTIONS[name];
    return {
      name,
      group: GROUPS[option.group],
      kind: option.kind.label,
      doc: option.doc,
      default: option.required ? "required" : option.defaultDoc ?? defaultText(option.default),
      isBoolean: option.kind.label === "true or false",
      mayStandAlone: option.kind.type.safeParse("true").data === true,
    };
  });
}

function defaultText(value: unknown): string {
  return Array.isArray(value) && value.length === 0 ? "none" : String(value);
}

/** The text of `docs/options.md`. */
export function optionsDocument(): string {
  const options = describeOptions();
  const sections = Object.values(GROUPS).map((group) => {
    const rows = options.filter((option) => option.group === group).map((option) =>
      `| \`${option.name}\` | ${option.default} | ${option.kind} | ${option.doc} |`
    );
    return [
      `## ${group}`,
      "",
      "| option | default | value | what it does |",
      "|---|---|---|---|",
      ...rows,
      "",
    ];
  });
  return [
    "<!-- deno-fmt-ignore-file -->",
    "<!-- Written by `deno task options_doc` from train_args/schema.ts: change it there. -->",
    "",
    "# Training options",
    "",
    "Keys of a YAML file, and flags, in snake_case or kebab-case; a flag replaces its key:",
    "",
    "```sh",
    "./longreach train my.yaml --learning_rate 1e-4     # or -c my.yaml, or --train_args_file my.yaml",
    "```",
    "",
    "`plan` takes the same. Keys that files for Hugging Face, DeepSpeed, LongLoRA and LongQLoRA carry and that mean",
    "nothing here are accepted and noted (`train_args/foreign_keys.ts`); any other key is an error, which says for keys of",
    "axolotl, LLaMA-Factory, torchtune, mlx-lm, unsloth and TRL what takes their place (`train_args/other_tools.ts`).",
    "",
    ...sections.flat(),
  ].join("\n");
}

function written({ kind }: TrainOption, value: unknown): unknown {
  return value === null || !kind.write ? value : kind.write(value);
}

/** A setting as people read it: words and lists of them as they are, the rest as YAML writes it in a line. */
export function settingText(name: (typeof OPTION_NAMES)[number], value: unknown): string {
  const plain = written(OPTIONS[name], value);
  if (plain === null) return "not set";
  if (typeof plain !== "object") return String(plain);
  if (Array.isArray(plain) && plain.every((each) => typeof each !== "object")) {
    return plain.join(", ") || "none";
  }
  return stringify(plain, { collectionStyle: "flow", flowCollectionPadding: false, lineWidth: 0 }).trim();
}

/**
 * `args` as a YAML file that {@linkcode loadTrainArgs} reads back to the same settings, grouped and with every
 * default written out.
 */
export function dumpTrainArgs(args: TrainArgs): string {
  const groups = Object.entries(GROUPS).map(([group, title]) => {
    const names = OPTION_NAMES.filter((name) => OPTIONS[name].group === group as Group);
    const values = Object.fromEntries(names.map((name) => [name, written(OPTIONS[name], args[name])]));
    return `# ${title}\n${stringify(values, { lineWidth: 0 })}`;
  });
  return groups.join("\n");
}
