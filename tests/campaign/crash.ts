/**
 * Kills the real `train` command at random moments, half of them inside a save, and starts it again with the same
 * command: nothing may be lost or corrupt, and the end must be byte for byte that of a run that nobody killed (of
 * metrics.jsonl all but the seconds, tokens per second and bytes that it measured). Of a job of several ranks one is killed,
 * and MPI has to end the others.
 */
import { findLatest, verify } from "../../checkpoint/store.ts";
import { GOLDEN, namesIn } from "../support/files.ts";
import { comparedBytes } from "../support/metrics.ts";
import { findMpis, startJob } from "../support/mpi.ts";
import { uniform } from "../support/random.ts";
import type { CampaignOptions, CampaignRow } from "./campaign.ts";

const ROOT = new URL("../..", import.meta.url).pathname;

/** A kind of run, and where its kills are aimed. */
interface Kind {
  readonly part: string;
  /** Kills of the whole campaign. */
  readonly kills: number;
  readonly settings: Readonly<Record<string, string | number>>;
  /** Name of the staged folder in which to kill; anywhere unless given. */
  readonly aim?: RegExp;
  /** Ranks of the job, one of which is killed; without it the command is one process. */
  readonly ranks?: number;
}

const LORA = {
  lora_rank: 6,
  lora_dropout: 0.1,
  trainable_params: "embed,norm",
  gradient_accumulation_steps: 3,
  lr_scheduler_type: "cosine",
  warmup_steps: 2,
  learning_rate: 0.002,
};
const FULL = {
  low_rank_training: "false",
  optim: "paged_adamw_8bit",
  learning_rate: 0.06,
  eval_file: `${GOLDEN}/train.jsonl`,
  eval_strategy: "steps",
  eval_steps: 2,
  load_best_model_at_end: "true",
  save_total_limit: 2,
};

export const KINDS: readonly Kind[] = [
  { part: "lora", kills: 60, settings: LORA },
  { part: "lora-insave", kills: 70, settings: LORA, aim: /^checkpoint-\d+\.tmp-/ },
  { part: "full", kills: 30, settings: FULL },
  { part: "full-insave", kills: 25, settings: FULL, aim: /^checkpoint-\d+\.tmp-/ },
  { part: "final", kills: 15, settings: { ...LORA, save_steps: 4 }, aim: /^final\.tmp-/ },
  { part: "ranks", kills: 20, settings: LORA, ranks: 2 },
];

/** Kills of one run before it may come to its end. */
const KILLS_OF_RUN = 5;
/** Files that tell the time. */
const OF_THE_TIME = /^(train\.log|report\.html|runs|\.longreach\.lock|checkpoint-.*)$/;

/** How a start of the command ended. */
interface Ended {
  readonly wasKilled: boolean;
  readonly code: number;
  readonly stderr: string;
  readonly milliseconds: number;
}

/** The command's words, with the permissions of its task but for the network. */
function commandWords(settings: Kind["settings"]): string[] {
  const { tasks } = JSON.parse(Deno.readTextFileSync(`${ROOT}deno.json`));
  const env = / (--allow-env=\S*INIT_CWD\S*)/.exec(tasks.train.command)![1]!;
  const flags = Object.entries({
    model_name_or_path: `${GOLDEN}/mha`,
    train_file: `${GOLDEN}/train.jsonl`,
    sft: "false",
    model_max_length: 128,
    max_steps: 6,
    save_steps: 1,
    output_dir: "out",
    dataset_cache_dir: "false",
    ...settings,
  });
  const deno = ["run", "--no-prompt", "--allow-read", "--allow-write", env, `--config=${ROOT}deno.json`];
  return [...deno, `${ROOT}cli/main.ts`, "train", ...flags.map(([key, value]) => `--${key}=${value}`)];
}

/** A process, or a job of several, that can be killed. */
interface Running {
  readonly child: Deno.ChildProcess;
  kill(): void;
}

function startAlone(folder: string, { settings }: Kind): Running {
  const child = new Deno.Command("deno", {
    args: commandWords(settings),
    cwd: folder,
    env: { INIT_CWD: folder, NO_COLOR: "1" },
    stdout: "null",
    stderr: "piped",
  }).spawn();
  return { child, kill: () => child.kill("SIGKILL") };
}

