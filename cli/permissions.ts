/**
 * Rights of each command. Its task in `deno.json` grants what any call of it may need (a test compares the flags
 * with the table here), and what this call does not need is given back before any library is loaded. So nothing that is
 * imported here may import one.
 */
import { parseHubReference } from "../hub/reference.ts";

/** The rights that a command needs besides reading: folders of models and data can be anywhere. */
interface Needs {
  /** Flags, or settings of a training run, that may name something on the hub; `always`: it is asked in any case. */
  readonly hub?: readonly string[] | "always";
  /** Scope of writing; `until fetched`: nowhere but in the hub's cache, and not where nothing is fetched. */
  readonly write: "anywhere" | "until fetched" | "nowhere";
  /** Flags that name a file to write: with one of them it may write anywhere, whatever `write` says. */
  readonly writesTo?: readonly string[];
  /** Facts of the machine that it asks for, as `--allow-sys` names them. */
  readonly sys?: string;
  /** Hosts that it may listen on; it gives the network back itself, once it listens. */
  readonly listen?: string;
  /** `own`: only the tuner's results and the kernels that they are for. */
  readonly read: "anywhere" | "own";
  /** Whether MPI may start it as several ranks: it then calls the one library that `./longreach` names. */
  readonly ranks?: boolean;
}

const LOCAL: Needs = { write: "anywhere", read: "anywhere" };

/** Every command by name. */
export const NEEDS = {
  demo: LOCAL,
  train: {
    ...LOCAL,
    sys: "statfs",
    ranks: true,
    hub: [
      "model_name_or_path",
      "adapter_name_or_path",
      "lora",
      "train_file",
      "data_path",
      "train_data",
      "eval_file",
    ],
  },
  plan: { hub: ["model_name_or_path"], write: "until fetched", read: "anywhere" },
  evaluate: {
    hub: ["base_model", "peft_model", "data_path"],
    write: "until fetched",
    writesTo: ["plot_path"],
    read: "anywhere",
    ranks: true,
  },
  passkey: { ...LOCAL, hub: ["base_model", "peft_model"], ranks: true },
  needle: { ...LOCAL, hub: ["base_model", "peft_model"], ranks: true },
  longbench: { ...LOCAL, hub: ["base_model", "peft_model"], ranks: true },
  topic: { ...LOCAL, hub: ["base_model", "peft_model"] },
  infbench: { ...LOCAL, hub: ["base_model", "peft_model"] },
  mmlu: { ...LOCAL, hub: ["base_model", "peft_model"] },
  inference: { hub: ["base_model", "peft_model"], write: "until fetched", read: "anywhere" },
  chat: { ...LOCAL, hub: ["base_model", "peft_model"] },
  serve: {
    hub: ["base_model", "peft_model"],
    write: "until fetched",
    read: "anywhere",
    listen: "127.0.0.1,localhost,[::1],0.0.0.0,[::]",
  },
  merge: { ...LOCAL, sys: "statfs", hub: ["base_model", "peft_model"] },
  tokenize: { ...LOCAL, hub: ["model_name_or_path", "data_path"] },
  convert: { ...LOCAL, hub: ["model"] },
  get_trainable_weights: LOCAL,
  pdf2txt: LOCAL,
  download: { hub: "always", write: "until fetched", read: "anywhere" },
  upload: { hub: "always", write: "until fetched", read: "anywhere" },
  doctor: { write: "nowhere", read: "own", sys: "systemMemoryInfo,statfs" },
  completion: { write: "nowhere", read: "own" },
  study: LOCAL,
  make_demo: LOCAL,
} as const satisfies Readonly<Record<string, Needs>>;

/** Commands that take a file of settings, and the flags for it; it can also be the one word that is no flag. */
const WITH_SETTINGS: readonly string[] = ["train", "plan"];
const SETTINGS_FLAGS: readonly string[] = ["c", "train_args_file", "config"];
/** No settings are longer. */
const MOST_SETTINGS = 2 ** 20;

/** The needs of the running command; undefined where the process is not a command's own, as in tests. */
let held: Needs | undefined;
/** Set for a command that listens and has nothing to fetch. */
let isAllHere = false;

/**
 * Gives back what this call does not need.
 * @param name the command, in snake_case
 * @param words its flags
 */
export function narrow(name: string, words: readonly string[]): void {
  const { writesTo = [], ...needs } = needsOf(name);
  held = flagsOf(words).some((flag) => writesTo.includes(flag.name))
    ? { ...needs, write: "anywhere" }
    : needs;
  if (held.write === "nowhere") Deno.permissions.revokeSync({ name: "write" });
  if (needsHub(name, words)) return;
  if (held.listen === undefined) narrowFetched();
  else isAllHere = true;
}

/** Whether a command takes paths of the user's. */
export function readsAnywhere(command: string): boolean {
  return needsOf(command).read === "anywhere";
}

/** Looks up a command's needs; an unknown command has none. */
function needsOf(command: string): Needs {
  return Object.hasOwn(NEEDS, command)
    ? NEEDS[command as keyof typeof NEEDS]
    : { write: "nowhere", read: "own" };
}

/** Gives back what listening took: a port that is listened on stays so. What is still to be fetched keeps the network. */
export function narrowListening(): void {
  if (isAllHere) narrowFetched();
}

/** Gives back what fetching from the hub took: everything is here that this call reads. */
export function narrowFetched(): void {
  if (held === undefined) return;
  Deno.permissions.revokeSync({ name: "net" });
  if (held.write === "until fetched") Deno.permissions.revokeSync({ name: "write" });
}

