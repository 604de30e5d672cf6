/** The flags of commands that take the settings of a training run. */
import { type CommandUnknownOpts, Option } from "@commander-js/extra-typings";
import { describeOptions } from "../train_args/describe.ts";
import { FOREIGN_KEYS, SAME_OPTIONS } from "../train_args/foreign_keys.ts";
import { isOption } from "../train_args/schema.ts";

/** Settings as given on a command line. */
export interface GivenSettings {
  /** The YAML file; `null` where flags say everything. */
  readonly file: string | null;
  /** Flags by name, each as text. */
  readonly overrides: Readonly<Record<string, string>>;
}

/** Adds a flag for the YAML file, and one for every option of train_args/schema.ts. */
export function addTrainFlags(command: CommandUnknownOpts): void {
  const file = new Option("--train_args_file <path>", "YAML file with any of the options below");
  file.defaultValueDescription = "none, everything comes from flags";
  command.addOption(file);
  for (const { name, group, doc, kind, default: initial, isBoolean } of describeOptions()) {
    const option = new Option(`--${name} ${isBoolean ? "[value]" : "<value>"}`, doc).helpGroup(group);
    option.defaultValueDescription = isBoolean || initial === "required" ? initial : `${initial}; ${kind}`;
    command.addOption(option);
  }
  // Foreign keys parse as flags too, so that whole command lines carry over; loading notes them.
  for (const key of [...FOREIGN_KEYS.keys(), ...SAME_OPTIONS.keys()]) {
    command.addOption(new Option(`--${key} [value]`).hideHelp());
  }
}

/** What the flags of {@linkcode addTrainFlags} say, among all of a command's. */
export function givenSettings(flags: Readonly<Record<string, unknown>>): GivenSettings {
  const { train_args_file } = flags;
  const settings = Object.entries(flags).filter(([name]) =>
    isOption(name) || FOREIGN_KEYS.has(name) || SAME_OPTIONS.has(name)
  );
  return {
    file: train_args_file === undefined ? null : String(train_args_file),
    overrides: Object.fromEntries(settings.map(([name, value]) => [name, String(value)])),
  };
}
