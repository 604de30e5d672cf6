/** Evaluations by prompts as command lines, on the demo's model. */
import { runCli } from "../../cli/main.ts";
import { assert, assertEquals } from "../support/assert_close.ts";
import { namesIn, withFolder } from "../support/files.ts";
import { assertIncludes } from "../support/text.ts";
import { MemoryIo } from "./memory_io.ts";

async function run(line: string): Promise<{ code: number; io: MemoryIo }> {
  const io = new MemoryIo();
  return { code: await runCli(line.split(" "), io), io };
}

const PASSKEY = "passkey --base_model demo/model --wording demo/passkey.json --test_length 96,256 " +
  "--test_depth 0,100 --num_tests 2 --max_new_tokens 2";

Deno.test("passkey: the demo's model finds its keys; results stay, and a stopped run goes on to the same", async () => {
  await withFolder(async (folder) => {
    const line = `${PASSKEY} --output_dir ${folder}/out`;
    const first = await run(line);
    assertEquals(first.code, 0, first.io.stderr);
    assertIncludes(first.io.stdout, "keys found 100.0 %; 8 trials");
    assertIncludes(first.io.stderr, "token 1408/1408");
    assertEquals(namesIn(`${folder}/out`).filter((name) => !name.startsWith(".")), [
      "heat_map.svg",
      "report.html",
      "results.json",
      "results.jsonl",
    ]);
    const path = `${folder}/out/results.jsonl`;
    const whole = await Deno.readTextFile(path);
    const lines = whole.split("\n");
    await Deno.writeTextFile(path, `${lines.slice(0, 5).join("\n")}\n${lines[5]!.slice(0, 20)}`);
    const again = await run(`${line} --json`);
    assertEquals(again.code, 0, again.io.stderr);
    assertIncludes(again.io.stderr, "4 of 8 trials are in");
    assertIncludes(again.io.stderr, "token 1024/1024");
    const timeless = (text: string) => text.replaceAll(/"seconds":[\d.e-]+/g, "");
    assertEquals(timeless(await Deno.readTextFile(path)), timeless(whole));
    const result = JSON.parse(again.io.stdout);
    assertEquals([result.accuracy, result.rows, result.cells.length], [1, 8, 4]);
    assertEquals(
      [result.settings.base_model, result.settings.protocol, result.settings.chat_template],
      ["demo/model", "tokens", "no"],
    );
    assertEquals(result.by_length.map((cell: { length: number }) => cell.length), [96, 256]);
    // Longer and more of the same settings is added; another seed is another measurement.
    const other = await run(`${line} --seed 5`);
    assertEquals(other.code, 2);
    assertIncludes(other.io.stderr, "seed was 123, is 5");
    const more = await run(`${line.replace("num_tests 2", "num_tests 3")} --test_length 96`);
    assertIncludes(more.io.stderr, "4 of 6 trials are in");
  });
});

Deno.test("passkey --beyond_context measures an untouched model past its length; LongLoRA's protocol has a row a length", async () => {
  await withFolder(async (folder) => {
    const beyond = await run(
      `${PASSKEY} --output_dir ${folder}/a --beyond_context --test_length 128,640 --test_depth 0 --json`,
    );
    assertEquals(beyond.code, 0, beyond.io.stderr);
    const { cells, settings } = JSON.parse(beyond.io.stdout);
    assertEquals([cells[0].accuracy, cells[1].prompt_tokens > 600, settings.beyond_context], [1, true, true]);
    const words = "--context_size 1024 --protocol longlora --max_tokens 600 --interval 300 --num_tests 2";
    const line =
      `passkey --base_model demo/model --wording demo/passkey.json --output_dir ${folder}/b ${words}`;
    const { code, io } = await run(line);
    assertEquals(code, 0, io.stderr);
    assert(/^ +300 +\d+ +\d+$/m.test(io.stdout) && /^ +600 +\d+ +\d+$/m.test(io.stdout), io.stdout);
    assertIncludes(await Deno.readTextFile(`${folder}/b/heat_map.svg`), ">drawn</text>");
  });
});

