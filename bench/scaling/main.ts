/**
 * Predicted and measured scaling: ranks of one job in network namespaces whose links have a given rate, so that messages
 * take their time, while devices are simulated, since ranks here share two cores: a step computes for a fixed time. All
 * else is the training step as it is, and MPI. Needs Linux, root, `ip`, `tc` and Open MPI.
 *
 *     deno task bench:scaling --json bench/results/scaling.json
 */
import { terminalIo } from "../../cli/io.ts";
import { formatRate, formatTable } from "../../text.ts";
import { parseArgs } from "../deps.ts";
import type { RankOptions, RankReport } from "./rank.ts";

/** Open MPI's, as the loader finds it. */
const LIBRARY = "libmpi.so.40";
/** Least, first and most bytes of a socket's buffers. */
const SOCKET = "4096 4194304 8388608";
const RATE_MBIT = 20;
const RANKS = [2, 4, 8];
/** With fewer layers: a rank that must be given a processor before it goes on is late by that, not by messages. */
const LAYERS = 6;
const MODEL = { shape: "smollm3-3b", bf16: "true", lora_rank: "16" };

/** A job: data parallel, or all ranks on one sequence. */
function optionsOf(kind: "data" | "sequence", ranks: number): RankOptions {
  const { shape, ...settings } = MODEL;
  // Of a frame of 1514 bytes TCP carries 1448.
  const bytesPerSecond = RATE_MBIT * 1e6 / 8 * 1448 / 1514;
  return kind === "data"
    ? {
      shape,
      layers: LAYERS,
      settings: { ...settings, max_seq_length: "2048", target_modules: "q_proj,o_proj" },
      batchSeconds: 12,
      steps: 2,
      bytesPerSecond,
    }
    : {
      shape,
      layers: LAYERS,
      settings: {
        ...settings,
        max_seq_length: "4096",
        group_size: "512",
        target_modules: "q_proj",
        sequence_parallel_size: String(ranks),
      },
      batchSeconds: 32,
      steps: 2,
      bytesPerSecond,
    };
}

/** A result with what it is of. */
export interface ScalingRow extends RankReport {
  readonly kind: "data" | "sequence";
  readonly rateMbit: number;
}

const io = terminalIo();
const { values: { json } } = parseArgs({ args: Deno.args, options: { json: { type: "string" } } });
const rows: ScalingRow[] = [];
for (const ranks of RANKS) {
  await withNetwork(ranks, RATE_MBIT, async (hosts) => {
    for (const kind of ["data", "sequence"] as const) {
      const report = await runJob(hosts, optionsOf(kind, ranks));
      rows.push({ kind, rateMbit: RATE_MBIT, ...report });
      io.err(`${kind}, ${ranks} ranks: ${JSON.stringify(report)}`);
    }
  });
}
if (json !== undefined) await Deno.writeTextFile(json, JSON.stringify(rows, null, 1) + "\n");
const percent = (share: number) => `${(100 * share).toFixed(1)} %`;
io.out(formatTable([
  [
    "parallel",
    "ranks",
    "link MB/s",
    "compute s",
    "predicted s",
    "measured s",
    "efficiency",
    "measured",
    "ratio",
  ],
  ...rows.map((row) => [
    row.kind,
    String(row.ranks),
    formatRate(row.bytesPerSecond / 1e6),
    row.computeSeconds.toFixed(2),
    row.predictedSeconds.toFixed(2),
    row.measuredSeconds.toFixed(2),
    percent(row.predictedEfficiency),
    percent(row.measuredEfficiency),
    (row.predictedEfficiency / row.measuredEfficiency).toFixed(3),
  ]),
], "lrrrrrrrr"));

