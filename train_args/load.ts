/** Settings of a training run: YAML and flags in, checked and frozen {@linkcode TrainArgs} out. */
import { nearest } from "../nearest.ts";
import { printable, quote } from "../text.ts";
import { describeProblems, type Place, type Problem, problemOf } from "../data/problems.ts";
import { fileName, readYamlFile, type YamlEntry, type YamlFile } from "../data/yaml.ts";
import { UserError } from "../errors.ts";
import { zeroStageOf } from "./deepspeed.ts";
import { FOREIGN_KEYS, OTHER_NAMES, SAME_OPTIONS } from "./foreign_keys.ts";
import { hintFor, isAsHere } from "./other_tools.ts";
import { applyRules } from "./rules.ts";
import {
  isOption,
  OPTION_NAMES,
  type OptionName,
  OPTIONS,
  type OptionValues,
  type TrainArgs,
  type TrainOption,
} from "./schema.ts";
import { isNothing } from "./values.ts";

export type { TrainArgs } from "./schema.ts";

/**
 * Settings by option name: each as YAML has it, or as text. Those that are undefined are not given; `null` is the default
 * where that is none.
 */
export type TrainSettings = {
  readonly [K in OptionName]?: (K extends "max_memory" ? null : OptionValues[K]) | string | undefined;
};

/** Checked settings, and what the user should be told once about them. */
export interface LoadedTrainArgs {
  /** For `runTraining` and `planTraining`. */
  readonly args: TrainArgs;
  /** One line each. */
  readonly notes: readonly string[];
  /** Place of a path in the settings: `my.yaml:3:13` or `--train_file`; undefined where it is not in them. */
  readonly whereIs: (path: string) => string | undefined;
}

/** A value somebody wrote, with the place to point at when it is wrong. */
interface Given {
  readonly value: unknown;
  readonly place: Place;
}

/**
 * Reads the settings of a training run: `file`, with `overrides` on top, checked against the schema and the rules between
 * options.
 *
 * @param file a YAML file, or `null` when the overrides say everything
 * @param overrides values by option name; names in kebab-case and those of other tools are known, too
 * @param fallbacks gives values in place of defaults; `isGiven` tells whether file or overrides have one of some options
 * @throws {UserError} of kind `usage` with every problem found, each with file, line and column, or its flag
 */
export async function loadTrainArgs(
  file: string | null,
  overrides: TrainSettings = {},
  fallbacks: (isGiven: (...names: readonly OptionName[]) => boolean) => TrainSettings = () => ({}),
): Promise<LoadedTrainArgs> {
  const what = file === null ? "the flags" : `"${file}"`;
  const yaml = file === null ? NO_FILE : await readSettingsFile(file);
  if (!yaml.readable) throw problemsError(what, yaml.problems);
  const problems: Problem[] = [...yaml.problems];
  const reading = new Reading(problems);
  yaml.entries.forEach((entry) => reading.fromFile(entry));
  const addFlags = (settings: TrainSettings) => {
    for (const [name, value] of Object.entries(settings)) {
      if (value !== undefined) reading.fromFlag(name, value);
    }
  };
  addFlags(overrides);
  addFlags(fallbacks((...names) => names.some((name) => reading.given.has(name))));
  await reading.readDeepspeed();

  const values = reading.values(file);
  const { args, broken, notes } = applyRules(values, new Set(reading.given.keys()));
  for (const { options, message } of broken) {
    if (options.some((option) => reading.wrong.has(option))) continue;
    const [option] = options;
    problems.push(
      problemOf(option, reading.given.get(option)?.place ?? placeOfMissing(option, file), message),
    );
  }
  if (problems.length > 0) throw problemsError(what, problems);
  return {
    args: deepFreeze(args),
    notes: [...reading.notes(), ...notes],
    whereIs: (path) => reading.whereIs(path),
  };
}

async function readSettingsFile(path: string): Promise<YamlFile> {
  try {
    return await readYamlFile(path);
  } catch (cause) {
    throw cause instanceof UserError ? new UserError(cause.message, { kind: "usage", cause }) : cause;
  }
}

function problemsError(what: string, problems: readonly Problem[]): UserError {
  return new UserError(describeProblems(what, problems), { kind: "usage" });
}

const NO_FILE: YamlFile = { readable: true, entries: [], problems: [] };

/** Place to point at when an option is missing. */
function placeOfMissing(option: OptionName, file: string | null): Place {
  return { label: file === null ? `--${option}` : fileName(file) };
}

/** Gathers what was given, from the file first and the flags after it. */
class Reading {
  readonly given = new Map<OptionName, Given>();
  /** Options whose value could not be read. */
  readonly wrong = new Set<OptionName>();
  /** Keys without effect -> why. */
  readonly #foreign = new Map<string, string>();
  #deepspeed: Given | undefined;
  readonly #replaced: string[] = [];
  readonly #renamed = new Map<string, OptionName>();

  constructor(readonly problems: Problem[]) {}

