/** Adapters whose embeddings have more tokens than the base: LongLoRA's have a padding token more. */
import { toF32 } from "../../checkpoint/dtype.ts";
import {
  type Adapter,
  adapterConfig,
  readAdapter,
  readExtraShapes,
  writeAdapter,
} from "../../checkpoint/peft.ts";
import { openWeights } from "../../checkpoint/weights.ts";
import { Gpu } from "../../kernels/gpu.ts";
import { makeBatch } from "../../model/batch.ts";
import { readConfig } from "../../model/config.ts";
import { mergeAdapter } from "../../export/merge.ts";
import { openModel } from "../../model/load/open.ts";
import { adaptBase, grownWeights, withVocabularyOf } from "../../model/load/vocabulary.ts";
import { assertClose, assertEquals, assertThrows } from "../support/assert_close.ts";
import { withFolder } from "../support/files.ts";
import { normal } from "../support/random.ts";
import { changedWeights, load, logitsOf, sequence, smallConfig } from "./support.ts";

const BASE = "tests/golden/mha";

/** The golden adapter with embeddings of two tokens more, in a folder. */
async function grownAdapter(folder: string, rows: number): Promise<void> {
  await Deno.mkdir(folder);
  const adapter = await readAdapter("tests/golden/adapter");
  const { hidden_size } = await readConfig(BASE);
  const data = normal(5, rows * hidden_size, 0.1);
  await writeAdapter(folder, {
    ...adapter,
    extra: new Map([["model.embed_tokens.weight", { shape: [rows, hidden_size], data, dtype: "F32" }]]),
  });
}

Deno.test("grownWeights() adds rows that are the mean, whatever range is read, and leaves all else alone", async () => {
  const config = await readConfig(BASE);
  const weights = await openWeights(BASE);
  const grown = grownWeights(weights, { ...config, vocab_size: config.vocab_size + 3 });
  const head = toF32(await grown.read("lm_head.weight"), grown.info("lm_head.weight").dtype);
  const [rows, width] = grown.info("lm_head.weight").shape as [number, number];
  assertEquals([rows, head.length], [config.vocab_size + 3, rows * width]);
  const mean = Float64Array.from({ length: width }, (_, c) => {
    let sum = 0;
    for (let row = 0; row < config.vocab_size; row++) sum += head[row * width + c]!;
    return sum / config.vocab_size;
  });
  for (const row of [rows - 3, rows - 1]) {
    assertClose(`row ${row}`, head.subarray(row * width, (row + 1) * width), mean, {
      rtol: 1e-6,
      atol: 1e-8,
    });
  }
  // A range that begins before the added rows and ends inside one of them, off any boundary.
  const bytes = await grown.read("lm_head.weight");
  const part = new Uint8Array(4 * width + 12);
  await grown.readInto("lm_head.weight", bytes.length - part.length - 8, part);
  assertEquals(part, bytes.slice(bytes.length - part.length - 8, bytes.length - 8));
  assertEquals(grown.info("model.norm.weight"), weights.info("model.norm.weight"));
  grown.close();
});

Deno.test("An adapter with more tokens runs and merges, with the same head in both", async () => {
  await withFolder(async (folder) => {
    const { vocab_size } = await readConfig(BASE);
    await grownAdapter(`${folder}/adapter`, vocab_size + 1);
    const ids = Uint32Array.of(5, 80, vocab_size, 9, 33, vocab_size, 2);
    using gpu = await Gpu.open({ poison: true });
    const logitsOf = async (options: { baseModel: string; peftModel?: string }) => {
      const { model } = await openModel(gpu, { ...options, quantisation: "none", contextSize: 64 });
      assertEquals(model.config.vocab_size, vocab_size + 1);
      return await model.logits(model.upload(makeBatch([{ inputIds: ids }])));
    };
    const apart = await logitsOf({ baseModel: BASE, peftModel: `${folder}/adapter` });
    await mergeAdapter({
      baseModel: BASE,
      peftModel: `${folder}/adapter`,
      contextSize: 64,
      savePath: `${folder}/merged`,
      dtype: "fp32",
      maxShardSize: 5e9,
      quantisation: "none",
    });
    assertEquals((await readConfig(`${folder}/merged`)).vocab_size, vocab_size + 1);
    const { shape } = (await readExtraShapes(`${folder}/adapter`)).get("model.embed_tokens.weight")!;
    assertEquals(shape[0], vocab_size + 1, "the rows, from the header alone");
    const merged = await logitsOf({ baseModel: `${folder}/merged` });
    assertClose("logits", merged, apart, { rtol: 1e-4, atol: 1e-4 });
  });
});

