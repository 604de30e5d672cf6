import { loadTrainArgs } from "../../train_args/load.ts";
import type { TrainHooks } from "../../train/hooks.ts";
import { AppendFile } from "../../train/append_file.ts";
import { runTraining } from "../../train/run.ts";
import { verify } from "../../checkpoint/store.ts";
import { assert, assertEquals, assertThrows } from "../support/assert_close.ts";
import { readEvents } from "../support/event_file.ts";
import { GOLDEN, namesIn, withFolder } from "../support/files.ts";
import { withDisk } from "../support/full_disk.ts";
import { comparedBytes } from "../support/metrics.ts";
import { assertIncludes } from "../support/text.ts";

interface Run {
  readonly notes: string[];
  readonly waits: number[];
  readonly stopped: boolean;
}

/** Trains six steps and saves each; `at` is called after a step. */
async function train(
  output_dir: string,
  { at = () => {}, wait = false, stopAfter = Infinity, ...settings }: {
    at?: (step: number) => void;
    wait?: boolean;
    stopAfter?: number;
    load_best_model_at_end?: string;
  } = {},
): Promise<Run> {
  const { args } = await loadTrainArgs(null, {
    model_name_or_path: `${GOLDEN}/mha`,
    train_file: `${GOLDEN}/train.jsonl`,
    sft: "false",
    model_max_length: "64",
    lora_rank: "2",
    max_steps: "6",
    save_steps: "1",
    output_dir,
    ...settings,
  });
  const notes: string[] = [];
  const waits: number[] = [];
  let done = 0;
  const hooks: TrainHooks = {
    onStart() {},
    onStep: ({ step }) => at(done = step),
    onSave() {},
    note: (line) => line.includes(" were cut") || notes.push(line),
    shouldStop: () => done >= stopAfter,
    waitForRoom: (failures) => {
      waits.push(failures);
      return Promise.resolve(wait && failures < 3);
    },
  };
  const { stopped } = await runTraining(args, hooks);
  return { notes, waits, stopped };
}

const checkpoints = (folder: string) => namesIn(folder).filter((name) => name.startsWith("checkpoint"));

Deno.test("A disk that fills up and is freed again costs checkpoints, not the run, and no line of its logs", async () => {
  await withFolder(async (folder) => {
    const [whole, out] = [`${folder}/whole`, `${folder}/out`];
    await train(whole);
    await withDisk(out, Infinity, async (disk) => {
      const { notes } = await train(out, {
        at: (step) => disk.setFree(step === 2 || step === 3 ? 10 : Infinity),
      });
      assertEquals(checkpoints(out), ["checkpoint-1", "checkpoint-4", "checkpoint-5", "checkpoint-6"]);
      const failed = notes.filter((line) => line.includes("is not saved"));
      assertEquals(failed.length, 2, notes.join("\n"));
      assertIncludes(failed[0]!, "step 2 is not saved: Cannot");
      assertIncludes(failed[0]!, "the disk is full");
      assertIncludes(failed[0]!, "training goes on, saving again after step 3");
      assert(
        notes.some((line) => line.includes("is not logged") && line.includes("metrics.jsonl")),
        notes.join("\n"),
      );
    });
    for (const name of ["adapter_model.safetensors", "metrics.jsonl", "trainer_state.json"]) {
      assertEquals(await comparedBytes(out, name), await comparedBytes(whole, name), name);
    }
    const steps = async (at: string) => (await readEvents(`${at}/runs`))[0]!.map(({ step }) => Number(step));
    assertEquals(await steps(out), await steps(whole));
    for (const name of checkpoints(out)) await verify(`${out}/${name}`);
    assertEquals(namesIn(out).filter((name) => name.includes(".tmp-")), []);
  });
});

Deno.test("Where the last save fails too, one line names the last good step", async () => {
  await withFolder(async (out) => {
    await withDisk(out, Infinity, async (disk) => {
      const fill = (step: number) => step >= 3 && disk.setFree(10);
      await assertThrows(
        () => train(out, { at: fill }),
        "disk is full",
        "The checkpoint of step 2 is intact: the same command goes on from it",
      );
    });
    assertEquals(checkpoints(out), ["checkpoint-1", "checkpoint-2"]);
    assertEquals(namesIn(out).includes("adapter_model.safetensors"), false);
    // With room again the same command goes on.
    const { notes } = await train(out);
    assertIncludes(notes[0]!, "Going on from step 2");
    assertEquals(checkpoints(out).at(-1), "checkpoint-6");
  });
});

Deno.test("The last save is tried again as long as somebody may make room, stopped or done", async () => {
  await withFolder(async (folder) => {
    for (const stopAfter of [2, Infinity]) {
      const out = `${folder}/${stopAfter}`;
      await withDisk(out, Infinity, async (disk) => {
        const last = Math.min(stopAfter, 6);
        const at = (step: number) => {
          if (step === last) disk.failNext(3);
        };
        const { waits, stopped } = await train(out, { at, wait: true, stopAfter });
        assertEquals(stopped, stopAfter === 2);
        assertEquals(waits, [1, 2], "failures in a row, each asked about");
      });
      const wanted = stopAfter === 2 ? "checkpoint-2" : "adapter_model.safetensors";
      assert(namesIn(out).includes(wanted), namesIn(out).join());
    }
  });
});

Deno.test("A best checkpoint that could not be saved is said, and the last one is the result", async () => {
  await withFolder(async (out) => {
    await withDisk(out, Infinity, async (disk) => {
      const settings = {
        load_best_model_at_end: "true",
        eval_file: `${GOLDEN}/train.jsonl`,
        eval_strategy: "steps",
        eval_steps: "1",
        // Helps for one step, then destroys.
        learning_rate: "0.1",
        lr_scheduler_type: "constant",
        save_strategy: "no",
        max_steps: "3",
      };
      const fill = (step: number) => disk.setFree(step < 3 ? 10 : Infinity);
      const { notes } = await train(out, { at: fill, ...settings });
      const told = notes.filter((line) => line.startsWith("The best evaluation"));
      assertIncludes(told.join(), "it could not be saved, so the result is that of the last step");
      assert(namesIn(out).includes("adapter_model.safetensors"), notes.join("\n"));
    });
  });
});

Deno.test("A log file has every line in its order, whichever writes fail or are torn", async () => {
  await withFolder(async (folder) => {
    await withDisk(folder, Infinity, async (disk) => {
      const problems: string[] = [];
      const file = new AppendFile(`${folder}/log`, (problem) => problems.push(problem));
      await file.open(new TextEncoder().encode("start\n"));
      const lines = Array.from({ length: 40 }, (_, i) => `line ${i} ${"x".repeat(i)}\n`);
      for (const [i, line] of lines.entries()) {
        // Torn in the middle, nothing at all, and room again.
        disk.setFree(i % 5 === 1 ? 7 : i % 5 === 2 ? 0 : Infinity);
        await file.add(new TextEncoder().encode(line));
        const text = Deno.readTextFileSync(`${folder}/log`);
        assert(text.endsWith("\n") && ["start\n", ...lines].join("").startsWith(text), `after ${i}: ${text}`);
      }
      assertEquals(Deno.readTextFileSync(`${folder}/log`), ["start\n", ...lines].join(""));
      assertEquals(problems.length, 8, "told once each time it begins");
      assertIncludes(problems[0]!, "disk is full");
    });
  });
});