/** Makes a network of hosts around one bridge, each behind a link of the given rate both ways, and takes it down again. */
async function withNetwork(
  hosts: number,
  rateMbit: number,
  work: (hosts: readonly string[]) => Promise<void>,
): Promise<void> {
  const all = Array.from({ length: hosts }, (_, i) => i + 1);
  const limit = (device: string) =>
    `tc qdisc add dev ${device} root tbf rate ${rateMbit}mbit burst 64kb latency 100ms`;
  try {
    await shell([
      "ip link add longreach0 type bridge",
      "ip addr add 10.77.0.254/24 dev longreach0",
      "ip link set longreach0 up",
      ...all.flatMap((i) => [
        `ip netns add longreach${i}`,
        `ip link add lrlink${i} type veth peer name eth0 netns longreach${i}`,
        `ip link set lrlink${i} master longreach0`,
        `ip link set lrlink${i} up`,
        `ip netns exec longreach${i} ip addr add 10.77.0.${i}/24 dev eth0`,
        `ip netns exec longreach${i} ip link set eth0 up`,
        `ip netns exec longreach${i} ip link set lo up`,
        // Ranks that wait for a processor must not let their link run dry.
        `ip netns exec longreach${i} sh -c 'echo ${SOCKET} >/proc/sys/net/ipv4/tcp_rmem; echo ${SOCKET} >/proc/sys/net/ipv4/tcp_wmem'`,
        `ip netns exec longreach${i} ${limit("eth0")}`,
        limit(`lrlink${i}`),
      ]),
    ]);
    await work(all.map((i) => `10.77.0.${i}`));
  } finally {
    for (const i of all) await shell([`ip netns del longreach${i}`]).catch(() => {});
    await shell(["ip link del longreach0"]).catch(() => {});
  }
}

async function shell(lines: readonly string[]): Promise<void> {
  const script = lines.join(" && ");
  const { success, stderr } = await new Deno.Command("sh", { args: ["-c", script] }).output();
  if (!success) throw new Error(`${script}: ${new TextDecoder().decode(stderr)}`);
}

/** Runs a rank on each host. */
async function runJob(hosts: readonly string[], options: RankOptions): Promise<RankReport> {
  const folder = await Deno.makeTempDir();
  try {
    // What mpirun takes for a remote shell: the last number of a host's address is that of its namespace.
    const agent = `${folder}/agent.sh`;
    await Deno.writeTextFile(
      agent,
      '#!/bin/sh\nhost=$1; shift\nexec ip netns exec longreach${host##*.} sh -c "$*"\n',
      {
        mode: 0o755,
      },
    );
    const rank = new URL("rank.ts", import.meta.url).pathname;
    const mca = {
      plm_rsh_agent: agent,
      plm_rsh_no_tree_spawn: "1",
      oob_tcp_if_include: "10.77.0.0/24",
      btl: "self,tcp",
      btl_tcp_if_include: "10.77.0.0/24",
      mpi_yield_when_idle: "1",
      // Those that send as few bytes as can be: recursive doubling for two, a ring for more.
      coll_tuned_use_dynamic_rules: "1",
      coll_tuned_allreduce_algorithm: hosts.length === 2 ? "3" : "4",
    };
    const { success, stdout, stderr } = await new Deno.Command("mpirun", {
      args: [
        ...Object.entries(mca).flatMap(([name, value]) => ["--mca", name, value]),
        ...["--host", hosts.map((host) => `${host}:1`).join(), "-np", String(hosts.length)],
        ...[Deno.execPath(), "run", "--no-prompt", "--quiet", "--no-check", "-A", rank],
        JSON.stringify(options),
        LIBRARY,
      ],
      env: { OMPI_ALLOW_RUN_AS_ROOT: "1", OMPI_ALLOW_RUN_AS_ROOT_CONFIRM: "1" },
    }).output();
    const text = (bytes: Uint8Array) => new TextDecoder().decode(bytes);
    if (!success) throw new Error(text(stderr));
    return JSON.parse(text(stdout));
  } finally {
    await Deno.remove(folder, { recursive: true });
  }
}
