/** `completion`: a script by which a shell completes commands, flags and their values. */
import { oneOf } from "../train_args/values.ts";
import { type AllCommands, type BuiltCommand, newCommand, requiredFlag } from "./flags.ts";
import type { Io } from "./io.ts";

const SHELLS = ["bash", "zsh", "fish"] as const;

/** A command as a shell needs to know it. */
export interface CompletedCommand {
  readonly name: string;
  readonly summary: string;
  readonly flags: readonly {
    readonly name: string;
    readonly doc: string;
    readonly choices: readonly string[];
  }[];
}

/** The command. */
export function build(summary: string, io: Io, all: AllCommands): BuiltCommand {
  return newCommand("completion", summary, io, {
    examples: [
      "completion --shell bash >> ~/.bashrc",
      "completion --shell fish > ~/.config/fish/completions/longreach.fish",
    ],
    usesGpu: false,
  })
    .addOption(requiredFlag("shell", "the shell that reads the script", oneOf(SHELLS)))
    .action(async ({ shell }) => {
      io.out(completionScript(shell, (await all()).map(describeCommand)));
    });
}

function describeCommand({ summary, command }: { summary: string; command: BuiltCommand }): CompletedCommand {
  const flags = command.options.filter(({ hidden, long }) => !hidden && long).map((option) => ({
    name: option.long!,
    doc: option.description,
    choices: option.argChoices ?? [],
  }));
  return {
    name: command.name(),
    summary,
    flags: [...flags, { name: "--help", doc: "show help", choices: [] }],
  };
}

/** The script for a shell. */
export function completionScript(
  shell: (typeof SHELLS)[number],
  commands: readonly CompletedCommand[],
): string {
  if (shell === "fish") return fishScript(commands);
  const setUp = shell === "zsh" ? "autoload -U +X bashcompinit && bashcompinit\n" : "";
  return setUp + bashScript(commands);
}

function bashScript(commands: readonly CompletedCommand[]): string {
  const cases = commands.map(({ name, flags }) =>
    `    ${name}) words="${flags.map((flag) => flag.name).join(" ")}" ;;`
  );
  const values = new Map(
    commands.flatMap(({ name, flags }) =>
      flags.filter(({ choices }) => choices.length > 0).map((flag) =>
        [`${name}:${flag.name}`, flag.choices.join(" ")] as const
      )
    ),
  );
  return [
    "_longreach() {",
    '  local word="${COMP_WORDS[COMP_CWORD]}" words=""',
    `  if [ "$COMP_CWORD" = 1 ]; then words="${commands.map(({ name }) => name).join(" ")}"; fi`,
    '  case "${COMP_WORDS[1]}" in',
    ...cases,
    "  esac",
    '  case "${COMP_WORDS[1]}:${COMP_WORDS[COMP_CWORD-1]}" in',
    ...[...values].map(([flag, choices]) => `    ${flag}) words="${choices}" ;;`),
    "  esac",
    '  COMPREPLY=($(compgen -W "$words" -- "$word"))',
    "}",
    "complete -o default -F _longreach longreach ./longreach",
  ].join("\n");
}

function fishScript(commands: readonly CompletedCommand[]): string {
  const quote = (text: string) => `'${text.replaceAll("\\", "\\\\").replaceAll("'", "\\'")}'`;
  return commands.flatMap(({ name, summary, flags }) => [
    `complete -c longreach -n __fish_use_subcommand -f -a ${name} -d ${quote(summary)}`,
    ...flags.map((flag) => {
      const values = flag.choices.length > 0 ? ` -x -a ${quote(flag.choices.join(" "))}` : "";
      return `complete -c longreach -n '__fish_seen_subcommand_from ${name}' -l ${
        flag.name.slice(2)
      }${values} -d ${quote(flag.doc)}`;
    }),
  ]).join("\n");
}
