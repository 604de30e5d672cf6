/** Progress and Ctrl-C around pieces of work: every command that takes long runs its work through here. */
import type { WorkHooks } from "../model/hooks.ts";
import type { StageHooks, TrainHooks } from "../train/hooks.ts";
import type { Io } from "./io.ts";
import { CountProgress, TrainProgress } from "./progress.ts";
import { StopSignal } from "./stop_signal.ts";

/** Hooks that show what they are told on `io`. */
export function stagesOn(io: Io): StageHooks {
  return {
    note: (line) => io.err(line),

    async training<T>(loggingSteps: number, run: (hooks: TrainHooks) => Promise<T>): Promise<T> {
      const progress = new TrainProgress(io, loggingSteps);
      const signal = new StopSignal(io, (line) => progress.note(line));
      try {
        return await run({
          onData: (preview) => progress.onData(preview),
          onStart: (info) => progress.onStart(info),
          onCompile: (kernels) => progress.onCompile(kernels),
          onStep: (metrics) => progress.onStep(metrics),
          onEvaluate: (step, loss, isBest) => progress.onEvaluate(step, loss, isBest),
          onSave: (path) => progress.onSave(path),
          note: (line) => progress.note(line),
          shouldStop: () => signal.asked,
        });
      } finally {
        progress.stop();
        signal.close();
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
  };
}
