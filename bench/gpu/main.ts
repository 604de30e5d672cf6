/** Everything about this machine's GPU in one command: `deno task gpu`; `--help` tells the flags. */
import { type Io, terminalIo } from "../../cli/io.ts";
import { EXIT, exitCodeOf } from "../../cli/exit.ts";
import { UserError } from "../../errors.ts";
import type { WebGpu } from "../../kernels/device.ts";
import { parseArgs } from "../deps.ts";
import { git } from "../result.ts";
import { type Figures, figuresOfAnswer, figuresOfBench, figuresOfFit } from "./figures.ts";
import { judge } from "./goals.ts";
import { type Part, PARTS, SECONDS, TESTS, type Topic, TOPICS, USUAL } from "./parts.ts";
import {
  describeReport,
  fileNameOf,
  folderOf,
  type GpuReport,
  lastReport,
  type PartReport,
} from "./report.ts";
import { suspectsOf, type UnitsRun } from "./suspects.ts";

const ROOT = decodeURI(new URL("../..", import.meta.url).pathname);
/** A part is not begun with less time than this left. */
const LEAST_SECONDS = 5;
/** Times as long that a part may take on a processor. */
const SLOWER = 3;
/** Lines of a part's output that are shown, and characters that are kept. */
const SHOWN_LINES = 6;
const KEPT = 4000;

const HELP = `Usage: deno task gpu [flags]

Says what this machine's GPU computes right, how fast, and which goals it meets, natively and on Dawn. Each part is a
process of its own with a limit of its own; results come as it goes. The report is kept in bench/results/ by the
adapter's name and set beside the last one there: send it along.

  --parts NAMES    with commas, of ${TOPICS.join(", ")}
                   (default: all but toggles, which repeats attention's trials and a step with other toggles of Dawn)
  --seconds N      for everything (default: ${SECONDS}), with longer limits for parts if it is more; parts for which no time
                   is left are left out, and named
  --json FILE      writes the report there instead
  --help           this text
`;

interface Options {
  readonly topics: readonly Topic[];
  readonly seconds: number;
  readonly json: string | undefined;
}

/** @throws {UserError} with exit code 2 if a flag is not known, or its value cannot be used */
export function readGpuOptions(words: readonly string[]): Options | null {
  const usage = (message: string) => new UserError(message, { kind: "usage" });
  const values = (() => {
    try {
      return parseArgs({
        args: [...words],
        options: {
          parts: { type: "string" },
          seconds: { type: "string" },
          json: { type: "string" },
          help: { type: "boolean", short: "h" },
        },
      }).values;
    } catch (error) {
      throw usage((error as Error).message.split(". ")[0]!);
    }
  })();
  if (values.help) return null;
  const topics = values.parts?.split(",").map((name) => {
    const topic = TOPICS.find((each) => each === name);
    if (topic === undefined) throw usage(`--parts: must be of ${TOPICS.join(", ")}, got "${name}"`);
    return topic;
  }) ?? USUAL;
  const seconds = Number(values.seconds ?? SECONDS);
  if (!(seconds > 0)) throw usage(`--seconds: must be a number above 0, got "${values.seconds}"`);
  return { topics, seconds, json: values.json };
}

/** What a part gave: how it ended, all that it printed, and the JSON that it wrote or printed. */
interface Outcome {
  readonly report: PartReport;
  readonly output: string;
  readonly result: unknown;
}