Deno.test("passkey refuses what would measure nothing, in one message", async () => {
  await withFolder(async (folder) => {
    const line = `${PASSKEY} --output_dir ${folder}/out`;
    const cases: [string, number, string][] = [
      [line.replace(" --wording demo/passkey.json", ""), 2, "does not know"],
      [line.replace("96,256", "96,512"), 2, "Cannot measure 512 tokens: the model is made for 256"],
      [line.replace("--test_length 96,256", "--beyond_context"), 2, "needs --test_length or --max_length"],
      [`${line} --interval 100`, 2, "--interval is for --protocol longlora"],
      [`${line} --protocol longlora`, 2, "--test_length is for --protocol tokens"],
      [line.replace("demo/passkey.json", `${folder}/none.json`), 1, "none.json"],
      [line.replace("0,100", "0,101"), 2, "--test_depth"],
    ];
    for (const [bad, code, part] of cases) {
      const { code: actual, io } = await run(bad);
      assertEquals([actual, io.stdout], [code, ""], bad);
      assertIncludes(io.stderr, part);
    }
    assert(!namesIn(folder).includes("out"), "nothing was written");
  });
});

Deno.test("needle: a table and a picture of each score; the haystack is part of what results are of", async () => {
  await withFolder(async (folder) => {
    const { filler } = JSON.parse(await Deno.readTextFile("demo/passkey.json"));
    await Deno.mkdir(`${folder}/texts`);
    await Deno.writeTextFile(`${folder}/texts/a.txt`, filler.join(" "));
    const wording = {
      task: "",
      needles: ["the password lantern hurries ."],
      answers: ["lantern"],
      question: "the old farmer walks to password",
    };
    await Deno.writeTextFile(`${folder}/wording.json`, JSON.stringify(wording));
    const line =
      `needle --base_model demo/model --haystack ${folder}/texts --wording ${folder}/wording.json ` +
      `--test_length 128,250 --test_depth 50 --num_tests 2 --max_new_tokens 2 --output_dir ${folder}/out`;
    const { code, io } = await run(line);
    assertEquals(code, 0, io.stderr);
    assertIncludes(io.stdout, "answers found 100.0 %, ROUGE-L ");
    assertIncludes(io.stdout, "Needle in a haystack: ROUGE-L");
    assertEquals(namesIn(`${folder}/out`).filter((name) => /svg|html/.test(name)), [
      "heat_map.svg",
      "report.html",
      "rouge.svg",
    ]);
    await Deno.writeTextFile(`${folder}/texts/b.txt`, filler[0]);
    const other = await run(line);
    assertEquals([other.code, other.io.stdout], [2, ""]);
    assertIncludes(other.io.stderr, "haystack was ");
    assertIncludes(
      (await run(`${line} --num_needles 2`)).io.stderr,
      "--num_needles is for sentences of ours",
    );
    assertIncludes((await run(line.replace("/texts", "/none"))).io.stderr, "/none");
  });
});