/** Runs the words behind it, and kills them once there is a file of the rank's name. */
const RANK = `"$@" & pid=$!; rank=\${OMPI_COMM_WORLD_RANK:-$PMI_RANK}
(while kill -0 $pid 2>/dev/null; do [ -e kill-$rank ] && kill -9 $pid; sleep 0.01; done) & wait $pid`;
/** Milliseconds in which MPI must have ended what is left of a job. */
const ENDS_WITHIN_MS = 60_000;

/** Starts the command as several ranks. Whichever is killed, the others have to end too: else the exit code is 124. */
function startRanks(folder: string, { settings, ranks }: Kind, victim: number): Running {
  const [mpi] = findMpis();
  if (!mpi) {
    throw new Error("This part needs mpirun (Debian and Ubuntu: apt-get install openmpi-bin libopenmpi-dev)");
  }
  const words = ["deno", ...commandWords(settings)].map((word) => `'${word}'`);
  words.splice(2, 0, "--allow-ffi");
  const child = startJob(`${mpi.mpirun(ranks!)} sh -c '${RANK}' rank ${words.join(" ")}`, {
    cwd: folder,
    env: { INIT_CWD: folder, LONGREACH_MPI: mpi.library },
  });
  return {
    child,
    kill() {
      Deno.writeTextFileSync(`${folder}/kill-${victim}`, "");
      const timer = setTimeout(() => child.kill("SIGKILL"), ENDS_WITHIN_MS);
      child.status.then(() => {
        clearTimeout(timer);
        Deno.removeSync(`${folder}/kill-${victim}`);
      });
    },
  };
}

/** Starts the command in a folder; `killAt` says when it is to die, and may look at what the folder holds. */
async function start(
  folder: string,
  kind: Kind,
  killAt?: (elapsedMs: number) => boolean,
  victim = 0,
): Promise<Ended> {
  const began = performance.now();
  const { child, kill } = kind.ranks === undefined
    ? startAlone(folder, kind)
    : startRanks(folder, kind, victim);
  let isRunning = true;
  let wasKilled = false;
  const watch = (async () => {
    while (isRunning && killAt) {
      if (killAt(performance.now() - began)) {
        kill();
        wasKilled = true;
        return;
      }
      await new Promise((done) => setTimeout(done, 1));
    }
  })();
  const [stderr, { code }] = await Promise.all([new Response(child.stderr).text(), child.status]);
  isRunning = false;
  await watch.catch(() => {});
  return { wasKilled: wasKilled && code !== 0, code, stderr, milliseconds: performance.now() - began };
}

/** Dies a moment after the n-th folder of a name appears. */
function insideSave(out: string, aim: RegExp, random: () => number): (elapsedMs: number) => boolean {
  // A start has several checkpoints to save, and one set of final files.
  let left = aim.test("final.tmp-") ? 1 : 1 + Math.floor(3 * random());
  let seen = "";
  let at = Infinity;
  return (elapsed) => {
    if (elapsed >= at) return true;
    let name: string | undefined;
    try {
      name = namesIn(out).find((name) => aim.test(name));
    } catch {
      return false;
    }
    if (name !== undefined && name !== seen) {
      seen = name;
      if (--left <= 0 && at === Infinity) at = elapsed + 5 * random();
    }
    return false;
  };
}

/** The bytes of a run's final files, by name, but for what `metrics.jsonl` measured. */
async function finalFiles(out: string): Promise<Map<string, string>> {
  const files = new Map<string, string>();
  for (const name of namesIn(out)) {
    if (!OF_THE_TIME.test(name)) files.set(name, (await comparedBytes(out, name)).toBase64());
  }
  return files;
}

/** What a command said at last; of ranks what one says itself, before MPI does. */
function whyOf(stderr: string): string {
  return /^Rank \d+: .*$/m.exec(stderr)?.[0] ?? stderr.slice(-300);
}

/** Names in a folder; none where a start was killed before it made it. */
async function namesThere(folder: string): Promise<string[]> {
  return await Deno.stat(folder).then(() => namesIn(folder), () => []);
}

const isLeftover = (name: string) => /\.(tmp|trash)-/.test(name);