/** Runs a part until it ends or its time is up. */
async function runPart(
  part: Part,
  { isSoftware, limit, folder }: { isSoftware: boolean; limit: number; folder: string },
): Promise<Outcome> {
  const { webgpu, script, softwareWords, writesJson } = part;
  const json = `${folder}/${webgpu}-${part.name.replaceAll(/\W+/g, "-")}.json`;
  const own = isSoftware && softwareWords ? softwareWords : part.words;
  const words = [
    "run",
    "--allow-all",
    "--no-prompt",
    "--quiet",
    ...(webgpu === "dawn" ? ["--lock=dawn.lock", "--frozen"] : []),
    script,
    ...own,
    // It ends the processes that it has started itself.
    ...(script === TESTS ? [`--seconds=${Math.max(1, limit - 2).toFixed(0)}`] : []),
    ...(writesJson ? ["--json", json] : []),
  ];
  const start = performance.now();
  const child = new Deno.Command("deno", {
    args: words,
    cwd: ROOT,
    env: { NO_COLOR: "1", LONGREACH_WEBGPU: webgpu },
    stdin: "null",
    stdout: "piped",
    stderr: "piped",
  }).spawn();
  let [isLate, output, errors] = [false, "", ""];
  const timer = setTimeout(() => {
    isLate = true;
    child.kill("SIGKILL");
  }, 1000 * limit);
  const read = async (stream: ReadableStream<Uint8Array<ArrayBuffer>>, keep: (text: string) => void) => {
    for await (const text of stream.pipeThrough(new TextDecoderStream())) keep(text);
  };
  const [{ success }] = await Promise.all([
    child.status,
    read(child.stdout, (text) => output += text),
    read(child.stderr, (text) => errors += text),
  ]);
  clearTimeout(timer);
  const text = writesJson ? await Deno.readTextFile(json).catch(() => undefined) : output;
  return {
    report: {
      name: part.name,
      topic: part.topic,
      webgpu,
      command: ["deno", ...words.filter((word) => word !== json)].join(" "),
      status: isLate ? "out of time" : success ? "ok" : "failed",
      seconds: (performance.now() - start) / 1000,
      output: `${output}${errors}`.slice(-KEPT),
    },
    output,
    result: parse(text),
  };
}

function parse(text: string | undefined): unknown {
  try {
    return text === undefined ? undefined : JSON.parse(text);
  } catch {
    return undefined;
  }
}

/** What `doctor --json` prints, as far as a check reads it. */
interface DoctorOutput {
  readonly platform: string;
  readonly adapter:
    | { readonly description: string; readonly device: string; readonly is_software: boolean }
    | null;
}

/** What a check has found so far. */
interface Found {
  readonly parts: PartReport[];
  readonly units: UnitsRun[];
  readonly figures: Record<string, number>;
  /** What doctor says, by WebGPU. */
  readonly doctor: Partial<Record<WebGpu, DoctorOutput>>;
}

/** Doctor, which names the adapter and tells whether there is one, comes with every other part. */
function isWanted({ topic, webgpu }: Part, topics: readonly Topic[]): boolean {
  if (topics.includes(topic)) return true;
  return topic === "doctor" &&
    (webgpu === "deno" || PARTS.some((part) => part.webgpu === webgpu && topics.includes(part.topic)));
}

/** Runs the parts that are wanted, and makes the report of them. */
async function check({ topics, seconds }: Options, words: readonly string[], io: Io): Promise<GpuReport> {
  const start = performance.now();
  const folder = await Deno.makeTempDir({ prefix: "longreach-gpu-" });
  const found: Found = { parts: [], units: [], figures: {}, doctor: {} };
  try {
    for (const part of PARTS.filter((part) => isWanted(part, topics))) {
      const left = seconds - (performance.now() - start) / 1000;
      const reason = reasonToLeaveOut(part, found, left);
      if (reason === undefined) {
        io.err(`${part.name} (${part.webgpu}) ...`);
        const isSoftware = found.doctor.deno?.adapter?.is_software ?? false;
        const share = Math.max(1, seconds / SECONDS);
        keep(
          found,
          part,
          await runPart(part, {
            isSoftware,
            limit: Math.min(left, part.limit * share * (isSoftware ? SLOWER : 1)),
            folder,
          }),
        );
      } else {
        const { name, topic, webgpu } = part;
        found.parts.push({
          name,
          topic,
          webgpu,
          command: "",
          status: "left out",
          seconds: 0,
          output: reason,
        });
      }
      io.err(describePart(found.parts.at(-1)!));
    }
  } finally {
    await Deno.remove(folder, { recursive: true });
  }
  const { parts, units, figures, doctor: { deno } } = found;
  const adapter = deno?.adapter?.description || deno?.adapter?.device || "unnamed";
  const changes = await git(["status", "--porcelain", "--untracked-files=no"]);
  return {
    version: 1,
    kind: "gpu",
    adapter,
    isSoftware: deno?.adapter?.is_software ?? false,
    platform: deno?.platform ?? `${Deno.build.os} ${Deno.build.arch}`,
    deno: Deno.version.deno,
    commit: await git(["rev-parse", "--short=10", "HEAD"]) ?? "unknown",
    dirty: changes === null ? null : changes !== "",
    date: new Date().toISOString(),
    command: ["deno task gpu", ...words].join(" "),
    parts,
    units,
    suspects: suspectsOf(units),
    figures,
    goals: judge(figures, adapter),
  };
}

