/** Checkpoints whose head is the table of embeddings, or should be: one name, the other, both, or none. */
import { gguf } from "@huggingface/gguf";
import { fromF32, toF32 } from "../../checkpoint/dtype.ts";
import { writeModel } from "../../checkpoint/save_model.ts";
import { openWeights } from "../../checkpoint/weights.ts";
import { Gpu } from "../../kernels/gpu.ts";
import { convertToBnb4 } from "../../export/bnb4.ts";
import { readConfig } from "../../model/config.ts";
import { convertToGguf } from "../../export/gguf.ts";
import { tableNotes } from "../../model/load/model_weights.ts";
import { openModel } from "../../model/load/open.ts";
import { assert, assertEquals, assertThrows } from "../support/assert_close.ts";
import { GOLDEN, namesIn, withFolder } from "../support/files.ts";
import { assertIncludes } from "../support/text.ts";
import { logitsOf, sequence } from "./support.ts";

/** A tied model: no head in its files. */
const TIED = `${GOLDEN}/gqa`;
const EMBEDDINGS = "model.embed_tokens.weight";
const HEAD = "lm_head.weight";

type Tables = Readonly<Record<string, (values: Float32Array) => Float32Array>>;

/** Writes the tied model with these tables in place of its own, each made from that. */
async function write(folder: string, tables: Tables, changes: Readonly<Record<string, unknown>> = {}) {
  await Deno.mkdir(folder);
  const weights = await openWeights(TIED);
  const own = toF32(await weights.read(EMBEDDINGS), weights.info(EMBEDDINGS).dtype);
  const source = (name: string, from: string, values: () => Promise<Float32Array>) => ({
    name,
    dtype: "F32" as const,
    shape: weights.info(from).shape,
    read: async () => fromF32(await values(), "F32"),
  });
  const others = [...weights.names()].filter((name) => name !== EMBEDDINGS);
  const tensors = [
    ...Object.entries(tables).map(([name, make]) =>
      source(name, EMBEDDINGS, () => Promise.resolve(make(own)))
    ),
    ...others.map((name) =>
      source(name, name, async () => toF32(await weights.read(name), weights.info(name).dtype))
    ),
  ];
  const { rope_scaling: _, ...config } = JSON.parse(await Deno.readTextFile(`${TIED}/config.json`));
  await writeModel(folder, { config: { ...config, ...changes }, tensors });
  for (const name of namesIn(TIED).filter((name) => name.startsWith("tokenizer"))) {
    await Deno.copyFile(`${TIED}/${name}`, `${folder}/${name}`);
  }
  weights.close();
}

const same = (values: Float32Array) => values;
const doubled = (values: Float32Array) => values.map((value) => 2 * value);

async function logits(folder: string): Promise<number[]> {
  using gpu = await Gpu.open({ poison: true });
  const { model, config } = await openModel(gpu, { baseModel: folder, quantisation: "none" });
  return [...await logitsOf(model, [sequence(config, 24)])];
}

Deno.test("a tied model is the same with its table under either name or under both", async () => {
  await withFolder(async (root) => {
    await write(`${root}/embeddings`, { [EMBEDDINGS]: same });
    await write(`${root}/head`, { [HEAD]: same });
    await write(`${root}/both`, { [EMBEDDINGS]: same, [HEAD]: same });
    await write(`${root}/differ`, { [EMBEDDINGS]: same, [HEAD]: doubled });
    const wanted = await logits(`${root}/embeddings`);
    for (const name of ["head", "both", "differ"]) {
      assertEquals(await logits(`${root}/${name}`), wanted, name);
      const notes = await tableNotes(`${root}/${name}`, await readConfig(`${root}/${name}`));
      assertEquals(notes.length, name === "differ" ? 1 : 0, name);
      if (name === "differ") assertIncludes(notes[0]!, `"${HEAD}" with other values`);
    }
  });
});

Deno.test("a model whose files say tie_word_embeddings: false has two tables, or is refused by name", async () => {
  await withFolder(async (root) => {
    const untied = { tie_word_embeddings: false };
    await write(`${root}/two`, { [EMBEDDINGS]: same, [HEAD]: doubled }, untied);
    await write(`${root}/tied`, { [EMBEDDINGS]: same });
    const [two, one] = [await logits(`${root}/two`), await logits(`${root}/tied`)];
    const wrong = two.filter((value, i) => Math.abs(value - 2 * one[i]!) > 1e-4 * Math.abs(value) + 1e-5);
    assertEquals(wrong, [], "a head twice as large has logits twice as large");
    await write(`${root}/said`, { [EMBEDDINGS]: same }, untied);
    await write(`${root}/unsaid`, { [EMBEDDINGS]: same }, { tie_word_embeddings: undefined });
    await assertThrows(() => logits(`${root}/said`), HEAD, "says tie_word_embeddings: false", "true there");
    await assertThrows(() => logits(`${root}/unsaid`), HEAD, "does not say otherwise");
    await assertThrows(() => convertToGguf(`${root}/said`, `${root}/model.gguf`), HEAD, "true there");
    await write(`${root}/neither`, {});
    await assertThrows(() => logits(`${root}/neither`), EMBEDDINGS);
  });
});

Deno.test("a tied model that kept the head's name alone is converted like any other", async () => {
  await withFolder(async (root) => {
    await write(`${root}/embeddings`, { [EMBEDDINGS]: same });
    await write(`${root}/head`, { [HEAD]: same });
    const options = { quantisation: "nf4-double", dtype: "keep", maxShardSize: 5e9 } as const;
    for (const name of ["embeddings", "head"]) {
      await convertToGguf(`${root}/${name}`, `${root}/${name}.gguf`);
      await convertToBnb4(`${root}/${name}`, `${root}/${name}-bnb4`, options);
    }
    const tensors = async (name: string) =>
      (await gguf(`${root}/${name}.gguf`, { allowLocalFile: true })).tensorInfos.map((info) => info.name)
        .sort();
    assertEquals(await tensors("head"), await tensors("embeddings"));
    const [head, embeddings] = await Promise.all(
      ["head", "embeddings"].map((name) => Deno.readFile(`${root}/${name}-bnb4/model.safetensors`)),
    );
    assert(
      head!.length === embeddings!.length && head!.every((byte, i) => byte === embeddings![i]),
      "bnb-4bit",
    );
  });
});