Deno.test("withVocabularyOf() refuses adapters of another base", async () => {
  const config = await readConfig(BASE);
  const tables = (...sizes: [string, number][]) =>
    new Map(
      sizes.map((
        [name, rows],
      ) => [name, { shape: [rows, 4], data: new Float32Array(4 * rows), dtype: "F32" as const }]),
    );
  const embed = "model.embed_tokens.weight";
  assertEquals(withVocabularyOf(config, undefined), config);
  assertEquals(withVocabularyOf(config, tables([embed, 300])).vocab_size, 300);
  await assertThrows(() => withVocabularyOf(config, tables([embed, 10])), "of 10 tokens", "another base");
  await assertThrows(
    () => withVocabularyOf(config, tables([embed, 300], ["lm_head.weight", 299])),
    "embeddings of 300 tokens and a head of 299",
  );
});

Deno.test("A table of a tied base that an adapter trained alone is parted from the other, as PEFT does", async () => {
  const base = smallConfig({ tie_word_embeddings: true });
  const rows = base.vocab_size + 2;
  const [embeddings, head] = ["model.embed_tokens.weight", "lm_head.weight"];
  const table = (seed: number, count = rows) => ({
    shape: [count, base.hidden_size],
    data: normal(seed, count * base.hidden_size, 0.2),
    dtype: "F32" as const,
  });
  const adapterOf = (extra: Record<string, ReturnType<typeof table>>, settings = {}): Adapter => ({
    config: adapterConfig({ r: 2, lora_alpha: 2, target_modules: ["q_proj"], ...settings }),
    lora: new Map(),
    extra: new Map(Object.entries(extra)),
  });
  const whole = { modules_to_save: ["embed_tokens", "lm_head"] };
  const [one, other] = [table(1), table(2)];
  const tied = (adapter: Adapter) => {
    const { config, adapter: adapted, notes } = adaptBase(base, adapter);
    return [config.vocab_size, config.tie_word_embeddings, [...adapted!.extra.keys()], notes.length];
  };
  const shared = [rows, true, [embeddings], 0];
  assertEquals(tied(adapterOf({ [embeddings]: one }, { ...whole, ensure_weight_tying: true })), shared);
  // LoRA besides, and the embeddings saved since they were resized.
  assertEquals(tied(adapterOf({ [embeddings]: one })), shared);
  assertEquals(tied(adapterOf({ [head]: one })), shared);
  assertEquals(tied(adapterOf({ [embeddings]: one, [head]: table(1) }, whole)), shared, "the same values");
  assertEquals(tied(adapterOf({ [embeddings]: one, [head]: other }, whole)), [
    rows,
    false,
    [embeddings, head],
    0,
  ]);
  assertEquals(tied(adapterOf({ [embeddings]: one }, whole)), [rows, false, [embeddings], 1]);
  assertEquals(tied(adapterOf({ [head]: one }, whole)), [rows, false, [head], 1]);
  assertEquals(tied(adapterOf({ "model.norm.weight": table(3, 1) }, whole)), [base.vocab_size, true, [
    "model.norm.weight",
  ], 0]);
  await assertThrows(() => tied(adapterOf({ [embeddings]: one, [head]: other })), embeddings, head, "differ");
  const apart = smallConfig();
  await assertThrows(
    () => adaptBase(apart, adapterOf({ [embeddings]: one }, whole)),
    '"lm_head"',
    "are missing",
  );
  const both = adaptBase(apart, adapterOf({ [embeddings]: one, [head]: other }, whole));
  assertEquals([both.config.vocab_size, both.config.tie_word_embeddings, both.notes], [rows, false, []]);

  // Both tables, the one that is kept with the mean for its new rows.
  using gpu = await Gpu.open({ poison: true });
  const stored = changedWeights(base);
  const named = await Promise.all(
    [...stored.names()].map(async (name) => ({ name, data: toF32(await stored.read(name), "F32") })),
  );
  const kept = named.find(({ name }) => name === embeddings)!.data;
  const mean = Array.from({ length: base.hidden_size }, (_, c) => {
    let sum = 0;
    for (let row = 0; row < base.vocab_size; row++) sum += kept[row * base.hidden_size + c]!;
    return sum / base.vocab_size;
  });
  const headOf = { name: head, data: Float32Array.from([...kept, ...mean, ...mean]) };
  const all = [
    ...named.filter(({ name }) => name !== embeddings),
    { name: embeddings, data: one.data },
    headOf,
  ];
  const untied = smallConfig({ vocab_size: rows });
  const changes = all.map(({ name, data }) => ({ name, values: (values: Float32Array) => values.set(data) }));
  const expected = await load(gpu, untied, changedWeights(untied, { changes }));
  const { config, adapter } = adaptBase(base, adapterOf({ [embeddings]: one }, whole));
  const actual = await load(gpu, config, grownWeights(stored, config, base), {
    replacements: adapter!.extra,
  });
  const tokens = [{ inputIds: Uint32Array.of(3, rows - 1, 7, rows - 2, 11) }, sequence(untied, 9)];
  assertClose("logits", await logitsOf(actual, tokens), await logitsOf(expected, tokens), {
    rtol: 1e-5,
    atol: 1e-6,
  });
});
