/** Progress and signals around pieces of work: every command that takes long runs its work through here. */
import type { WorkHooks } from "../model/hooks.ts";
import type { StageHooks, TrainHooks } from "../train/hooks.ts";
import type { Io } from "./io.ts";
import { CountProgress, TrainProgress } from "./progress.ts";
import { Interrupted, StopSignal } from "./stop_signal.ts";

/** Retries of a failed last save: on a terminal as long as somebody may make room, else once more. */
const TRIES = { terminal: { count: 60, everyMs: 10_000 }, unattended: { count: 2, everyMs: 1000 } } as const;

/** Waits until a failed save is to be tried again. @returns false if it is not, since Ctrl-C said so or time is up */
async function waitForRoom(
  failures: number,
  io: Io,
  signal: StopSignal,
  say: (line: string) => void,
): Promise<boolean> {
  const { count, everyMs } = io.isTerminal ? TRIES.terminal : TRIES.unattended;
  if (failures > count) return false;
  if (failures === 1 && io.isTerminal) {
    say("the disk has no room for the last save: trying again for ten minutes, Ctrl-C gives up");
  }
  const before = signal.asked;
  const end = performance.now() + everyMs;
  while (performance.now() < end && signal.asked === before) {
    await new Promise((done) => setTimeout(done, 100));
  }
  return signal.asked === before;
}

/** Hooks that show what they are told on `io`, and the signal by which the user stopped a training. */
export function stagesOn(io: Io): StageHooks & { readonly stoppedBy: Deno.Signal | null } {
  let stoppedBy: Deno.Signal | null = null;
  return {
    get stoppedBy() {
      return stoppedBy;
    },
    note: (line) => io.err(line),

    async training<T>(loggingSteps: number, run: (hooks: TrainHooks) => Promise<T>): Promise<T> {
      const progress = new TrainProgress(io, loggingSteps);
      const signal = new StopSignal(io, (line) => progress.note(line));
      signal.isWorking = false;
      try {
        return await run({
          onData: (preview) => progress.onData(preview),
          onStart: (info) => {
            progress.onStart(info);
            signal.isWorking = true;
          },
          onCompile: (kernels) => progress.onCompile(kernels),
          onStep: (metrics) => {
            progress.onStep(metrics);
            io.trace?.show({ err: (text) => progress.note(text) }, `Kernels of step ${metrics.step}`);
          },
          onEvaluate: (step, loss, isBest) => progress.onEvaluate(step, loss, isBest),
          onSave: (path) => progress.onSave(path),
          note: (line) => progress.note(line),
          shouldStop: () => signal.asked !== null,
          waitForRoom: (failures) => waitForRoom(failures, io, signal, (line) => progress.note(line)),
        });
      } finally {
        progress.stop();
        signal.close();
        stoppedBy = signal.asked;
      }
    },

    async counting<T>(unit: string, run: (hooks: WorkHooks) => Promise<T>): Promise<T> {
      const progress = new CountProgress(io, unit);
      try {
        return await run(progress);
      } finally {
        progress.stop();
      }
    },

    endIfStopped(whatNow: string): void {
      if (stoppedBy !== null) throw new Interrupted(stoppedBy, whatNow);
    },
  };
}

/** Runs work that loads a model and then counts units, with a line of progress for each of the two. */
export async function loadingAndCounting<T>(
  io: Io,
  unit: string,
  run: (hooks: WorkHooks) => Promise<T>,
): Promise<T> {
  const loading = new CountProgress(io, "tensor");
  return await stagesOn(io).counting(unit, (hooks) =>
    run({
      ...hooks,
      onLoad(done, total, tensor) {
        loading.onProgress(done, total, tensor);
        if (done === total) loading.stop();
      },
    })).finally(() => loading.stop());
}
