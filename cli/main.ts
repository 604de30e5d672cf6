/** The command line: `deno task <command> [flags]`, or `./longreach <command> [flags]`. */
import { formatTable } from "../text.ts";
import { errorCode, fileError } from "../checkpoint/files.ts";
import { UserError } from "../errors.ts";
import type { Job } from "../distributed/mpi.ts";
import { DeviceLostError, GpuMemoryError } from "../kernels/errors.ts";
import { describeRefusal } from "../kernels/refusal.ts";
import config from "../deno.json" with { type: "json" };
import { CommandError, EXIT, exitCodeOf } from "./exit.ts";
import type { AllCommands, BuiltCommand } from "./flags.ts";
import { formatJson } from "./format.ts";
import { type Io, terminalIo } from "./io.ts";
import { narrow, readsAnywhere } from "./permissions.ts";
import { endJob, ioOfRank, joinJobIfAny } from "./ranks.ts";
import { listenForSignals } from "./stop_signal.ts";
import { Trace } from "./trace.ts";
import { fileVerdicts, tellOnce } from "./verdicts.ts";
import { permittedEnv } from "./user_cache.ts";

interface CommandEntry {
  /** One line for the list of commands. */
  readonly summary: string;
  /** Loads the command's file only when it is asked for, so that help is quick. */
  readonly load: () => Promise<{ build(summary: string, io: Io, all: AllCommands): BuiltCommand }>;
}

/** Every command by name, in the order of the list. */
const COMMANDS: Readonly<Record<string, CommandEntry>> = {
  demo: {
    summary: "extend a tiny model from 256 to 1024 tokens, evaluate and merge it",
    load: () => import("./demo.ts"),
  },
  train: { summary: "pre-training or fine-tuning from a YAML file", load: () => import("./train.ts") },
  plan: {
    summary: "memory, arithmetic and time of a training run, without loading anything",
    load: () => import("./plan.ts"),
  },
  evaluate: {
    summary: "sliding-window perplexity, as LongLoRA measures it",
    load: () => import("./evaluate.ts"),
  },
  passkey: {
    summary: "whether a model finds a key in long texts",
    load: () => import("./passkey.ts"),
  },
  needle: {
    summary: "whether a model finds sentences hidden in long texts",
    load: () => import("./needle.ts"),
  },
  longbench: {
    summary: "LongBench's 21 tasks of long texts, asked and scored",
    load: () => import("./longbench.ts"),
  },
  topic: {
    summary: "whether a model names the first topic of long conversations",
    load: () => import("./topic.ts"),
  },
  infbench: {
    summary: "InfiniteBench's 12 tasks of very long texts, asked and scored",
    load: () => import("./infbench.ts"),
  },
  mmlu: {
    summary: "MMLU's questions with four answers, by the likeliest letter",
    load: () => import("./mmlu.ts"),
  },
  inference: {
    summary: "ask a model about a document, or let it go on from a text",
    load: () => import("./inference.ts"),
  },
  chat: { summary: "talk with a model, about files too", load: () => import("./chat.ts") },
  serve: {
    summary: "a model for programs, by OpenAI's API, and for people, on a page",
    load: () => import("./serve.ts"),
  },
  merge: { summary: "merge an adapter into its base model", load: () => import("./merge.ts") },
  tokenize: { summary: "text to a token file for evaluate", load: () => import("./tokenize.ts") },
  convert: {
    summary: "a model to GGUF, to 4 bits as bitsandbytes has them, or .bin to safetensors",
    load: () => import("./convert.ts"),
  },
  get_trainable_weights: {
    summary: "an adapter out of LongLoRA's merged DeepSpeed checkpoint",
    load: () => import("./get_trainable_weights.ts"),
  },
  pdf2txt: { summary: "papers and books from PDF to text", load: () => import("./pdf2txt.ts") },
  download: {
    summary: "a model or data set of the hub into the shared cache",
    load: () => import("./download.ts"),
  },
  upload: {
    summary: "an adapter or model to the hub, with a model card",
    load: () => import("./upload.ts"),
  },
  doctor: { summary: "what this machine offers: Deno, adapter, limits", load: () => import("./doctor.ts") },
  study: {
    summary: "the papers' comparisons on the demo model, as a report",
    load: () => import("./study.ts"),
  },
  completion: {
    summary: "a script by which bash, zsh or fish completes commands and flags",
    load: () => import("./completion.ts"),
  },
  make_demo: { summary: "make the demo's base model and corpus again", load: () => import("./make_demo.ts") },
};

/**
 * Runs one command line and returns the exit code: 0 done, 1 failed, 2 wrong usage, 3 too little memory, 128 and more
 * ended by a signal.
 *
 * @param words the command and its flags, without the program's name
 * @param prepare what a process of its own does before any library is loaded
 */
