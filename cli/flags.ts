/** Flags as every command takes them: snake_case or kebab-case, real booleans, and clear refusals. */
import { Command, type CommandUnknownOpts, InvalidArgumentError, Option } from "@commander-js/extra-typings";
import { CommanderError } from "commander";
import * as z from "zod";
import { EXIT, UserError } from "../errors.ts";
import { useWebGpu, WEBGPUS } from "../kernels/adapter.ts";
import { nearest, quoted } from "../train_args/problems.ts";
import { bytesFromText, type Kind, oneOf, text } from "../train_args/values.ts";
import type { Io } from "./io.ts";

/** A command ready to parse: what `cli/<name>.ts` builds. */
export type BuiltCommand = CommandUnknownOpts;

/** A command with `--help` and `--json`, that throws instead of ending the process. */
export function newCommand(name: string, summary: string, io: Io) {
  return new Command(name)
    .description(summary)
    .exitOverride()
    .allowExcessArguments(false)
    .showSuggestionAfterError(false)
    .addHelpOption(new Option("-h, --help", "show this help"))
    .configureOutput({
      writeOut: (text) => io.out(text.trimEnd()),
      // Errors are thrown, and main.ts words them.
      writeErr: () => {},
      getOutHelpWidth: () => Math.min(110, Math.max(60, io.columns())),
      getOutHasColors: () => false,
    })
    .configureHelp({
      commandUsage: () => `longreach ${name} [flags]`,
      optionTerm: (option) => option.optional ? `--[no-]${option.name()}` : option.flags,
      optionDescription: (option) => `${option.description}${defaultOf(option)}`,
    })
    .addOption(booleanFlag("json", "print the result as one JSON object on stdout", false))
    .addOption(
      valueFlag("webgpu", "whose WebGPU: deno or dawn (with tensor cores)", oneOf(WEBGPUS), "deno")
        .env("LONGREACH_WEBGPU"),
    )
    .hook("preAction", (command) => useWebGpu(command.opts().webgpu));
}

/** The end of an option's help line. */
function defaultOf(
  option: { mandatory: boolean; defaultValue?: unknown; defaultValueDescription?: string | undefined },
) {
  if (option.mandatory) return " (required)";
  const initial = option.defaultValueDescription ?? option.defaultValue;
  return initial === undefined ? "" : ` (${initial === "required" ? initial : `default: ${initial}`})`;
}

function readAs<T>(name: string, { type, wanted }: Kind<T>): (value: string) => T {
  return (value) => {
    const result = type.safeParse(value);
    if (result.success) return result.data;
    throw new InvalidArgumentError(`--${name}: must be ${wanted}, got ${quoted(value)}`);
  };
}

/** A flag with a value of some {@linkcode Kind}, and a default. */
export function valueFlag<const N extends string, T>(
  name: N,
  doc: string,
  kind: Kind<T>,
  initial: NoInfer<T>,
) {
  return new Option(`--${name} <value>` as `--${N} <value>`, doc).argParser(readAs(name, kind)).default(
    initial,
  );
}

/** A flag with a value of some {@linkcode Kind} that may be left out, and is `null` then; `otherwise` says what that means. */
export function optionalFlag<const N extends string, T>(
  name: N,
  doc: string,
  kind: Kind<T>,
  otherwise: string,
) {
  return new Option(`--${name} <value>` as `--${N} <value>`, doc).argParser(readAs(name, kind))
    .default(null as T | null, otherwise);
}

/** A flag with a value of some {@linkcode Kind} that must be given. */
export function requiredFlag<const N extends string, T>(name: N, doc: string, kind: Kind<T>) {
  return new Option(`--${name} <value>` as `--${N} <value>`, doc).argParser(readAs(name, kind))
    .makeOptionMandatory();
}

/** A flag with a path that must be given. */
export function requiredPath<const N extends string>(name: N, doc: string) {
  return requiredFlag(name, doc, text("path"));
}

/** A size with a unit, as `transformers` writes it: `5GB`, `500MB`, `2GiB`; the value is in bytes. */
const size: Kind<number> = {
  type: z.preprocess(
    (value) => /^\d+(\.\d+)?\s*[kmg]?i?b$/i.test(String(value).trim()) ? bytesFromText(value) : value,
    z.number().min(1),
  ),
  wanted: "a size such as 5GB or 500MB",
  label: "size",
};

/** Size of the files that a model's weights are written to. */
export function shardSizeFlag() {
  return valueFlag("max_shard_size", "largest weight file", size, 5e9).default(5e9, "5GB");
}

/** A boolean: `--name`, `--no-name`, `--name true`, `--name False`. */
export function booleanFlag<const N extends string>(name: N, doc: string, initial: boolean) {
  const read = (value: string): boolean => {
    const word = value.toLowerCase();
    if (["true", "yes", "on"].includes(word)) return true;
    if (["false", "no", "off"].includes(word)) return false;
    throw new InvalidArgumentError(`--${name}: must be true or false, got ${quoted(value)}`);
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
  try {
    await command.parseAsync(normaliseFlags(words), { from: "user" });
  } catch (error) {
    if (!(error instanceof CommanderError)) throw error;
    if (error.code === "commander.helpDisplayed") return;
    throw new UserError(explain(error, command, words), { exitCode: EXIT.usage, cause: error });
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
    case "commander.excessArguments":
      return `Unexpected word ${
        quoted(unexpected(words))
      } for ${command.name()}: everything it takes is a --flag`;
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
  const near = nearest(flag.replace(/^--/, ""), names);
  const hint = near === null ? `see longreach ${command.name()} --help` : `did you mean --${near}?`;
  return `Unknown flag ${quoted(flag)} for ${command.name()}: ${hint}`;
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
