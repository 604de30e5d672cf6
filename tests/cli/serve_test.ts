/** `serve` as a process of its own: with the rights of its task, until Ctrl-C. */
import config from "../../deno.json" with { type: "json" };
import { runCli } from "../../cli/main.ts";
import { assert, assertEquals } from "../support/assert_close.ts";
import { assertIncludes } from "../support/text.ts";
import { MemoryIo } from "./memory_io.ts";

const ROOT = new URL("../..", import.meta.url).pathname;
const PROBE = new URL("../support/permission_probe.ts", import.meta.url).pathname;
const MODEL = `${ROOT}demo/model`;
const posixTest = Deno.build.os === "windows" ? Deno.test.ignore : Deno.test;

posixTest(
  "serve answers on a port of its own, gives its rights back, and ends with Ctrl-C and 130",
  async () => {
    const command = config.tasks.serve.command.replace(
      "deno run",
      `exec deno run --no-check --preload=${PROBE}`,
    );
    const child = new Deno.Command("sh", {
      args: ["-c", `${command} "$@"`, "sh", "--base_model", MODEL, "--port", "0", "--json"],
      cwd: ROOT,
      env: { NO_COLOR: "1", INIT_CWD: ROOT },
      stdout: "piped",
      stderr: "piped",
    }).spawn();
    const err = new Response(child.stderr).text();
    const reader = child.stdout.pipeThrough(new TextDecoderStream()).getReader();
    let line = "";
    while (!line.includes("\n")) {
      const { done, value } = await reader.read();
      if (done) break;
      line += value;
    }
    assert(line.includes("\n"), `it ended: ${line.includes("\n") ? "" : await err}`);
    const { url, model } = JSON.parse(line);
    assertEquals([/^http:\/\/127\.0\.0\.1:\d+$/.test(url), model], [true, "model"]);
    const ask = (more: object) =>
      fetch(`${url}/v1/chat/completions`, {
        method: "POST",
        headers: { "content-type": "application/json" },
        body: JSON.stringify({
          messages: [{ role: "user", content: "the old lamp" }],
          ignore_eos: true,
          ...more,
        }),
      });
    const answer = await (await ask({ max_tokens: 4 })).json();
    assertEquals([answer.model, answer.usage.completion_tokens], ["model", 4]);
    const streaming = await ask({ max_tokens: 250, stream: true });
    const pieces = streaming.body!.pipeThrough(new TextDecoderStream()).getReader();
    let streamed = "";
    while (!streamed.includes('"content":"')) streamed += (await pieces.read()).value;
    child.kill("SIGINT");
    for (let piece = await pieces.read(); !piece.done; piece = await pieces.read()) streamed += piece.value;
    assert(/"code":"stopping"|data: \[DONE\]/.test(streamed), "the answer in flight has an end");
    await reader.cancel();
    const { code } = await child.status;
    const said = await err;
    assertEquals(code, 130, said);
    assertIncludes(said, `model answers on ${url}`);
    assertIncludes(said, "Stopped by Ctrl-C");
    assertIncludes(said, "PROBE net prompt hub prompt write prompt");
  },
);

Deno.test("serve refuses what would let others in, and a port that is taken, before it loads anything", async () => {
  using taken = Deno.listen({ hostname: "127.0.0.1", port: 0 });
  for (
    const [words, code, part] of [
      [["--host", "0.0.0.0"], 2, "--api_key"],
      [["--host", "example.org"], 2, "127.0.0.1"],
      [["--api_key", "short"], 2, "16 characters"],
      [["--port", `${(taken.addr as Deno.NetAddr).port}`], 1, "another program listens there"],
      [["--port", "0"], 1, "none"],
    ] as const
  ) {
    const io = new MemoryIo();
    assertEquals(await runCli(["serve", "--base_model", "/none/model", ...words], io), code, io.stderr);
    assertIncludes(io.stderr, part);
  }
});

posixTest("serve without the right to listen ends in one line that names the flag", async () => {
  const command = config.tasks.serve.command.replace(/ "--allow-net=.*?\)"/, "").replace(
    "deno run",
    "deno run --no-check",
  );
  const { code, stderr } = await new Deno.Command("sh", {
    args: ["-c", `${command} "$@"`, "sh", "--base_model", MODEL, "--port", "0"],
    cwd: ROOT,
    env: { NO_COLOR: "1", INIT_CWD: ROOT },
  }).output();
  const lines = new TextDecoder().decode(stderr).split("\n")
    .filter((line) => line !== "" && !line.startsWith("error: XDG_RUNTIME_DIR"));
  assertEquals([code, lines.length], [1, 1], lines.join("\n"));
  assertIncludes(lines[0]!, "--allow-net");
});