export async function runCli(words: readonly string[], io: Io, prepare = () => {}): Promise<number> {
  try {
    prepare();
    const [name = "--help", ...flags] = words;
    if (["--help", "-h", "help"].includes(name)) {
      io.out(listCommands());
      return EXIT.ok;
    }
    if (["--version", "-V", "version"].includes(name)) {
      io.out(`longreach ${config.version}, Deno ${Deno.version.deno}`);
      return EXIT.ok;
    }
    const { summary, load } = await findCommand(name);
    const [{ build }, { runCommand }] = await Promise.all([load(), import("./flags.ts")]);
    await runCommand(build(summary, io, () => allCommands(io)), flags);
    return EXIT.ok;
  } catch (error) {
    const [message, exitCode] = [explain(error), exitCodeOf(error)];
    await (io.failed ? io.failed(message) : io.err(message));
    const isTold = error instanceof CommandError && error.isTold;
    if (words.includes("--json") && !isTold) io.out(formatJson({ error: { message, exitCode } }));
    return exitCode;
  }
}

/** The command as it is named everywhere. */
function keyOf(name: string): string {
  return name.replaceAll("-", "_");
}

/** Every command, built: for what is made of all of them. */
export function allCommands(io: Io): ReturnType<AllCommands> {
  const all = () => allCommands(io);
  return Promise.all(
    Object.values(COMMANDS).map(async ({ summary, load }) => ({
      summary,
      command: (await load()).build(summary, io, all),
    })),
  );
}

async function findCommand(name: string): Promise<CommandEntry> {
  const key = keyOf(name);
  const entry = Object.hasOwn(COMMANDS, key) ? COMMANDS[key] : undefined;
  if (entry) return entry;
  const { nearest } = await import("../nearest.ts");
  const near = nearest(key, Object.keys(COMMANDS));
  const hint = near === null
    ? `the commands are ${Object.keys(COMMANDS).join(", ")}`
    : `did you mean ${near}?`;
  throw new UserError(`Unknown command ${JSON.stringify(name)}: ${hint}`, { kind: "usage" });
}

function listCommands(): string {
  const rows = Object.entries(COMMANDS).map(([name, { summary }]) => [name, summary]);
  return `longreach <command> [flags]; each has --help and --json\n\n${formatTable(rows, "", "  ")}`;
}

/** Describes an error in words; only what nobody foresaw comes with a stack. */
function explain(error: unknown): string {
  if (error instanceof UserError || error instanceof DeviceLostError || error instanceof GpuMemoryError) {
    return error.message;
  }
  if (error instanceof Deno.errors.NotCapable) {
    const remedy = 'Start it as "deno task" or "./longreach", which grant what each command needs';
    return `${error.message}. ${remedy}`;
  }
  if (errorCode(error) !== undefined) {
    const tried = /\(os error \d+\): (.*)$/s.exec((error as Error).message)?.[1];
    return (fileError(error, "Cannot go on", tried && `Tried ${tried}`) as Error).message;
  }
  const text = error instanceof Error
    ? `${error.name}: ${error.message}\n${error.stack ?? ""}`
    : String(error);
  return `This is a bug in Longreach; please report it with the lines below.\n${text}`;
}

if (import.meta.main) {
  const [name = "", ...flags] = Deno.args;
  let job: Job | undefined;
  let unjoined: unknown;
  try {
    job = await joinJobIfAny();
  } catch (error) {
    unjoined = error;
  }
  const terminal = job ? ioOfRank(terminalIo(), job.ranks) : terminalIo();
  const trace = permittedEnv("LONGREACH_TRACE") ? new Trace() : undefined;
  const tell = tellOnce((text) => terminal.err(text));
  const io: Io = {
    ...terminal,
    ...(trace && { trace }),
    tuning: async (info) => {
      const { readTuning } = await import("./tuning.ts");
      const { tuning, note } = await readTuning(info);
      if (note !== null) tell(note);
      return tuning;
    },
    verdicts: fileVerdicts({ onNote: tell }),
    onRefusal: (verdict) => tell(describeRefusal(verdict)),
  };
  const exitCode = await runCli(Deno.args, io, () => {
    if (unjoined !== undefined) throw unjoined;
    // Tasks run in the folder of deno.json; paths are meant from where the user stands.
    const from = Deno.env.get("INIT_CWD");
    if (from !== undefined && from !== "" && readsAnywhere(keyOf(name))) Deno.chdir(from);
    narrow(keyOf(name), flags);
    listenForSignals(io);
  });
  trace?.show(io, "Kernels");
  if (job) await endJob(job, exitCode);
  Deno.exit(exitCode);
}
