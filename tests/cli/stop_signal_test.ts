import { ignoresHangup } from "../../cli/stop_signal.ts";
import { assertEquals } from "../support/assert_close.ts";
import { assertIncludes } from "../support/text.ts";

const LISTEN = `
import { terminalIo } from "${new URL("../../cli/io.ts", import.meta.url)}";
import { listenForSignals, StopSignal } from "${new URL("../../cli/stop_signal.ts", import.meta.url)}";
import { temporaryName } from "${new URL("../../data/temporary.ts", import.meta.url)}";
const io = terminalIo();
listenForSignals(io);
`;

/** A run of 30 steps at most that asks after each whether to stop, as training does. */
const RUN = `${LISTEN}
const signal = new StopSignal(io, (line) => io.err(line));
io.out("ready");
for (let step = 0; step < 30 && !signal.asked; step++) await new Promise((done) => setTimeout(done, 400));
io.out(signal.asked ? "saved" : "never asked");
signal.close();
Deno.exit(0);
`;

/** Work without a step to finish, which has half a folder on disk. */
const OTHER_WORK = `${LISTEN}
const folder = temporaryName(Deno.args[0]);
Deno.mkdirSync(folder);
Deno.writeTextFileSync(folder + "/half", "x");
io.out("ready");
await new Promise((done) => setTimeout(done, 12_000));
`;

/** Work of two parts, as the demo: a training, and what comes after it. */
const TWO_PARTS = `${LISTEN}
import { stagesOn } from "${new URL("../../cli/stages.ts", import.meta.url)}";
const stages = stagesOn(io);
try {
  await stages.training(1, async (hooks) => {
    if (Deno.args[1] !== "loading") hooks.onStart({ totalSteps: 30, startStep: 0, sequencesPerStep: 1, totalEpochs: 1, tokensPerStep: 1, totalParameters: 1, trainableParameters: 1 });
    io.out("ready");
    for (let step = 0; step < 30 && !hooks.shouldStop(); step++) await new Promise((done) => setTimeout(done, 100));
    io.out("saved");
  });
  stages.endIfStopped("start demo again to go on");
  io.out("merging");
} catch (error) {
  io.err(error.message);
  io.exit(error.exitCode ?? 99);
}
`;

interface Ended {
  readonly code: number;
  readonly output: string;
  /** Names left in the folder that the program was given. */
  readonly left: readonly string[];
}

/**
 * Starts the program, sends the signals once it is ready, and waits for its end.
 * @param apartMs between two signals: those sent at once may arrive in any order
 */
async function interrupted(
  program: string,
  signals: readonly Deno.Signal[],
  env: Record<string, string> = {},
  apartMs = 0,
): Promise<Ended> {
  const folder = await Deno.makeTempDir({ prefix: "longreach-test-" });
  const file = await Deno.makeTempFile({ suffix: ".ts" });
  try {
    await Deno.writeTextFile(file, program);
    const child = new Deno.Command("deno", {
      args: [
        ..."run --no-prompt --no-check --no-lock --allow-env --allow-read --allow-write".split(" "),
        `--config=${new URL("../../deno.json", import.meta.url).pathname}`,
        file,
        `${folder}/out`,
      ],
      env: { _: "deno", LONGREACH_NOHUP: "", ...env },
      stdout: "piped",
      stderr: "piped",
    }).spawn();
    const errors = new Response(child.stderr).text();
    let output = "";
    for await (const text of child.stdout.pipeThrough(new TextDecoderStream())) {
      if (output === "") {
        for (const [i, signal] of signals.entries()) {
          if (i > 0 && apartMs > 0) await new Promise((done) => setTimeout(done, apartMs));
          child.kill(signal);
        }
      }
      output += text;
    }
    const { code } = await child.status;
    return {
      code,
      output: output + await errors,
      left: [...Deno.readDirSync(folder)].map(({ name }) => name),
    };
  } finally {
    await Deno.remove(file);
    await Deno.remove(folder, { recursive: true });
  }
}

const ignore = Deno.build.os === "windows";

for (const signal of ["SIGINT", "SIGTERM", "SIGHUP"] as const) {
  Deno.test({
    name: `the first ${signal} asks the run to save and end`,
    ignore,
    fn: async () => {
      const { code, output } = await interrupted(RUN, [signal]);
      assertEquals(code, 0);
      assertIncludes(output, "saved");
      assertIncludes(output, "finishing this step, then saving");
    },
  });
}

Deno.test({
  name: "the second signal ends the process at once with the first one's code",
  ignore,
  fn: async () => {
    const { code, output } = await interrupted(RUN, ["SIGINT", "SIGTERM"], {}, 100);
    assertEquals(code, 130);
    assertEquals(output.includes("saved"), false);
  },
});

Deno.test({
  name: "a terminal that closes ends no save, and nothing at all where nohup was asked for",
  ignore,
  fn: async () => {
    for (const order of [["SIGTERM", "SIGHUP"], ["SIGHUP", "SIGTERM"]] as const) {
      assertIncludes((await interrupted(RUN, order)).output, "saved");
    }
    const { code, output } = await interrupted(RUN.replace("30", "3"), ["SIGHUP"], { _: "/usr/bin/nohup" });
    assertEquals(code, 0);
    assertIncludes(output, "never asked");
  },
});

Deno.test({
  name: "work without steps ends with the signal's code, and what it has not finished is removed",
  ignore,
  fn: async () => {
    for (const [signal, wanted] of [["SIGINT", 130], ["SIGTERM", 143], ["SIGHUP", 129]] as const) {
      const { code, output, left } = await interrupted(OTHER_WORK, [signal]);
      assertEquals([code, left], [wanted, []], signal);
      assertIncludes(output, "Stopped by");
    }
  },
});

Deno.test({
  name: "Ctrl-C in a training ends what would come after it, and says how to go on",
  ignore,
  fn: async () => {
    const { code, output } = await interrupted(TWO_PARTS, ["SIGINT"]);
    assertEquals(code, 130, output);
    assertIncludes(output, "saved\n");
    assertIncludes(output, "Stopped by Ctrl-C: start demo again to go on");
    assertEquals(output.includes("merging"), false);
  },
});

Deno.test({
  name: "Ctrl-C before the first step ends at once: there is nothing to save",
  ignore,
  fn: async () => {
    const loading = TWO_PARTS.replace('Deno.args[1] !== "loading"', "false");
    const { code, output } = await interrupted(loading, ["SIGINT"]);
    assertEquals(code, 130, output);
    assertIncludes(output, "before the first step");
    assertEquals(output.includes("saved"), false);
  },
});

Deno.test("nohup is known by what started it", () => {
  const env = (values: Record<string, string>) => (name: string) => values[name];
  assertEquals(
    [{}, { _: "/usr/bin/deno" }, { _: "/usr/bin/nohup" }, { LONGREACH_NOHUP: "1" }].map((values) =>
      ignoresHangup(env(values))
    ),
    [false, false, true, true],
  );
});
