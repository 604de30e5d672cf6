/** The part of a process in a job of several ranks: what it shows, and how it ends. */
import type { Communicator } from "../distributed/communicator.ts";
import type { Job } from "../distributed/mpi.ts";
import type { Io } from "./io.ts";
import { permittedEnv } from "./user_cache.ts";

/** Milliseconds that other ranks leave rank 0 to say first what fails on all of them alike. */
const FIRST_SPEAKS_MS = 1000;
/** Milliseconds within which all ranks must have come to an orderly end that a signal asked for. */
const PARTING_MS = 5000;

/**
 * Joins the job that MPI started this process for, if it did: `./longreach` then names the library. What loading it took
 * is given back.
 * @throws {UserError} if the library cannot be used
 */
export async function joinJobIfAny(): Promise<Job | undefined> {
  const path = permittedEnv("LONGREACH_MPI");
  if (!path) return undefined;
  const { joinJob } = await import("../distributed/mpi.ts");
  const job = joinJob(path);
  Deno.permissions.revokeSync({ name: "ffi", path });
  return job;
}

/** What a rank shows: rank 0 all, the others only why they fail. */
export function ioOfRank(io: Io, ranks: Communicator): Io {
  if (ranks.size === 1) return { ...io, ranks };
  const failed = (text: string) => io.err(`Rank ${ranks.rank}: ${text}`);
  if (ranks.rank === 0) return { ...io, ranks, failed };
  const nothing = () => {};
  return {
    ...io,
    ranks,
    isTerminal: false,
    out: nothing,
    print: nothing,
    err: nothing,
    draw: nothing,
    failed: async (text) => {
      await sleep(FIRST_SPEAKS_MS);
      failed(text);
    },
  };
}

/** Ends this rank's part: with all others in order, or all of them at once where it has failed. */
export async function endJob({ ranks, abort, leave }: Job, exitCode: number): Promise<void> {
  if (exitCode !== 0 && !(exitCode >= 128 && await meets(ranks))) abort(exitCode);
  else leave();
}

async function meets(ranks: Communicator): Promise<boolean> {
  return await Promise.race([ranks.barrier().then(() => true), sleep(PARTING_MS).then(() => false)]);
}

function sleep(ms: number): Promise<void> {
  return new Promise((resolve) => setTimeout(resolve, ms));
}
