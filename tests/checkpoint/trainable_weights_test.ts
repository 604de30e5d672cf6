import { join } from "../../checkpoint/deps.ts";
import { fromF32 } from "../../checkpoint/dtype.ts";
import { type Adapter, readAdapter, writeAdapter } from "../../checkpoint/peft.ts";
import { writeSafetensors } from "../../checkpoint/safetensors.ts";
import { convertToSafetensors } from "../../checkpoint/to_safetensors.ts";
import { readTrainableWeights } from "../../checkpoint/trainable_weights.ts";
import { openWeights } from "../../checkpoint/weights.ts";
import { assertEquals, assertThrows } from "../support/assert_close.ts";
import { GOLDEN, namesIn, withFolder } from "../support/files.ts";
import { stateDict, tensor, torchFile } from "./torch_file.ts";

const PEFT = "base_model.model.";

/** By key as the merged state of a run has it. */
type State = Map<string, { shape: readonly number[]; data: Float32Array }>;

/** What zero_to_fp32.py makes of a run that ended with this adapter, the frozen base included. */
async function mergedState({ lora, extra }: Adapter): Promise<State> {
  const state: State = new Map();
  const base = await openWeights(`${GOLDEN}/mha`);
  for (const name of base.names()) {
    const { shape } = base.info(name);
    const data = new Float32Array((await base.read(name)).buffer);
    const wrapped = lora.has(name.replace(/\.weight$/, ""))
      ? name.replace(/weight$/, "base_layer.weight")
      : name;
    state.set(PEFT + wrapped, { shape, data });
  }
  base.close();
  for (const [module, { A, B }] of lora) {
    state.set(`${PEFT}${module}.lora_A.default.weight`, A);
    state.set(`${PEFT}${module}.lora_B.default.weight`, B);
  }
  for (const [name, values] of extra) state.set(PEFT + name, values);
  return state;
}

async function writeCheckpoint(folder: string, state: State): Promise<void> {
  const entries = [...state].map(([name, values], i) => ({ name, key: String(i), ...values }));
  const codes = entries.map(({ name, key, shape, data }) => {
    const strides = shape.map((_, axis) => shape.slice(axis + 1).reduce((a, b) => a * b, 1));
    return [name, tensor({ key, length: data.length, shape, strides })] as const;
  });
  const storages = entries.map(({ key, data }) => [key, fromF32(data, "F32")] as const);
  await Deno.mkdir(folder);
  await Deno.writeFile(
    join(folder, "pytorch_model.bin"),
    torchFile(stateDict(Object.fromEntries(codes)), Object.fromEntries(storages)),
  );
  await Deno.copyFile(`${GOLDEN}/adapter-bin/adapter_config.json`, join(folder, "adapter_config.json"));
}

function assertSame(actual: Adapter, expected: Adapter): void {
  const plain = ({ lora, extra }: Adapter) => ({
    lora: [...lora].map(([name, { A, B }]) => [name, [...A.data], [...B.data]]).sort(),
    extra: [...extra].map(([name, { shape, data }]) => [name, shape, [...data]]).sort(),
  });
  assertEquals(plain(actual), plain(expected), "adapter");
}

Deno.test("get_trainable_weights takes factors, embeddings and norms out of a merged checkpoint", async () => {
  const trained = await readAdapter(`${GOLDEN}/adapter-bin`);
  await withFolder(async (root) => {
    await writeCheckpoint(`${root}/checkpoint`, await mergedState(trained));
    const adapter = await readTrainableWeights(`${root}/checkpoint`, ["embed", "norm"]);
    assertSame(adapter, trained);
    await Deno.mkdir(`${root}/out`);
    await writeAdapter(`${root}/out`, adapter);
    assertSame(await readAdapter(`${root}/out`), trained);
    const config = JSON.parse(await Deno.readTextFile(`${root}/out/adapter_config.json`));
    assertEquals(config.modules_to_save, [
      "embed_tokens",
      "input_layernorm",
      "model.norm",
      "post_attention_layernorm",
    ]);
    const norms = await readTrainableWeights(`${root}/checkpoint`, ["norm"]);
    assertEquals([...norms.extra.keys()].some((name) => name.includes("embed")), false);
  });
});

