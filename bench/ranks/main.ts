/**
 * Bandwidth of sums over ranks: `deno task bench:ranks [RANKS]` compares with C on the same library, processes and buffers, in
 * turn. Needs Open MPI's mpirun and mpicc.
 */

const HERE = new URL(".", import.meta.url).pathname;

async function shell(line: string): Promise<string> {
  const { success, stdout, stderr } = await new Deno.Command("sh", {
    args: ["-c", line],
    env: { OMPI_ALLOW_RUN_AS_ROOT: "1", OMPI_ALLOW_RUN_AS_ROOT_CONFIRM: "1" },
  }).output();
  if (!success) throw new Error(`${line}: ${new TextDecoder().decode(stderr)}`);
  return new TextDecoder().decode(stdout);
}

/** The value that a quarter of them are below: others who use the machine only add to a time. */
function lowerQuartile(values: readonly number[]): number {
  return [...values].sort((a, b) => a - b)[Math.floor(values.length / 4)]!;
}

const ranks = Number(Deno.args[0] ?? 2);
const folder = await Deno.makeTempDir();
try {
  const reference = `${folder}/allreduce.so`;
  await shell(`mpicc -O2 -shared -fPIC ${HERE}allreduce.c -o ${reference}`);
  const [, library] = (await shell("ldconfig -p || /sbin/ldconfig -p")).match(/libmpi\.so\.40 .*=> (\S+)/)!;
  const lines = await shell(
    `mpirun --oversubscribe --bind-to none -np ${ranks} --mca mpi_yield_when_idle 1 ` +
      `deno run --no-check --allow-ffi=${library},${reference} ${HERE}rank.ts ${library} ${reference}`,
  );
  for (const line of lines.trim().split("\n")) {
    const { bytes, here, c } = JSON.parse(line) as { bytes: number; here: number[]; c: number[] };
    const speed = (seconds: readonly number[]) => bytes / lowerQuartile(seconds);
    const text = `${ranks} ranks, ${bytes / 1024} KiB: ${(speed(here) / 1e9).toFixed(2)} GB/s, C ${
      (speed(c) / 1e9).toFixed(2)
    } GB/s, ratio ${(speed(here) / speed(c)).toFixed(2)}\n`;
    Deno.stdout.writeSync(new TextEncoder().encode(text));
  }
} finally {
  await Deno.remove(folder, { recursive: true });
}