/** Whether a call names something that only the hub may have. In doubt it does: the network is then kept for longer. */
export function needsHub(command: string, words: readonly string[]): boolean {
  const { hub } = needsOf(command);
  if (hub === undefined || hub === "always") return hub === "always";
  const flags = flagsOf(words);
  if (flags.some(({ name, value }) => hub.includes(name) && namesIn(value).some(isOnHub))) return true;
  if (!WITH_SETTINGS.includes(command)) return false;
  const files = [
    ...words.filter((word, i) =>
      !isFlag(word) && (i === 0 || /=/.test(words[i - 1]!) || !isFlag(words[i - 1]!))
    ),
    ...flags.filter(({ name }) => SETTINGS_FLAGS.includes(name)).map(({ value }) => value),
  ];
  return files.some((file) => fileNames(file, hub));
}

function isFlag(word: string): boolean {
  return word.startsWith("-");
}

/** Flags as `cli/flags.ts` takes them, with the word behind each as its value. */
function flagsOf(words: readonly string[]): { readonly name: string; readonly value: string }[] {
  return words.flatMap((word, i) => {
    const [, name, value] = /^--?([^=]+)(?:=(.*))?$/s.exec(word) ?? [];
    return name === undefined
      ? []
      : [{ name: name.replaceAll("-", "_"), value: value ?? words[i + 1] ?? "" }];
  });
}

/** Whether a settings file names something on the hub under one of the keys; also where that cannot be told. */
function fileNames(file: string, keys: readonly string[]): boolean {
  let text: string;
  try {
    const { isFile, size } = Deno.statSync(file);
    // A pipe can be read once.
    if (!isFile || size > MOST_SETTINGS) return true;
    text = Deno.readTextFileSync(file);
  } catch {
    return false;
  }
  // Flow maps, explicit keys and escapes are possible and rare: what they say is told by who reads them.
  if (/^\s*[{?]|\\/m.test(text)) return true;
  let isNamed = false;
  return text.split("\n").some((line) => {
    const [, key] = /^\s*["']?(\w+)["']?\s*:/.exec(line) ?? [];
    if (key !== undefined) isNamed = keys.includes(key);
    return isNamed && namesIn(line.replace(/(^|\s)#.*$/, "")).some(isOnHub);
  });
}

/** Words of a text that may be names. Data may have a number of rows behind it, in brackets. */
function namesIn(text: string): string[] {
  return text.split(/[\s"',[\]]+/);
}

function isOnHub(place: string): boolean {
  if (parseHubReference(place) === undefined) return false;
  try {
    Deno.lstatSync(place);
    return false;
  } catch {
    return true;
  }
}

/** Variables that any command reads: ours, and those of libraries that would fail without. */
const VARIABLES =
  "_,INIT_CWD,HOME,XDG_CACHE_HOME,LOCALAPPDATA,LOG_TOKENS,LOG_STREAM,NO_COLOR,FORCE_COLOR,CLICOLOR_FORCE,LONGREACH_*";
const HUB_VARIABLES = "HF_ENDPOINT,HF_HOME,HF_HUB_CACHE,HF_HUB_OFFLINE,HF_TOKEN,HF_TOKEN_PATH,USERPROFILE";

/** The hub's hosts: itself, where it keeps large files, and what the environment names. */
const HUB_HOSTS = "huggingface.co,*.huggingface.co,hf.co,*.hf.co";
/** Hosts to which large files are uploaded. */
const STORAGE_HOSTS = "*.amazonaws.com";
/** The flag of allowed hosts. Where a system lacks `[`, the script for further hosts always runs. */
const NET = (hosts: string) =>
  `"--allow-net=${hosts}$([ -z "$HF_ENDPOINT$LONGREACH_HUB_HOSTS" ] 2>/dev/null || ` +
  'deno run --quiet --no-prompt --allow-env=HF_ENDPOINT,LONGREACH_HUB_HOSTS cli/hub_hosts.ts)"';
/** The flag of the library of MPI, which `./longreach` sets where MPI started it. */
const FFI = "$LONGREACH_MPI_GRANT";
/** The flag of readable folders. Where a variable is not set, this grants a folder of the root that nobody has. */
const READ_OWN = '"--allow-read=kernels,$HOME/.cache/longreach,$HOME/Library/Caches/longreach,' +
  '$XDG_CACHE_HOME/longreach,$LOCALAPPDATA/longreach"';

/** The flags of `deno run` that a command needs, as its task in `deno.json` has them. */
export function grantsOf(name: keyof typeof NEEDS): string[] {
  const { hub, write, read, sys, listen, ranks = false }: Needs = NEEDS[name];
  const hosts = [listen, HUB_HOSTS, ...name === "upload" ? [STORAGE_HOSTS] : []].filter((each) =>
    each !== undefined
  );
  return [
    read === "own" ? READ_OWN : "--allow-read",
    // The cache's links are made with the right to write anywhere, or not at all.
    ...(write === "nowhere" ? [] : ["--allow-write"]),
    ...(sys === undefined ? [] : [`--allow-sys=${sys}`]),
    ...(hub === undefined ? [] : [NET(hosts.join(","))]),
    ...(ranks ? [FFI] : []),
    `--allow-env=${hub === undefined ? VARIABLES : `${VARIABLES},${HUB_VARIABLES}`}`,
  ];
}

/** Dawn's task runs every command, and narrows as they do. */
export function dawnGrants(): string[] {
  return [
    "--allow-read",
    "--allow-write",
    NET([NEEDS.serve.listen, HUB_HOSTS, STORAGE_HOSTS].join(",")),
    "--allow-ffi",
    grantsOf("upload").at(-1)!,
  ];
}
