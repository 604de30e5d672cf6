import { readBnb4 } from "../../checkpoint/bitsandbytes.ts";
import type { Quantisation } from "../../kernels/quantisation.ts";
import { toF32 } from "../../checkpoint/dtype.ts";
import { openWeights } from "../../checkpoint/weights.ts";
import { Gpu } from "../../kernels/gpu.ts";
import { type Bnb4Options, convertToBnb4 } from "../../export/bnb4.ts";
import { readConfig } from "../../model/config.ts";
import { openModel } from "../../model/load/open.ts";
import { assert, assertEquals, assertThrows } from "../support/assert_close.ts";
import { GOLDEN, namesIn, withFolder } from "../support/files.ts";
import { logitsOf, sequence } from "../model/support.ts";

const OPTIONS: Bnb4Options = { quantisation: "nf4-double", dtype: "keep", maxShardSize: 5e9 };

/** Converts a golden model, and hands over the folder. */
async function converted(
  model: string,
  options: Partial<Bnb4Options>,
  use: (folder: string) => Promise<void>,
): Promise<void> {
  await withFolder(async (root) => {
    await convertToBnb4(`${GOLDEN}/${model}`, `${root}/out`, { ...OPTIONS, ...options });
    await use(`${root}/out`);
  });
}

async function logits(baseModel: string, quantisation: Quantisation): Promise<number[]> {
  using gpu = await Gpu.open({ poison: true });
  const { model, config } = await openModel(gpu, { baseModel, quantisation });
  return [...await logitsOf(model, [sequence(config, 24)])];
}

Deno.test("convert to bnb-4bit gives the very tensors that bitsandbytes made of the same model", async () => {
  await converted("mha", {}, async (folder) => {
    const ours = await openWeights(folder);
    const theirs = await openWeights(`${GOLDEN}/mha-bnb4`);
    assertEquals([...ours.names()].sort(), [...theirs.names()].sort(), "names");
    for (const name of theirs.names()) {
      const [mine, wanted] = [await ours.read(name), await theirs.read(name)];
      if (name.includes("quant_state")) {
        const [a, b] = [mine, wanted].map((bytes) => JSON.parse(new TextDecoder().decode(bytes)));
        assertEquals({ ...a, nested_offset: 0 }, { ...b, nested_offset: 0 }, name);
        assert(Math.abs(a.nested_offset / b.nested_offset - 1) < 3e-7, `${name}: ${a.nested_offset}`);
        continue;
      }
      assertEquals([ours.info(name).dtype, ours.info(name).shape], [
        theirs.info(name).dtype,
        theirs.info(name).shape,
      ], name);
      if (name.endsWith(".nested_absmax")) {
        const [a, b] = [toF32(mine, "F32"), toF32(wanted, "F32")];
        a.forEach((value, i) => assert(Math.abs(value / b[i]! - 1) < 1e-6, `${name} ${i}: ${value}`));
        continue;
      }
      assertEquals([...mine], [...wanted], name);
    }
    ours.close();
    theirs.close();
    const { quantization_config } = JSON.parse(await Deno.readTextFile(`${GOLDEN}/mha-bnb4/config.json`));
    const written = JSON.parse(await Deno.readTextFile(`${folder}/config.json`));
    assertEquals(written.quantization_config, { ...quantization_config, bnb_4bit_quant_storage: "uint8" });
    assertEquals(namesIn(folder), [
      "config.json",
      "model.safetensors",
      "tokenizer.json",
      "tokenizer_config.json",
    ]);
  });
});

for (const model of ["mha", "gqa"]) {
  Deno.test(`${model} read back from bnb-4bit gives the logits of load_in_4bit, in shards too`, async () => {
    const expected = await logits(`${GOLDEN}/${model}`, "nf4-double");
    await converted(model, { maxShardSize: 60_000 }, async (folder) => {
      assert(namesIn(folder).filter((name) => name.endsWith(".safetensors")).length > 2, "shards");
      assertEquals(await logits(folder, "none"), expected, "logits");
    });
  });
}

Deno.test("bnb-4bit without double quantisation keeps scales in f32, and the rest in the format asked for", async () => {
  await converted("mha", { quantisation: "nf4", dtype: "bf16" }, async (folder) => {
    const weights = await openWeights(folder);
    const original = await openWeights(`${GOLDEN}/mha`);
    const name = "model.layers.1.mlp.down_proj.weight";
    const packed = await readBnb4(weights, name);
    assertEquals([packed.nestedAbsmax, packed.shape], [undefined, [64, 176]]);
    const values = toF32(await original.read(name), "F32");
    const absmax = Float32Array.from({ length: 176 }, (_, block) => {
      const magnitudes = values.subarray(64 * block, 64 * block + 64).map(Math.abs);
      return Math.max(...magnitudes);
    });
    assertEquals([...packed.absmax], [...absmax], "absmax");
    const state = JSON.parse(
      new TextDecoder().decode(await weights.read(`${name}.quant_state.bitsandbytes__nf4`)),
    );
    assertEquals(state, { quant_type: "nf4", blocksize: 64, dtype: "bfloat16", shape: [64, 176] });
    assertEquals(weights.info("model.norm.weight").dtype, "BF16");
    assertEquals((await readConfig(folder)).raw.torch_dtype, "bfloat16");
    weights.close();
    original.close();
  });
});

Deno.test("bnb-4bit refuses a model in 4 bits, and leaves nothing where it fails", async () => {
  await withFolder(async (root) => {
    await assertThrows(
      () => convertToBnb4(`${GOLDEN}/mha-bnb4`, `${root}/out`, OPTIONS),
      "in 4 bits already",
    );
    await Deno.mkdir(`${root}/full`);
    await Deno.writeTextFile(`${root}/full/notes.txt`, "mine");
    await assertThrows(() => convertToBnb4(`${GOLDEN}/mha`, `${root}/full`, OPTIONS), "not empty");
    await assertThrows(() => convertToBnb4(`${GOLDEN}/adapter`, `${root}/out`, OPTIONS), "config.json");
    assertEquals(namesIn(root), ["full"]);
  });
});
