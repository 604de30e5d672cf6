/** `inference` and `chat` as people call them. */
import { openEngine } from "../../cli/answer_flags.ts";
import { runCli } from "../../cli/main.ts";
import { assert, assertEquals } from "../support/assert_close.ts";
import { withFolder } from "../support/files.ts";
import { assertIncludes } from "../support/text.ts";
import { MemoryIo } from "./memory_io.ts";

const ROOT = new URL("../..", import.meta.url).pathname;
const MODEL = `${ROOT}demo/model`;
const BASE = ["--base_model", MODEL, "--temperature", "0", "--max_gen_len", "8"];

async function run(...words: string[]): Promise<{ code: number; io: MemoryIo }> {
  const io = new MemoryIo();
  return { code: await runCli(words, io), io };
}

Deno.test("inference goes on from a text; --json has all that was counted", async () => {
  const words = ["inference", ...BASE, "--prompt", "signal meteor moves ."];
  const { code, io } = await run(...words);
  assertEquals(code, 0);
  assertEquals(io.stdout.trim().split(" ").length, 8, io.stdout);
  assertIncludes(io.stderr, "answer 8 tokens");
  const json = await run(...words, "--json", "--seed", "7");
  const result = JSON.parse(json.io.stdout);
  assertEquals(result.text, io.stdout.trim(), "greedy is the same again");
  assertEquals(
    [result.finish_reason, result.prompt_tokens, result.cached_tokens, result.completion_tokens, result.seed],
    ["length", 5, 0, 8, 7],
  );
});

Deno.test("--kv_cache_dtype q8 writes with a smaller cache", async () => {
  const bytes: number[] = [];
  for (const kv_cache_dtype of [null, "q8"] as const) {
    using engine = await openEngine(new MemoryIo(), {
      base_model: MODEL,
      peft_model: null,
      context_size: null,
      load_in_4bit: false,
      dtype: "fp32",
      chat_template: null,
      webgpu: "deno",
      kv_cache_dtype,
    });
    await engine.answer(engine.tokenizer.encode("signal meteor moves ."), { maxNewTokens: 2 });
    bytes.push(engine.memoryBytes);
  }
  // 2 x 4 layers of 256 rows with 4 heads of 32: 4 bytes an element, or 1 and a scale of 4 for each head.
  assertEquals(bytes[0]! - bytes[1]!, 2 * 4 * 256 * 4 * (4 * 32 - (32 + 4)));
  const words = ["inference", ...BASE, "--prompt", "signal meteor moves .", "--kv_cache_dtype"];
  const { code, io } = await run(...words, "q8");
  assertEquals(code, 0);
  assertEquals(io.stdout.trim().split(" ").length, 8, io.stdout);
  const refused = await run(...words, "int4");
  assertEquals(refused.code, 2);
  assertIncludes(refused.io.stderr, "fp32, bf16, fp16, q8");
});

Deno.test("inference puts a document before its question, and counts both against the context", () =>
  withFolder(async (folder) => {
    await Deno.writeTextFile(`${folder}/book.txt`, "signal meteor moves . ".repeat(40));
    const ask = (...more: string[]) =>
      run("inference", ...BASE, "--material", `${folder}/book.txt`, "--question", "token", ...more, "--json");
    const { io } = await ask();
    assertEquals(JSON.parse(io.stdout).prompt_tokens, 162);
    const { code, io: refused } = await ask("--max_gen_len", "200");
    assertEquals(code, 2);
    assertIncludes(JSON.parse(refused.stdout).error.message, "162 tokens");
    assertIncludes(refused.stderr, "the context of 256");
  }));

Deno.test("an answer of no given length ends where the context does", async () => {
  const words = ["inference", "--base_model", MODEL, "--temperature", "0", "--json"];
  const { code, io } = await run(...words, "--prompt", "signal meteor moves . ".repeat(62));
  assertEquals(code, 0, io.stderr);
  const { prompt_tokens, completion_tokens, finish_reason } = JSON.parse(io.stdout);
  assertEquals([prompt_tokens, completion_tokens, finish_reason], [249, 7, "length"]);
});

Deno.test("words that the tokenizer does not know are counted, and refused where they are most", async () => {
  const some = await run("inference", ...BASE, "--prompt", "Hello signal meteor moves .");
  assertEquals(some.code, 0);
  assertIncludes(some.io.stderr, "1 of 6 tokens of the prompt (17 %) are");
  const most = await run("inference", ...BASE, "--prompt", "Hello World");
  assertEquals([most.code, most.io.stdout], [1, ""]);
  assertIncludes(most.io.stderr, "Cannot use the prompt: 2 of 3 tokens");
  const chat = new MemoryIo({ input: ["Hello World", "signal meteor moves ."] });
  assertEquals(await runCli(["chat", ...BASE], chat), 0);
  assertIncludes(chat.stderr, "Cannot use the conversation: 2 of 3 tokens");
  assertEquals(chat.stdout.trim().split("\n").length, 1, "the chat lives on");
});