Deno.test("get_trainable_weights takes factors from adapter_model.bin where the merged state has none", async () => {
  const trained = await readAdapter(`${GOLDEN}/adapter-bin`);
  const state = await mergedState(trained);
  for (const key of [...state.keys()]) if (key.includes("lora_")) state.delete(key);
  await withFolder(async (root) => {
    await writeCheckpoint(`${root}/checkpoint`, state);
    await assertThrows(() => readTrainableWeights(`${root}/checkpoint`, ["norm"]), "adapter_model", "LoRA");
    await Deno.copyFile(`${GOLDEN}/adapter-bin/adapter_model.bin`, `${root}/checkpoint/adapter_model.bin`);
    assertSame(await readTrainableWeights(`${root}/checkpoint`, ["embed", "norm"]), trained);
  });
});

Deno.test("get_trainable_weights says what matches nothing, and a config of another run", async () => {
  const trained = await readAdapter(`${GOLDEN}/adapter-bin`);
  await withFolder(async (root) => {
    const folder = `${root}/checkpoint`;
    await writeCheckpoint(folder, await mergedState(trained));
    await assertThrows(() => readTrainableWeights(folder, ["embed", "nrom"]), '"nrom"', "--trainable_params");
    await assertThrows(() => readTrainableWeights(folder, ["norm", "lora_A"]), '"lora_A"', "none of its");
    const path = `${folder}/adapter_config.json`;
    const config = JSON.parse(await Deno.readTextFile(path));
    await Deno.writeTextFile(path, JSON.stringify({ ...config, target_modules: ["q_proj"] }));
    await assertThrows(() => readTrainableWeights(folder, ["norm"]), "target_modules", "q_proj");
    await Deno.writeTextFile(path, JSON.stringify({ ...config, r: 4 }));
    await assertThrows(() => readTrainableWeights(folder, ["norm"]), "r = 4");
    await Deno.remove(path);
    await assertThrows(() => readTrainableWeights(folder, ["norm"]), "adapter_config.json");
  });
});

Deno.test("convert to safetensors keeps every value of a pickled adapter, and every byte of a pickled model", async () => {
  await withFolder(async (root) => {
    const options = { maxShardSize: 100_000 };
    await convertToSafetensors(`${GOLDEN}/adapter-bin`, `${root}/adapter`, options);
    assertEquals(namesIn(`${root}/adapter`), ["adapter_config.json", "adapter_model.safetensors"]);
    assertSame(await readAdapter(`${root}/adapter`), await readAdapter(`${GOLDEN}/adapter-bin`));

    let told = "";
    const onProgress = (done: number, total: number) => told = `${done}/${total}`;
    await convertToSafetensors(`${GOLDEN}/mha-bin`, `${root}/model`, options, { onProgress });
    const [theirs, ours] = [await openWeights(`${GOLDEN}/mha-bin`), await openWeights(`${root}/model`)];
    assertEquals([...ours.names()].sort(), [...theirs.names()].sort());
    for (const name of theirs.names()) {
      assertEquals(ours.info(name), theirs.info(name), name);
      assertEquals([...await ours.read(name)], [...await theirs.read(name)], name);
    }
    theirs.close();
    ours.close();
    assertEquals(told, "21/21");
    assertEquals(namesIn(`${root}/model`).includes("tokenizer.json"), true);
    await assertThrows(
      () => convertToSafetensors(`${GOLDEN}/mha-bin`, `${root}/model`, options),
      "not empty",
    );
    assertEquals(namesIn(root), ["adapter", "model"]);
  });
});

Deno.test("convert to safetensors copies tensors of several pieces whole", async () => {
  await withFolder(async (root) => {
    await Deno.mkdir(`${root}/model`);
    await Deno.writeTextFile(`${root}/model/config.json`, "{}");
    const values = Float32Array.from({ length: 4_500_000 }, (_, i) => i);
    const read = () => Promise.resolve(fromF32(values, "F32"));
    await writeSafetensors(`${root}/model/model.safetensors`, [{
      name: "a",
      dtype: "F32",
      shape: [4_500_000],
      read,
    }]);
    await convertToSafetensors(`${root}/model`, `${root}/out`, { maxShardSize: 1e9 });
    const weights = await openWeights(`${root}/out`);
    const copy = new Float32Array((await weights.read("a")).buffer);
    weights.close();
    assertEquals(copy.findIndex((value, i) => value !== values[i]), -1, "the first other value");
  });
});
