/** Flags as every command takes them: snake_case or kebab-case, real booleans, and clear refusals. */
import { nearest } from "../nearest.ts";
import { quote } from "../text.ts";
import { Command, type CommandUnknownOpts, InvalidArgumentError, Option } from "@commander-js/extra-typings";
import { CommanderError, type Option as CommanderOption } from "commander";
import { UserError } from "../errors.ts";
import { WEBGPUS } from "../kernels/device.ts";
import { OTHER_NAMES } from "../train_args/foreign_keys.ts";
import { hintFor } from "../train_args/other_tools.ts";
import { bytes, type Kind, oneOf, text } from "../train_args/values.ts";
import type { Io } from "./io.ts";

/** A command ready to parse: what `cli/<name>.ts` builds. */
export type BuiltCommand = CommandUnknownOpts;

/** Builds every command, with its summary. */
export type AllCommands = () => Promise<{ summary: string; command: BuiltCommand }[]>;

/** Options of {@linkcode newCommand}: what `--help` shows besides the flags, and whether the command needs a GPU. */
export interface CommandOptions {
  /** Command lines to copy, without `./longreach` in front. */
  readonly examples?: readonly string[];
  readonly usesGpu?: boolean;
}

/** Headings of `--help`, in order; a command's other flags stand between them. */
export const REQUIRED = "Required:";
const GENERAL = "General:";

/** A command with `--help` and `--json`, that throws instead of ending the process. */
export function newCommand(
  name: string,
  summary: string,
  io: Io,
  { examples = [], usesGpu = true }: CommandOptions = {},
) {
  const webgpu = valueFlag("webgpu", "whose WebGPU (dawn has matrix units)", oneOf(WEBGPUS), "deno")
    .env("LONGREACH_WEBGPU").helpGroup(GENERAL);
  if (!usesGpu) webgpu.hideHelp();
  return new Command(name)
    .description(summary)
    .exitOverride()
    .allowExcessArguments(false)
    .showSuggestionAfterError(false)
    .addHelpOption(new Option("-h, --help", "show this help").helpGroup(GENERAL))
    .addHelpText(
      "after",
      examples.length === 0
        ? ""
        : ["\nExamples:", ...examples.map((line) => `  ./longreach ${line}`)].join("\n"),
    )
    .configureOutput({
      writeOut: (text) => io.out(text.trimEnd()),
      // Errors are thrown, and main.ts words them.
      writeErr: () => {},
      getOutHelpWidth: () => Math.min(110, Math.max(60, io.columns())),
      getOutHasColors: () => false,
    })
    .configureHelp({
      commandUsage: (command) =>
        `longreach ${name}${command.registeredArguments.map((word) => ` [${word.name()}]`).join("")} [flags]`,
      optionTerm: (option) => option.optional ? `--[no-]${option.name()}` : option.flags,
      optionDescription: (option) => `${option.description}${defaultOf(option)}`,
    })
    .addOption(
      booleanFlag("json", "print the result, or the error, as one JSON object on stdout", false)
        .helpGroup(GENERAL),
    )
    .addOption(webgpu);
}

/** The end of an option's help line: what it may be and what it is unless given. */
function defaultOf(
  { argChoices, mandatory, defaultValue, defaultValueDescription }: CommanderOption,
): string {
  const choices = argChoices === undefined ? "" : `: ${argChoices.join(", ")}`;
  const initial = defaultValueDescription ?? defaultValue;
  return mandatory || initial === undefined ? choices : `${choices} (default: ${initial})`;
}

/** An option with a value of some {@linkcode Kind}, which says its choices in `--help`. */
function option<const N extends string, T>(name: N, doc: string, { type, wanted, choices }: Kind<T>) {
  const read = (value: string): T => {
    const result = type.safeParse(value);
    if (result.success) return result.data;
    throw new InvalidArgumentError(`--${name}: must be ${wanted}, got ${quote(value)}`);
  };
  const made = new Option(`--${name} <value>` as `--${N} <value>`, doc).argParser(read);
  if (choices) made.argChoices = [...choices];
  return made;
}

/** A flag with a value of some {@linkcode Kind}, and a default. */
export function valueFlag<const N extends string, T>(
  name: N,
  doc: string,
  kind: Kind<T>,
  initial: NoInfer<T>,
) {
  return option(name, doc, kind).default(initial);
}

/** A flag with a value of some {@linkcode Kind} that may be left out, and is `null` then; `otherwise` says what that means. */
export function optionalFlag<const N extends string, T>(
  name: N,
  doc: string,
  kind: Kind<T>,
  otherwise: string,
) {
  return option(name, doc, kind).default(null as T | null, otherwise);
}

/** A flag with a value of some {@linkcode Kind} that must be given. */
export function requiredFlag<const N extends string, T>(name: N, doc: string, kind: Kind<T>) {
  return option(name, doc, kind).makeOptionMandatory().helpGroup(REQUIRED);
}

/** A flag with a path that must be given. */
export function requiredPath<const N extends string>(name: N, doc: string) {
  return requiredFlag(name, doc, text("path"));
}

/** An adapter on top of the model that `base_model` names. */
export function adapterFlag() {
  return optionalFlag(
    "peft_model",
    "adapter to put on top of it: folder, or name on the hub",
    text("path"),
    "none",
  );
}

