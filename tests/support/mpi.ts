/** Jobs of several ranks for tests, where MPI is installed. */

const ROOT = new URL("../..", import.meta.url).pathname;

/** An installed MPI. */
export interface Mpi {
  readonly name: string;
  /** The start of a command line that runs what follows on so many ranks, more than there are processors too. */
  mpirun(ranks: number): string;
  /** Its library, as the loader finds it. */
  readonly library: string;
}

const OPEN_MPI = (program: string): Mpi => ({
  name: "Open MPI",
  mpirun: (ranks) => `${program} --oversubscribe -np ${ranks}`,
  library: "libmpi.so.40",
});
const MPICH = (program: string): Mpi => ({
  name: "MPICH",
  mpirun: (ranks) => `${program} -np ${ranks}`,
  library: "libmpich.so.12",
});

/** The installed ones: that of `mpirun` first, and the other where a system has both. */
export function findMpis(): Mpi[] {
  const found = ["mpirun", "mpirun.openmpi", "mpirun.mpich"].flatMap((program) => {
    const { stdout } = new Deno.Command("sh", {
      args: ["-c", `${program} --version`],
      env: AS_ROOT,
      stderr: "null",
    }).outputSync();
    const version = new TextDecoder().decode(stdout);
    if (version.includes("Open MPI")) return [OPEN_MPI(program)];
    return version.includes("HYDRA") ? [MPICH(program)] : [];
  });
  return found.filter(({ name }, i) => found.findIndex((mpi) => mpi.name === name) === i);
}

/** Open MPI wants to be asked twice. */
const AS_ROOT = { OMPI_ALLOW_RUN_AS_ROOT: "1", OMPI_ALLOW_RUN_AS_ROOT_CONFIRM: "1" };

/** How a job ended. */
export interface JobResult {
  readonly code: number;
  /** Of all ranks. */
  readonly stderr: string;
}

/** Starts a line of the shell, in the project's folder unless told otherwise. */
export function startJob(
  line: string,
  { cwd = ROOT, env = {} }: { readonly cwd?: string; readonly env?: Readonly<Record<string, string>> } = {},
): Deno.ChildProcess {
  return new Deno.Command("sh", {
    args: ["-c", `exec ${line}`],
    cwd,
    env: { ...AS_ROOT, NO_COLOR: "1", ...env },
    stdout: "null",
    stderr: "piped",
  }).spawn();
}

/** Waits for a job. */
export async function endOf(job: Deno.ChildProcess): Promise<JobResult> {
  const [stderr, { code }] = await Promise.all([new Response(job.stderr).text(), job.status]);
  return { code, stderr };
}

/** Runs a line of the shell to its end. */
export async function runJob(line: string): Promise<JobResult> {
  return await endOf(startJob(line));
}
