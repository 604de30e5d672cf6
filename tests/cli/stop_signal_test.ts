import { assertEquals } from "../support/assert_close.ts";
import { assertIncludes } from "../support/text.ts";

/** A run of 30 steps at most that asks after each whether to stop, as training does. */
const RUN = `
import { terminalIo } from "${new URL("../../cli/io.ts", import.meta.url)}";
import { StopSignal } from "${new URL("../../cli/stop_signal.ts", import.meta.url)}";
const io = terminalIo();
const signal = new StopSignal(io, (line) => io.err(line));
io.out("ready");
for (let step = 0; step < 30 && !signal.asked; step++) await new Promise((done) => setTimeout(done, 400));
io.out(signal.asked ? "saved" : "never asked");
signal.close();
`;

/** Starts the run, sends the signals once it is ready, and waits for its end. */
async function interrupted(...signals: Deno.Signal[]): Promise<{ code: number; output: string }> {
  const file = await Deno.makeTempFile({ suffix: ".ts" });
  try {
    await Deno.writeTextFile(file, RUN);
    const child = new Deno.Command("deno", {
      args: ["run", "--no-prompt", "--no-check", "--no-lock", file],
      stdout: "piped",
      stderr: "piped",
    }).spawn();
    const errors = new Response(child.stderr).text();
    let output = "";
    for await (const text of child.stdout.pipeThrough(new TextDecoderStream())) {
      if (output === "") signals.forEach((signal) => child.kill(signal));
      output += text;
    }
    return { code: (await child.status).code, output: output + await errors };
  } finally {
    await Deno.remove(file);
  }
}

for (const signal of ["SIGINT", "SIGTERM"] as const) {
  Deno.test({
    name: `the first ${signal} asks the run to save and end`,
    ignore: Deno.build.os === "windows",
    fn: async () => {
      const { code, output } = await interrupted(signal);
      assertEquals(code, 0);
      assertIncludes(output, "saved");
      assertIncludes(output, "finishing this step, then saving");
    },
  });
}

Deno.test({
  name: "the second Ctrl-C ends the process at once with 130",
  ignore: Deno.build.os === "windows",
  fn: async () => {
    const { code, output } = await interrupted("SIGINT", "SIGTERM");
    assertEquals(code, 130);
    assertEquals(output.includes("saved"), false);
  },
});