/** Numbers of a GGUF file's matrices. */
export function outtypeFlag() {
  const types = oneOf(["f32", "f16", "bf16", "q8_0", "q4_0"]);
  return optionalFlag("outtype", "numbers of a GGUF file's matrices", types, "f16");
}

/** Size of the files that a model's weights are written to. */
export function shardSizeFlag() {
  return valueFlag("max_shard_size", "largest weight file", bytes(), 5e9).default(5e9, "5GB");
}

/** A boolean: `--name`, `--no-name`, `--name true`, `--name False`. */
export function booleanFlag<const N extends string>(name: N, doc: string, initial: boolean) {
  const read = (value: string): boolean => {
    const word = value.toLowerCase();
    if (["true", "yes", "on"].includes(word)) return true;
    if (["false", "no", "off"].includes(word)) return false;
    throw new InvalidArgumentError(`--${name}: must be true or false, got ${quote(value)}`);
  };
  return new Option(`--${name} [value]` as `--${N} [value]`, doc).preset("true").argParser(read).default(
    initial,
  );
}

/**
 * Rewrites flag names to snake_case and `--no-name` to `--name=false`. Values are left alone: only words that begin
 * with `--` are touched, and of those only the part before `=`. After a bare `--` nothing is touched.
 */
export function normaliseFlags(words: readonly string[]): string[] {
  const end = words.indexOf("--");
  return words.map((word, index) => {
    if (!word.startsWith("--") || word === "--" || (end !== -1 && index > end)) return word;
    const equals = word.indexOf("=");
    const name = (equals === -1 ? word.slice(2) : word.slice(2, equals)).replaceAll("-", "_");
    if (name.startsWith("no_") && name.length > 3 && equals === -1) return `--${name.slice(3)}=false`;
    return `--${name}${equals === -1 ? "" : word.slice(equals)}`;
  });
}

/**
 * Parses `words` and runs the command's action.
 *
 * @throws {UserError} with exit code 2 for flags that are unknown, lack a value, have a wrong one, or are missing
 */
export async function runCommand(command: BuiltCommand, words: readonly string[]): Promise<void> {
  // Headings appear in the order in which their flags were added.
  const rank = ({ helpGroupHeading: heading }: CommanderOption) =>
    heading === REQUIRED ? 0 : heading === GENERAL ? 2 : 1;
  (command.options as CommanderOption[]).sort((a, b) => rank(a) - rank(b));
  try {
    await command.parseAsync(normaliseFlags(words), { from: "user" });
  } catch (error) {
    if (!(error instanceof CommanderError)) throw error;
    if (error.code === "commander.helpDisplayed") return;
    throw new UserError(explain(error, command, words), { kind: "usage", cause: error });
  }
}

function explain(error: CommanderError, command: BuiltCommand, words: readonly string[]): string {
  const quotedPart = /'([^']*)'/.exec(error.message)?.[1] ?? "";
  const help = `see longreach ${command.name()} --help`;
  switch (error.code) {
    case "commander.unknownOption":
      return unknownFlag(quotedPart, command);
    case "commander.optionMissingArgument":
      return `${quotedPart.split(/[ ,]/)[0]} needs a value, as in: ${quotedPart}`;
    case "commander.missingMandatoryOptionValue": {
      // A flag that is missing may be there with a slip in its name.
      const names = normaliseFlags(words).filter((word) => /^--./.test(word)).map((word) =>
        word.split("=")[0]!
      );
      const unknown = names.filter((name) =>
        !command.options.some((option) => `--${option.name()}` === name)
      );
      const missing = `${command.name()} needs ${missingFlags(command).join(", ")}: ${help}`;
      return [...unknown.map((flag) => unknownFlag(flag, command)), missing].join("\n");
    }
    case "commander.excessArguments": {
      const word = unexpected(words.slice(command.registeredArguments.length));
      const [, name] = /^(\w+)=/.exec(word) ?? [];
      const hint = name === undefined ? "everything else it takes is a --flag" : `write --${word}`;
      return `Unexpected word ${quote(word)} for ${command.name()}: ${hint}`;
    }
    case "commander.invalidArgument":
      return error.message.replace(
        /^error: option '.*?' (?:argument|value) '.*' (?:from env '.*' )?is invalid\. /s,
        "",
      );
    default:
      return error.message;
  }
}

function unknownFlag(word: string, command: BuiltCommand): string {
  const flag = word.split("=")[0]!;
  const names = command.options.filter((option) => !option.hidden).map((option) => option.name());
  const name = flag.replace(/^--?/, "");
  const other = OTHER_NAMES.get(name);
  const told = names.includes("train_args_file") ? hintFor(name) : undefined;
  if (told !== undefined) return `Unknown flag ${quote(flag)} for ${command.name()}: ${told}`;
  const near = other !== undefined && names.includes(other) ? other : nearest(name, names);
  const hint = near === null ? `see longreach ${command.name()} --help` : `did you mean --${near}?`;
  return `Unknown flag ${quote(flag)} for ${command.name()}: ${hint}`;
}

function missingFlags(command: BuiltCommand): string[] {
  return command.options
    .filter((option) => option.mandatory && command.getOptionValue(option.attributeName()) === undefined)
    .map((option) => `--${option.name()}`);
}

/** The first word that is no flag and follows no flag that could have taken it. */
function unexpected(words: readonly string[]): string {
  return words.find((word, i) => !word.startsWith("-") && !words[i - 1]?.startsWith("--")) ?? words.at(-1) ??
    "";
}