  fromFile({ key: written, value, keyPlace, valuePlace }: YamlEntry): void {
    const key = this.#named(written);
    if (isOption(key) && key !== written && this.given.has(key)) {
      this.problems.push({
        place: keyPlace,
        message: `${written}: ${key} means the same and is set too: keep one`,
      });
    } else if (isOption(key)) this.given.set(key, { value, place: valuePlace });
    else if (!this.#isForeign(key, value)) {
      this.problems.push({ place: keyPlace, message: unknownKey(key, "") });
    } else if (key === "deepspeed") this.#deepspeed = { value, place: valuePlace };
  }

  fromFlag(name: string, value: unknown): void {
    const key = this.#named(name.replaceAll("-", "_"));
    const place = { label: `--${printable(key)}` };
    if (isOption(key)) {
      const before = this.given.get(key);
      if (before) {
        this.#replaced.push(`${key}: ${quote(value)} from the flag replaces ${quote(before.value)}`);
      }
      this.given.set(key, { value, place });
    } else if (!this.#isForeign(key, value)) {
      this.problems.push({ place, message: unknownKey(key, "--") });
    } else if (key === "deepspeed") this.#deepspeed = { value, place };
  }

  /** Whether a key of another tool has no effect here, which is then noted. */
  #isForeign(key: string, value: unknown): boolean {
    const isKnown = OTHER_NAMES.has(key) || hintFor(key) !== undefined;
    const why = FOREIGN_KEYS.get(key) ??
      (isAsHere(key, value) ? "it is so here" : isKnown && isNothing(value) ? "not set" : undefined);
    if (why !== undefined) this.#foreign.set(key, why);
    return why !== undefined;
  }

  /** Takes the stage of ZeRO from DeepSpeed's settings, where they are there and nothing else says it. */
  async readDeepspeed(): Promise<void> {
    if (this.#deepspeed === undefined || this.given.has("zero_stage")) return;
    const { value, place } = this.#deepspeed;
    const stage = await zeroStageOf(value);
    if (stage === undefined) return;
    this.#foreign.delete("deepspeed");
    this.#renamed.set(`stage ${printable(String(stage))} of deepspeed`, "zero_stage");
    this.given.set("zero_stage", { value: stage, place });
  }

  /** The option that another tool's name stands for, or the name itself. */
  #named(name: string): string {
    const option = SAME_OPTIONS.get(name);
    if (option) this.#renamed.set(name, option);
    return option ?? name;
  }

  /** Every option checked alone; problems go to the list, and what is wrong or not given gets its default. */
  values(file: string | null): OptionValues {
    const values: Record<string, unknown> = {};
    for (const name of OPTION_NAMES) {
      const option: TrainOption = OPTIONS[name];
      values[name] = option.default;
      const given = this.given.get(name);
      if (given !== undefined && given.value === undefined) {
        this.wrong.add(name);
      } else if (!given || (isNothing(given.value) && option.default === null)) {
        this.given.delete(name);
        if (option.required) {
          this.problems.push(problemOf(name, placeOfMissing(name, file), `is required (${option.doc})`));
        }
      } else {
        const result = option.kind.type.safeParse(given.value);
        if (result.success) values[name] = result.data;
        else this.#refuse(name, given.place, wrongValue(option, given.value));
      }
    }
    return values as unknown as OptionValues;
  }

  #refuse(name: OptionName, place: Place, message: string): void {
    this.wrong.add(name);
    this.problems.push(problemOf(name, place, message));
  }

  /** The place of the first option that holds a path, alone or among others. */
  whereIs(path: string): string | undefined {
    const holds = ({ value }: Given) => [value].flat().some((one) => String(one).startsWith(path));
    return [...this.given.values()].find(holds)?.place.label;
  }

  notes(): string[] {
    const byReason = Map.groupBy(this.#foreign.keys(), (key) => this.#foreign.get(key));
    return [
      ...[...this.#renamed].map(([name, option]) => `${name} is read as ${option}`),
      ...this.#replaced,
      ...[...byReason].map(([why, keys]) => `no effect here: ${keys.join(", ")} (${why})`),
    ];
  }
}

function wrongValue(option: TrainOption, value: unknown): string {
  return `must be ${option.kind.wanted}, got ${quote(value)}`;
}

function unknownKey(key: string, dashes: string): string {
  const hint = hintFor(key);
  if (hint !== undefined) return `${dashes === "" ? `${key}: ` : ""}not an option; ${hint}`;
  const meant = OTHER_NAMES.get(key) ?? nearest(key, OPTION_NAMES) ?? nearest(key, [...FOREIGN_KEYS.keys()]);
  const shown = dashes === "" ? `${printable(key)}: ` : "";
  if (meant !== null) return `${shown}not an option; did you mean ${dashes}${meant}?`;
  return `${shown}not an option; all options are in docs/options.md and in train --help`;
}

function deepFreeze<T extends object>(value: T): T {
  for (const child of Object.values(value)) {
    if (typeof child === "object" && child !== null) deepFreeze(child);
  }
  return Object.freeze(value);
}