Deno.test("longbench: scores by task and category, answers in LongBench's own files, scored again to the same", async () => {
  await withFolder(async (folder) => {
    const { filler } = JSON.parse(await Deno.readTextFile("demo/passkey.json"));
    const row = (key: string) => ({
      context: `password ${key} hurries . ${filler.join(" ")}`,
      input: "the old farmer walks to password",
      answers: [key],
      all_classes: null,
      length: 200,
    });
    const rows = ["lantern", "amber"].map((key) => `${JSON.stringify(row(key))}\n`).join("");
    await Deno.writeTextFile(`${folder}/triviaqa.jsonl`, rows);
    await Deno.writeTextFile(`${folder}/prompts.json`, JSON.stringify({ triviaqa: "{context} {input}" }));
    const line = `longbench --base_model demo/model --eval_data ${folder} --tasks triviaqa --prompts ` +
      `${folder}/prompts.json --output_dir ${folder}/out`;
    const { code, io } = await run(`${line} --json`);
    assertEquals(code, 0, io.stderr);
    assertIncludes(io.stderr, "question 2/2");
    const result = JSON.parse(io.stdout);
    assertEquals([result.tasks.length, result.tasks[0].task, result.tasks[0].rows], [1, "triviaqa", 2]);
    assert(result.average > 0, "one word of an answer is the key");
    const again = await run(`longbench --load_result ${folder}/out`);
    assertIncludes(again.io.stdout, `average over tasks ${result.average.toFixed(2)}`);
    const bad: [string, string][] = [
      [line.replace("triviaqa", "trivia"), "did you mean triviaqa?"],
      [line.replace("triviaqa", "lcc"), "lcc.jsonl"],
      [`${line} --max_length 250`, "pass the model's context of 256"],
      ["longbench --tasks lcc", "needs --base_model and --eval_data, or --load_result alone"],
    ];
    for (const [words, part] of bad) {
      const { code, io } = await run(words.replace("/out", "/other"));
      assertEquals([code, io.stdout], [2, ""], words);
      assertIncludes(io.stderr, part);
    }
  });
});

Deno.test("topic, infbench and mmlu: a table or JSON, results in their folder, refusals in one message", async () => {
  await withFolder(async (folder) => {
    const { filler } = JSON.parse(await Deno.readTextFile("demo/passkey.json"));
    const context = `password lantern hurries . ${filler.slice(0, 9).join(" ")}`;
    const write = (name: string, row: unknown) =>
      Deno.writeTextFile(`${folder}/${name}`, `${JSON.stringify(row)}\n`);
    await write("topics.json", {
      context,
      question: "the baker walks to password",
      topics: ["lantern"],
      num_topics: 5,
    });
    await write("kv_retrieval.jsonl", { context, input: "password", answer: "lantern" });
    await write("prompts.json", { kv_retrieval: "{context} the baker walks to {input}" });
    const choices = ["lantern", "amber", "anchor", "comet"];
    await write("mmlu.json", { query: "password", subject: "virology", choices, answer: 0 });
    const base = `--base_model demo/model --output_dir ${folder}`;
    const topic = await run(`topic ${base}/topic --eval_data ${folder}/topics.json`);
    assertEquals(topic.code, 0, topic.io.stderr);
    assert(/^ +5 +\d+ +1 +100\.0 %/m.test(topic.io.stdout), topic.io.stdout);
    const infbench = await run(
      `infbench ${base}/infbench --eval_data ${folder} --tasks kv_retrieval --prompts ${folder}/prompts.json --json`,
    );
    assertEquals(infbench.code, 0, infbench.io.stderr);
    assertEquals(JSON.parse(infbench.io.stdout).average, 1);
    // The golden model knows every byte, the demo's not these letters; both are far from knowing the answer.
    const mmlu = await run(
      `mmlu ${
        base.replace("demo/model", "tests/golden/mha")
      }/mmlu --eval_data ${folder}/mmlu.json --context_size 256`,
    );
    assertEquals(mmlu.code, 0, mmlu.io.stderr);
    assert(
      /^virology +1 +(0|100)\.00 %/m.test(mmlu.io.stdout) && /^All +(0|100)\.00 %/m.test(mmlu.io.stdout),
      mmlu.io.stdout,
    );
    for (const name of ["topic", "infbench", "mmlu"]) {
      assertEquals(namesIn(`${folder}/${name}`).filter((file) => !file.startsWith(".")), [
        "results.json",
        "results.jsonl",
      ]);
    }
    const short = await run(
      `mmlu ${base.replace("demo/model", "tests/golden/mha")}/x --eval_data ${folder}/mmlu.json`,
    );
    assertIncludes(short.io.stderr, "and the model is made for 64");
    const unknown = await run(`mmlu ${base}/x --eval_data ${folder}/mmlu.json`);
    assertIncludes(unknown.io.stderr, "does not know");
  });
});
