/** The flags of commands that take the settings of a training run. */
import { quote } from "../text.ts";
import { type CommandUnknownOpts, Option } from "@commander-js/extra-typings";
import { UserError } from "../errors.ts";
import { kindOf } from "../data/rows.ts";
import { describeOptions } from "../train_args/describe.ts";
import { FOREIGN_KEYS, SAME_OPTIONS } from "../train_args/foreign_keys.ts";
import { isOption, type TrainArgs } from "../train_args/schema.ts";
import { REQUIRED } from "./flags.ts";
import { shellWord } from "./format.ts";

/** Settings as given on a command line. */
export interface GivenSettings {
  /** The YAML file; `null` where flags say everything. */
  readonly file: string | null;
  /** Data to train on that is named in its place, without a flag. */
  readonly documents: readonly string[];
  /** Flags by name, each as text. */
  readonly overrides: Readonly<Record<string, string>>;
}

/**
 * Adds a flag for the YAML file, and one for every option of train_args/schema.ts.
 * @param options.requires whether `--help` lists apart what a run cannot do without
 * @param options.takesDocuments whether data can be named in place of the file
 */
export function addTrainFlags(
  command: CommandUnknownOpts,
  { requires = true, takesDocuments = false } = {},
): void {
  const what = "YAML file with any of the options below; flags replace what it says";
  if (takesDocuments) {
    command.argument(
      "[settings.yaml or documents...]",
      `${what}. Or texts, PDFs, data: no file is needed then`,
    );
  } else command.argument("[settings.yaml]", what);
  command.addOption(new Option("-c, --train_args_file <path>", "the same file, as a flag"));
  command.addOption(new Option("--config <path>").hideHelp());
  for (const { name, group, doc, kind, default: initial, isBoolean, mayStandAlone } of describeOptions()) {
    const isRequired = requires && initial === "required";
    const option = new Option(`--${name} ${mayStandAlone ? "[value]" : "<value>"}`, doc)
      .helpGroup(isRequired ? REQUIRED : `${group}:`);
    const unset = initial === "required" ? "none" : initial;
    if (!isRequired) option.defaultValueDescription = isBoolean ? unset : `${unset}; ${kind}`;
    command.addOption(option);
  }
  // Foreign keys parse as flags too, so that whole command lines carry over; loading notes them.
  for (const key of [...FOREIGN_KEYS.keys(), ...SAME_OPTIONS.keys()]) {
    command.addOption(new Option(`--${key} [value]`).hideHelp());
  }
}

/**
 * Picks the flags of {@linkcode addTrainFlags} among all of a command's.
 * @param options.takesDocuments as there
 * @throws {UserError} if more than one file is given
 */
export function givenSettings(
  command: CommandUnknownOpts,
  { takesDocuments = false } = {},
): GivenSettings {
  const flags: Readonly<Record<string, unknown>> = command.opts();
  const words = command.args.flat();
  const documents = takesDocuments ? words.filter(isDocument) : [];
  const others = words.filter((word) => !documents.includes(word));
  const files = [...others, flags.train_args_file, flags.config].filter((file) => file !== undefined);
  const assigned = others.find((word) => /^\w+=/.test(word));
  if (assigned !== undefined) {
    throw new UserError(`Unexpected word ${quote(assigned)} for ${command.name()}: write --${assigned}`, {
      kind: "usage",
    });
  }
  if (files.length > 1 || (files.length > 0 && documents.length > 0)) {
    const shown = [...files, ...documents].map((word) => quote(word)).join(" and ");
    const rule = documents.length > 0
      ? "documents are trained on without a settings file; in one, name them as train_file"
      : "one settings file is read";
    throw new UserError(`Cannot use ${shown}: ${rule}`, { kind: "usage" });
  }
  const settings = Object.entries(flags).filter(([name]) =>
    isOption(name) || FOREIGN_KEYS.has(name) || SAME_OPTIONS.has(name)
  );
  return {
    file: files.length === 0 ? null : String(files[0]),
    documents,
    overrides: Object.fromEntries(settings.map(([name, value]) => [name, String(value)])),
  };
}

/** Writes the flags that name what a run has trained, for other commands. */
export function trainedModelFlags(
  { low_rank_training, model_name_or_path, output_dir }: TrainArgs,
): string {
  return low_rank_training
    ? `--base_model ${shellWord(model_name_or_path)} --peft_model ${shellWord(output_dir)}`
    : `--base_model ${shellWord(output_dir)}`;
}

/** Whether a word names data: by its ending, or as a folder. */
function isDocument(word: string): boolean {
  if (kindOf(word) !== undefined) return true;
  try {
    return Deno.statSync(word).isDirectory;
  } catch {
    return false;
  }
}
