/** `training_state.json` of a checkpoint, of which somebody forged the manifest. */
import { checkSameRun, readSavedState, type SavedState } from "../../../train/saved_state.ts";
import { loadTrainArgs } from "../../../train_args/load.ts";
import { assert } from "../../support/assert_close.ts";
import { mutateJson } from "../mutate.ts";
import type { Reader } from "../reader.ts";

const { args } = await loadTrainArgs(null, {
  model_name_or_path: "m",
  train_file: "t.jsonl",
  output_dir: "o",
  max_seq_length: "64",
  max_steps: "9",
});
const STATE: SavedState = {
  version: 1,
  step: 3,
  samplerPosition: 3,
  trainer: { updates: 3, passes: 3, lossScale: 65536, scaleAge: 2 },
  skippedSteps: 0,
  log: {
    history: [{ epoch: 0.5, step: 2, loss: 2.5, grad_norm: 1, learning_rate: 1e-4, seconds: 3.5 }, {
      epoch: 1,
      step: 3,
      eval_loss: 2,
    }],
    lossSum: 1.5,
    steps: 1,
    time: { startedAt: "2026-11-26T14:30:00.000Z", starts: 2, seconds: 4.5 },
  },
  evaluation: { best: { loss: 2, step: 3 }, worse: 0 },
  args,
  dataHash: "0".repeat(64),
};
const TEXT = JSON.stringify(STATE);
const HINTS = {
  keys: [
    "step",
    "samplerPosition",
    "args",
    "log",
    "history",
    "time",
    "trainer",
    "evaluation",
    "best",
    "version",
  ],
  values: ["null", "1", "3", "[]", "{}"],
};

export const reader: Reader = {
  everyday: 300,
  accepted: [0.005, 0.95],
  make: (dice) => mutateJson(dice, TEXT, HINTS),
  async read(input, folder) {
    Deno.writeFileSync(`${folder}/training_state.json`, input);
    const state = await readSavedState(folder);
    checkSameRun({ path: folder, state }, args, STATE.dataHash);
    const { step, samplerPosition, skippedSteps, log, evaluation } = state;
    for (const count of [step, samplerPosition, skippedSteps, log.steps, evaluation?.worse ?? 0]) {
      assert(Number.isSafeInteger(count) && count >= 0, `a count is ${count}`);
    }
    for (const entry of log.history) {
      assert(Number.isFinite(entry.step + entry.epoch), "an entry of the log has no step");
    }
    assert(
      Number.isFinite(log.lossSum + (log.time?.seconds ?? 0)) && Number.isFinite(evaluation?.best?.loss ?? 0),
      "a loss is not finite",
    );
  },
};