function reasonToLeaveOut({ topic, webgpu }: Part, { doctor }: Found, left: number): string | undefined {
  if (topic !== "doctor" && doctor[webgpu]?.adapter === null) return "there is no adapter";
  return left < LEAST_SECONDS ? "no time was left" : undefined;
}

/** Takes from a part what it found out. */
function keep(
  { parts, units, figures, doctor }: Found,
  part: Part,
  { report, output, result }: Outcome,
): void {
  const { topic, webgpu, script } = part;
  if (topic === "doctor" && result) {
    doctor[webgpu] = result as DoctorOutput;
    // Without Dawn all else can be found out.
    const isMissing = webgpu === "dawn" && doctor.dawn?.adapter === null;
    parts.push(isMissing ? { ...report, status: "left out" } : report);
    return;
  }
  parts.push(report);
  if (!result) return;
  if (script === "bench/gpu/units.ts") {
    units.push({ toggles: part.words[0]!.slice("--toggles=".length), units: result as UnitsRun["units"] });
  } else Object.assign(figures, figuresOf(part, output, result));
}

function describePart({ name, topic, webgpu, status, seconds, output }: PartReport): string {
  const shown = topic === "doctor" && status === "ok" ? [] : output.trimEnd().split("\n").slice(-SHOWN_LINES);
  return [...shown, `${name} (${webgpu}): ${status}, ${seconds.toFixed(0)} s`].join("\n");
}

function figuresOf({ webgpu, topic, name }: Part, output: string, result: unknown): Record<string, number> {
  switch (topic) {
    case "toggles":
      return ofExperiment(name, figuresOfBench(webgpu, result as Parameters<typeof figuresOfBench>[1]));
    case "memory":
      return { ...figuresOfFit(webgpu, result as Parameters<typeof figuresOfFit>[1]) };
    case "decode":
    case "kernels":
    case "s2":
    case "step-2048":
    case "step-8192":
      return {
        ...figuresOfBench(webgpu, result as Parameters<typeof figuresOfBench>[1]),
        ...figuresOfAnswer(webgpu, output),
      };
    default:
      return {};
  }
}

/** Figures under the names of an experiment: "step-2048, no validation". */
function ofExperiment(name: string, figures: Figures): Record<string, number> {
  const [, ...experiment] = name.split(", ");
  return Object.fromEntries(
    Object.entries(figures).map(([key, value]) => {
      const [webgpu, what, unit] = key.split(" | ");
      return [[webgpu, `${what}, ${experiment.join(", ")}`, unit].join(" | "), value];
    }),
  );
}

async function main(words: readonly string[], io: Io): Promise<number> {
  try {
    const options = readGpuOptions(words);
    if (options === null) {
      io.out(HELP.trimEnd());
      return EXIT.ok;
    }
    const report = await check(options, words, io);
    const folder = folderOf(report);
    const last = await lastReport(folder);
    const file = options.json ?? `${folder}/${fileNameOf(report)}`;
    if (options.json === undefined) await Deno.mkdir(folder, { recursive: true });
    await Deno.writeTextFile(file, JSON.stringify(report, null, 1) + "\n");
    io.out(describeReport(report, last));
    io.out(`Kept in ${file}`);
    return report.parts.some(({ status }) => status === "failed") ? EXIT.failed : EXIT.ok;
  } catch (error) {
    if (!(error instanceof UserError)) throw error;
    io.err(error.message);
    return exitCodeOf(error);
  }
}

if (import.meta.main) {
  const from = Deno.env.get("INIT_CWD");
  if (from !== undefined && from !== "") Deno.chdir(from);
  Deno.exit(await main(Deno.args, terminalIo()));
}
