/** Conversations without end in a cache of fixed size. */
import { RollingCache, WholeCache, type WriteOptions } from "../../chat/cache.ts";
import { Engine } from "../../chat/engine.ts";
import { Gpu } from "../../kernels/gpu.ts";
import { openModel } from "../../model/load/open.ts";
import { assert, assertEquals, assertThrows } from "../support/assert_close.ts";
import { GOLDEN } from "../support/files.ts";
import { integers } from "../support/random.ts";

const MHA = `${GOLDEN}/mha`;
const GREEDY = { temperature: 0, stopIds: [] } as const;

/** Tokens that a cache writes behind a prompt. */
async function written(
  cache: RollingCache | WholeCache,
  prompt: readonly number[],
  options: WriteOptions,
): Promise<{ cached: number; ids: number[] }> {
  const ids: number[] = [];
  const cached = await cache.read(prompt, options.maxNewTokens, {});
  await cache.write({ ...options, onTokens: (drawn) => ids.push(...drawn) });
  return { cached, ids };
}

Deno.test("while nothing is forgotten, it writes what a whole cache writes, and keeps as much of it", async () => {
  using gpu = await Gpu.open();
  const { model } = await openModel(gpu, { baseModel: MHA });
  const [rolling, whole] = [
    new RollingCache(model, { startSize: 4, recentSize: 56 }),
    new WholeCache(model, 60),
  ];
  const first = [...integers(1, 12, 255)];
  const other = [...first.slice(0, 7), ...integers(2, 5, 255)];
  for (const prompt of [first, [...first, 1, 2, 3], other, other]) {
    const options = { ...GREEDY, maxNewTokens: 9 };
    assertEquals(await written(rolling, prompt, options), await written(whole, prompt, options));
  }
  rolling.free();
  whole.free();
});

Deno.test("prompts and answers may be many times as long as the cache; turns read what is new", async () => {
  using gpu = await Gpu.open();
  const { model } = await openModel(gpu, { baseModel: MHA });
  const rolling = new RollingCache(model, { startSize: 4, recentSize: 28 });
  const prompt = [...integers(1, 150, 255)];
  const answer = await written(rolling, prompt, { ...GREEDY, maxNewTokens: 100 });
  assertEquals([answer.cached, answer.ids.length], [0, 100]);
  const next = [...prompt, ...answer.ids, ...integers(2, 10, 255)];
  const turn = await written(rolling, next, { ...GREEDY, maxNewTokens: 5 });
  assertEquals([turn.cached, turn.ids.length], [250, 5]);
  // The place where it goes on was forgotten long ago.
  const back = await written(rolling, prompt.slice(0, 60), { ...GREEDY, maxNewTokens: 5 });
  assertEquals([back.cached, back.ids.length], [0, 5]);
  rolling.free();
});

Deno.test("what was forgotten does not matter, and the first tokens do", async () => {
  using gpu = await Gpu.open();
  const { model } = await openModel(gpu, { baseModel: MHA });
  const texts = async (prompt: readonly number[]) => {
    const rolling = new RollingCache(model, { startSize: 4, recentSize: 28 });
    const { ids } = await written(rolling, prompt, { ...GREEDY, maxNewTokens: 6 });
    rolling.free();
    return ids.join();
  };
  const prompt = [...integers(1, 400, 255)];
  const changed = (at: number) => prompt.map((id, i) => i === at ? (id + 1) % 255 : id);
  assertEquals(await texts(prompt), await texts(prompt), "the same again");
  assertEquals(await texts(prompt), await texts(changed(4)), "the first token that is forgotten");
  assert(await texts(prompt) !== await texts(changed(399)), "the last token");
  assert(await texts(prompt) !== await texts(changed(0)), "the first token");
});

Deno.test("an answer goes on beyond the context; a seed repeats it, and random numbers do not come again", async () => {
  const open = () =>
    Engine.open({ baseModel: MHA, chatTemplate: "no", sinks: { startSize: 4, recentSize: 40 } });
  const texts: string[] = [];
  for (let i = 0; i < 2; i++) {
    using engine = await open();
    const { text, completionTokens } = await engine.answer([...integers(1, 90, 255)], {
      // Nearly uniform: what is drawn shows the random numbers.
      temperature: 100,
      topP: 1,
      seed: 3,
      ignoreEnd: true,
      maxNewTokens: 200,
    });
    assertEquals(completionTokens, 200);
    texts.push(text);
  }
  assertEquals(texts[0], texts[1]);
  assert(!texts[0]!.slice(0, -20).includes(texts[0]!.slice(-20)), "a period");
});

Deno.test("a cache that passes the context is refused", async () => {
  await assertThrows(
    () => Engine.open({ baseModel: MHA, chatTemplate: "no", sinks: { startSize: 4, recentSize: 100 } }),
    "The first 4 and the last 100 tokens",
    "the context of 64",
  );
});