/** What is wrong in a folder after a kill, given what the command had said by then. */
async function damageAfter(out: string, stderr: string): Promise<string[]> {
  const faults: string[] = [];
  const said = [...stderr.matchAll(/saved out\/checkpoint-(\d+)/g)].map((match) => Number(match[1]));
  const promised = Math.max(0, ...said);
  const names = await namesThere(out);
  for (const name of names.filter((name) => /^checkpoint-\d+$/.test(name))) {
    await verify(`${out}/${name}`).catch((error) => faults.push(`corrupt: ${error.message}`));
  }
  const { latest } = await findLatest(out);
  if ((latest?.step ?? 0) < promised) {
    faults.push(`lost: step ${promised} was saved, ${latest?.step} is there`);
  }
  return faults;
}

async function* runKind(kind: Kind, kills: number, random: () => number, say: CampaignOptions["say"]) {
  const folder = await Deno.makeTempDir({ prefix: "longreach-crash-" });
  const counts = { "inside a save": 0, runs: 0, "leftovers removed": 0 };
  const faults: string[] = [];
  let killed = 0;
  try {
    await Deno.mkdir(`${folder}/whole`);
    const whole = await start(`${folder}/whole`, kind);
    if (whole.code !== 0) throw new Error(`The run that nobody kills fails: ${whole.stderr}`);
    const expected = await finalFiles(`${folder}/whole/out`);
    // The first run may have compiled kernels, or met with a busy machine.
    let duration = whole.milliseconds;
    while (killed < kills) {
      const trial = `${folder}/run-${counts.runs++}`;
      const out = `${trial}/out`;
      await Deno.mkdir(trial);
      for (let tries = 0;; tries++) {
        const at = 0.9 * duration * random();
        const killAt = kind.aim ? insideSave(out, kind.aim, random) : (elapsed: number) => elapsed >= at;
        const mayKill = tries < KILLS_OF_RUN && killed < kills;
        const before = (await namesThere(out)).filter(isLeftover);
        const victim = kind.ranks === undefined ? 0 : Math.floor(kind.ranks * random());
        const ended = await start(trial, kind, mayKill ? killAt : undefined, victim);
        const where = `${kind.part}, run ${counts.runs}, start ${tries + 1}`;
        const hasRemoved = ended.stderr.includes("Removed what interrupted work left");
        if (hasRemoved) counts["leftovers removed"]++;
        const names = await namesThere(out);
        const still = names.filter((name) => before.includes(name));
        // A start that is killed at once has removed nothing yet.
        if (still.length > 0 && (hasRemoved || !ended.wasKilled)) {
          faults.push(`${where}: leftovers stay: ${still}`);
        }
        if (!ended.wasKilled) {
          duration = Math.min(duration, ended.milliseconds);
          if (ended.code !== 0) faults.push(`${where}: does not go on: ${whyOf(ended.stderr)}`);
          break;
        }
        killed++;
        if (ended.milliseconds > at + ENDS_WITHIN_MS) {
          faults.push(`${where}: hangs: ${ended.stderr.slice(-300)}`);
        }
        if (names.some((name) => isLeftover(name) && !before.includes(name))) counts["inside a save"]++;
        faults.push(...(await damageAfter(out, ended.stderr)).map((fault) => `${where}: ${fault}`));
      }
      const actual = await finalFiles(out);
      for (const name of new Set([...expected.keys(), ...actual.keys()])) {
        if (actual.get(name) !== expected.get(name)) {
          faults.push(`${kind.part}, run ${counts.runs}: ${name} differs`);
        }
      }
      say(
        `  ${kind.part}: ${killed} of ${kills} kills, ${
          counts["inside a save"]
        } inside a save, ${faults.length} faults`,
      );
      if (faults.length === 0) await Deno.remove(trial, { recursive: true });
    }
  } finally {
    if (faults.length === 0) await Deno.remove(folder, { recursive: true });
  }
  yield { part: kind.part, tried: killed, counts, faults } satisfies CampaignRow;
}

/** Runs the campaign; `count` is the kills of each part. */
export async function* run({ count, seed, only, say }: CampaignOptions): AsyncGenerator<CampaignRow> {
  for (const kind of KINDS.filter(({ part }) => only === undefined || part === only)) {
    yield* runKind(kind, count ?? kind.kills, uniform(seed), say);
  }
}
