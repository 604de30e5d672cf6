/** The flags of commands that take the settings of a training run. */
import { quoted } from "../text.ts";
import { type CommandUnknownOpts, Option } from "@commander-js/extra-typings";
import { EXIT, UserError } from "../errors.ts";
import { describeOptions } from "../train_args/describe.ts";
import { FOREIGN_KEYS, SAME_OPTIONS } from "../train_args/foreign_keys.ts";
import { isOption } from "../train_args/schema.ts";
import { REQUIRED } from "./flags.ts";

/** Settings as given on a command line. */
export interface GivenSettings {
  /** The YAML file; `null` where flags say everything. */
  readonly file: string | null;
  /** Flags by name, each as text. */
  readonly overrides: Readonly<Record<string, string>>;
}

/**
 * Adds a flag for the YAML file, and one for every option of train_args/schema.ts.
 * @param requires whether `--help` lists apart what a run cannot do without
 */
export function addTrainFlags(command: CommandUnknownOpts, requires = true): void {
  command.argument("[settings.yaml]", "YAML file with any of the options below; flags replace what it says");
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
 * What the flags of {@linkcode addTrainFlags} say, among all of a command's.
 * @throws {UserError} if more than one file is given
 */
export function givenSettings(command: CommandUnknownOpts): GivenSettings {
  const flags: Readonly<Record<string, unknown>> = command.opts();
  const files = [command.args[0], flags.train_args_file, flags.config].filter((file) => file !== undefined);
  if (files.length > 1) {
    throw new UserError(`Cannot use ${files.map(quoted).join(" and ")}: one settings file is read`, {
      exitCode: EXIT.usage,
    });
  }
  const settings = Object.entries(flags).filter(([name]) =>
    isOption(name) || FOREIGN_KEYS.has(name) || SAME_OPTIONS.has(name)
  );
  return {
    file: files.length === 0 ? null : String(files[0]),
    overrides: Object.fromEntries(settings.map(([name, value]) => [name, String(value)])),
  };
}
