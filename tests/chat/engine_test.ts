/** Answers are the model's, whatever was asked before, and end where they should. */
import { Engine, type EngineOptions } from "../../chat/engine.ts";
import { Tokenizer } from "../../data/tokenizer.ts";
import { Gpu } from "../../kernels/gpu.ts";
import { generate } from "../../model/generate.ts";
import { kvCacheBytes } from "../../model/kv_cache.ts";
import { openModel } from "../../model/load/open.ts";
import { assert, assertEquals, assertThrows } from "../support/assert_close.ts";
import { GOLDEN, withFolder } from "../support/files.ts";
import { integers } from "../support/random.ts";

const MHA = `${GOLDEN}/mha`;
const GREEDY = { temperature: 0, ignoreEnd: true } as const;

/** Runs `use` with an engine of the golden model, whose tokenizer has one token a byte. */
async function withEngine<T>(use: (engine: Engine) => Promise<T>, options: Partial<EngineOptions> = {}) {
  using engine = await Engine.open({ baseModel: MHA, chatTemplate: "no", ...options });
  return await use(engine);
}

/** A device that is closed when the test is over. */
async function openGpu() {
  const gpu = await Gpu.open();
  return Object.assign(gpu, { [Symbol.dispose]: () => gpu.close() });
}

const prompt = (length: number, seed: number) => [...integers(seed, length, 255)];

Deno.test("an answer is what the model writes on its own, also behind a prompt that begins like the one before", async () => {
  using gpu = await openGpu();
  const { model } = await openModel(gpu, { baseModel: MHA });
  const shared = prompt(20, 1);
  const prompts = [
    shared,
    [...shared, ...prompt(5, 2)],
    [...shared.slice(0, 9), ...prompt(30, 3)],
    prompt(3, 4),
  ];
  await withEngine(async (engine) => {
    for (const [i, ids] of prompts.entries()) {
      const wanted = await generate(model, ids, { temperature: 0, maxNewTokens: 12, stopIds: [] });
      const answer = await engine.answer(ids, { ...GREEDY, maxNewTokens: 12 });
      assertEquals(answer.text, engine.tokenizer.decode(wanted, { skipSpecial: true }), `prompt ${i}`);
      assertEquals([answer.promptTokens, answer.completionTokens, answer.finishReason], [
        ids.length,
        12,
        "length",
      ]);
      // Answers are kept too, but these prompts do not go on from them.
      assertEquals(answer.cachedTokens, [0, 20, 9, 0][i], `prompt ${i}`);
    }
    const [last] = [prompts.at(-1)!];
    const again = await engine.answer(last, { ...GREEDY, maxNewTokens: 12 });
    assertEquals(again.cachedTokens, last.length - 1, "all but the last token, which the answer begins from");
  });
});

Deno.test("a conversation that goes on reads the new turn alone", async () => {
  await withEngine(async (engine) => {
    const first = await engine.answer(prompt(10, 1), { ...GREEDY, maxNewTokens: 6 });
    const ids = [...prompt(10, 1), ...first.ids];
    const second = await engine.answer([...ids, ...prompt(4, 2)], { ...GREEDY, maxNewTokens: 6 });
    assertEquals(second.cachedTokens, 16);
  });
});

Deno.test("a cache of 8 bits, whole or rolling, saves the bytes that it should", async () => {
  using gpu = await openGpu();
  const { config } = await openModel(gpu, { baseModel: MHA });
  for (const sinks of [undefined, { startSize: 4, recentSize: 60 }]) {
    const bytes: number[] = [];
    const capacity = sinks ? 64 : 128;
    for (const cacheFormat of [undefined, "q8"] as const) {
      await withEngine(async (engine) => {
        await engine.answer(prompt(40, 1), { ...GREEDY, maxNewTokens: 30 });
        bytes.push(engine.memoryBytes);
      }, { cacheFormat, mostTokens: 128, ...(sinks ? { sinks } : {}) });
    }
    const [f32, q8] = (["f32", "q8"] as const).map((format) =>
      kvCacheBytes(config, { sequences: 1, capacity, format })
    );
    assertEquals(bytes[0]! - bytes[1]!, f32! - q8!);
  }
});

Deno.test("streamed pieces are the text; a seed repeats it, another does not", async () => {
  await withEngine(async (engine) => {
    const texts: string[] = [];
    for (const seed of [1, 1, 2]) {
      let streamed = "";
      const options = { temperature: 1, ignoreEnd: true, seed, maxNewTokens: 30 };
      const { text } = await engine.answer(prompt(8, 5), {
        ...options,
        onText: (piece) => streamed += piece,
      });
      assertEquals(streamed, text);
      texts.push(text);
    }
    assertEquals(texts[0], texts[1]);
    assert(texts[1] !== texts[2], "seeds 1 and 2");
  });
});