Deno.test("inference wants a question or a text, and says which file is missing", async () => {
  for (const words of [[], ["--prompt", "a", "--question", "b"], ["--prompt", "a", "--material", "c.txt"]]) {
    const { code, io } = await run("inference", ...BASE, ...words);
    assertEquals(code, 2);
    assertIncludes(io.stderr, "inference needs --question");
  }
  const { code, io } = await run("inference", ...BASE, "--question", "a", "--material", "nope.txt");
  assertEquals(code, 1);
  assertIncludes(io.stderr, "nope.txt");
  const template = await run("inference", ...BASE, "--question", "a", "--chat_template", "llama-3");
  assertIncludes(template.io.stderr, "<|eot_id|>");
});

Deno.test("chat answers each line of its input, obeys its commands, and lives on after a mistake", () =>
  withFolder(async (folder) => {
    await Deno.writeTextFile(`${folder}/book.txt`, "signal meteor moves .");
    const lines = [
      `/file ${folder}/book.txt`,
      "signal meteor",
      "/hlep",
      "/file",
      "/load nope.json",
      `/save ${folder}/talk.json`,
      "/reset",
      "/stats",
      "/system Be brief.",
      "/stats",
      `/load ${folder}/talk.json`,
      "/stats",
      "token",
      "/exit",
      "not read",
    ];
    const io = new MemoryIo({ input: lines });
    assertEquals(await runCli(["chat", ...BASE], io), 0);
    const [out, err] = [io.stdout, io.stderr];
    const answers = out.trimEnd().split("\n");
    assertEquals(answers.length, 2, out);
    for (
      const part of [
        "book.txt: 4 tokens of 256",
        "did you mean /help?",
        "/file needs a path",
        "nope.json",
        "Saved in",
        "Forgotten",
        "0 messages,",
        "1 messages,",
        "2 messages",
      ]
    ) assertIncludes(err, part);
    assert(err.indexOf("0 messages,") < err.lastIndexOf("2 messages,"), err);
    assertEquals(JSON.parse(await Deno.readTextFile(`${folder}/talk.json`)).messages, [
      { role: "user", content: "signal meteor moves .\nsignal meteor" },
      { role: "assistant", content: answers[0] },
    ]);
  }));

Deno.test("lines that come while a document is still read are not lost", async () => {
  const script = `
    import { terminalIo } from ${JSON.stringify(new URL("../../cli/io.ts", import.meta.url).href)};
    const io = terminalIo();
    const lines = io.lines({ prompt: "> ", complete: () => [], onInterrupt() {} });
    await new Promise((resolve) => setTimeout(resolve, 300));
    for await (const line of lines) io.out(line);
  `;
  const process = new Deno.Command("deno", {
    args: ["eval", "--no-check", `--config=${ROOT}deno.json`, script],
    stdin: "piped",
    stdout: "piped",
  }).spawn();
  const writer = process.stdin.getWriter();
  await writer.write(new TextEncoder().encode("one\ntwo\n"));
  await writer.close();
  const { stdout } = await process.output();
  assertEquals(new TextDecoder().decode(stdout), "one\ntwo\n");
});

Deno.test("with --enable_streaming text and conversation pass the context", async () => {
  const streaming = ["--enable_streaming", "--start_size", "4", "--recent_size", "100"];
  const { code, io } = await run(
    "inference",
    ...BASE,
    ...streaming,
    "--prompt",
    "signal ".repeat(400),
    "--max_gen_len",
    "300",
    "--json",
  );
  assertEquals(code, 0, io.stderr);
  const { prompt_tokens, completion_tokens } = JSON.parse(io.stdout);
  assert(prompt_tokens > 256 && completion_tokens > 256 - 16, io.stdout);
  const talk = new MemoryIo({ input: ["signal ".repeat(200), "meteor ".repeat(200)] });
  assertEquals(await runCli(["chat", ...BASE, ...streaming], talk), 0);
  assertEquals(talk.stderr.match(/answer \d+ tokens/g)?.length, 2, talk.stderr);
  const wide = await run("inference", ...BASE, "--prompt", "signal", "--enable_streaming");
  assertEquals(wide.code, 2);
  assertIncludes(wide.io.stderr, "lower recent_size");
});

Deno.test("chat --compare lets the base answer beside the adapter, beyond its own context too", async () => {
  const [model, adapter] = ["mha", "adapter"].map((name) => `${ROOT}tests/golden/${name}`) as [
    string,
    string,
  ];
  const io = new MemoryIo({ input: ["a".repeat(80), "/stats"] });
  const flags = ["--temperature", "0", "--max_gen_len", "4", "--context_size", "128", "--compare"];
  assertEquals(
    await runCli(["chat", "--base_model", model, "--peft_model", adapter, ...flags], io),
    0,
    io.stderr,
  );
  const [base, extended] = [io.stderr.indexOf("base:"), io.stderr.indexOf("extended:")];
  assert(base >= 0 && extended > base, io.stderr);
  assertEquals(io.stderr.match(/answer 4 tokens/g)?.length, 2);
  const answers = io.stdout.trimEnd().split("\n");
  assert(answers.length === 2 && answers[0] !== answers[1], io.stdout);
  assertEquals(io.stderr.match(/of 128 tokens/g)?.length, 2);
});

Deno.test("chat --compare needs an adapter to compare with", async () => {
  const { code, io } = await run("chat", ...BASE, "--compare");
  assert(code !== 0, "exit code");
  assertIncludes(io.stderr, "--peft_model");
});