Deno.test("a stop text ends an answer, and the next one is not disturbed", async () => {
  await withEngine(async (engine) => {
    const options = { ...GREEDY, maxNewTokens: 40 };
    const whole = await engine.answer(prompt(8, 5), options);
    const stop = whole.text.slice(10, 12);
    const cut = await engine.answer(prompt(8, 5), { ...options, stop: [stop] });
    assertEquals([cut.text, cut.finishReason], [whole.text.slice(0, whole.text.indexOf(stop)), "stop"]);
    assertEquals((await engine.answer(prompt(8, 5), options)).text, whole.text);
  });
});

Deno.test("answers end at the tokens of config.json, generation_config.json and the tokenizer", () =>
  withFolder(async (folder) => {
    const ids = prompt(8, 5);
    using gpu = await openGpu();
    const { model } = await openModel(gpu, { baseModel: MHA });
    const wanted = await generate(model, ids, { temperature: 0, maxNewTokens: 20, stopIds: [] });
    const end = wanted.find((id, i) => i >= 2 && wanted.indexOf(id) === i)!;
    const word = (await Tokenizer.load(MHA)).tokenText(end);
    const changes = {
      "generation_config.json": { eos_token_id: [end] },
      "config.json": { eos_token_id: end },
      "tokenizer_config.json": { eos_token: word },
    };
    for (const [file, change] of Object.entries(changes)) {
      for (const name of ["model.safetensors", "tokenizer.json", "tokenizer_config.json", "config.json"]) {
        await Deno.copyFile(`${MHA}/${name}`, `${folder}/${name}`);
      }
      const text = await Deno.readTextFile(`${folder}/${file}`).catch(() => "{}");
      await Deno.writeTextFile(`${folder}/${file}`, JSON.stringify({ ...JSON.parse(text), ...change }));
      await withEngine(async (engine) => {
        const answer = await engine.answer(ids, { temperature: 0, maxNewTokens: 20 });
        const before = wanted.slice(0, wanted.indexOf(end));
        assertEquals(
          [answer.text, answer.finishReason, answer.completionTokens],
          [engine.tokenizer.decode(before, { skipSpecial: true }), "stop", before.length + 1],
          file,
        );
        const on = await engine.answer(ids, { ...GREEDY, maxNewTokens: 20 });
        assertEquals(on.completionTokens, 20, "ignoreEnd goes on behind it");
      }, { baseModel: folder });
      await Deno.remove(`${folder}/${file}`);
    }
  }));

Deno.test("a signal ends an answer while it is written and while the prompt is read", async () => {
  await withEngine(async (engine) => {
    const ending = new AbortController();
    const answer = await engine.answer(prompt(8, 5), {
      ...GREEDY,
      maxNewTokens: 50,
      signal: ending.signal,
      onText: () => ending.abort(),
    });
    assertEquals(answer.finishReason, "cancelled");
    assert(answer.completionTokens < 50 && answer.completionTokens > 0, `${answer.completionTokens}`);
    const read: number[] = [];
    const before = await engine.answer(prompt(50, 6), {
      ...GREEDY,
      maxNewTokens: 5,
      signal: AbortSignal.abort(),
      onPrompt: (done) => read.push(done),
    });
    assertEquals([before.text, before.completionTokens, before.finishReason], ["", 0, "cancelled"]);
    assertEquals(read, [], "pieces of the prompt");
    const after = await engine.answer(prompt(8, 5), { ...GREEDY, maxNewTokens: 5 });
    assertEquals(after.completionTokens, 5);
  });
});

Deno.test("a prompt that passes the context is refused with both lengths, and nothing is lost", async () => {
  await withEngine(async (engine) => {
    const { contextSize } = engine;
    await assertThrows(
      () => engine.answer(prompt(contextSize, 1), { maxNewTokens: 1 }),
      `${contextSize} tokens`,
      "the context of",
    );
    await assertThrows(() => engine.answer(prompt(8, 1), { maxNewTokens: contextSize }), "passes");
    await assertThrows(() => engine.answer(prompt(8, 1), { maxNewTokens: 4, topP: 3 }), "topP");
    const full = await engine.answer(prompt(contextSize - 3, 1), GREEDY);
    assertEquals([full.completionTokens, full.finishReason], [3, "length"]);
  });
});
