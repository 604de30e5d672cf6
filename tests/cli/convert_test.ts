/** `convert` and `get_trainable_weights` as command lines. */
import { runCli } from "../../cli/main.ts";
import { assert, assertEquals } from "../support/assert_close.ts";
import { GOLDEN, namesIn, withFolder } from "../support/files.ts";
import { assertIncludes } from "../support/text.ts";
import { MemoryIo } from "./memory_io.ts";

async function run(...words: string[]): Promise<{ code: number; io: MemoryIo }> {
  const io = new MemoryIo();
  return { code: await runCli(words, io), io };
}

Deno.test("convert writes each format, and says what it wrote", async () => {
  await withFolder(async (root) => {
    const model = ["convert", "--model", `${GOLDEN}/mha`];
    const gguf = await run(...model, "--to", "gguf", "--save_path", `${root}/m.gguf`, "--json");
    const { outtype, bytes } = JSON.parse(gguf.io.stdout);
    assertEquals([gguf.code, outtype, bytes], [0, "f16", (await Deno.stat(`${root}/m.gguf`)).size]);
    const flags = ["--dtype", "bf16", "--no-double-quant", "--max_shard_size", "60KB"];
    const bnb = await run(...model, "--to", "bnb-4bit", "--save_path", `${root}/bnb`, ...flags);
    assertEquals(bnb.code, 0);
    assertIncludes(bnb.io.stdout, "NF4 as bitsandbytes has it");
    assertIncludes(bnb.io.stderr, "tensor 21/21");
    assert(namesIn(`${root}/bnb`).includes("model.safetensors.index.json"), "shards");
    const { quantization_config } = JSON.parse(await Deno.readTextFile(`${root}/bnb/config.json`));
    assertEquals(quantization_config.bnb_4bit_use_double_quant, false);
    const wrong = await run(...model, "--to", "bnb-4bit", "--outtype", "f16", "--save_path", `${root}/x`);
    assertEquals([wrong.code, wrong.io.stdout], [2, ""]);
    assertIncludes(wrong.io.stderr, "--outtype is for --to gguf");
    const adapter = ["convert", "--model", `${GOLDEN}/adapter-bin`, "--to", "safetensors", "--save_path"];
    assertEquals((await run(...adapter, `${root}/adapter`)).code, 0);
    assertEquals(namesIn(`${root}/adapter`), ["adapter_config.json", "adapter_model.safetensors"]);
    assertEquals((await run(...adapter, `${root}/adapter`)).code, 2, "a folder in use");
  });
});

Deno.test("get_trainable_weights has LongLoRA's defaults, and names what matches nothing", async () => {
  await withFolder(async (root) => {
    const checkpoint = `${root}/checkpoint`;
    await Deno.mkdir(checkpoint);
    // The base model's own embeddings and norms stand for the trained ones; the factors are those beside them.
    await Deno.copyFile(`${GOLDEN}/mha-bin/pytorch_model.bin`, `${checkpoint}/pytorch_model.bin`);
    for (const name of ["adapter_config.json", "adapter_model.bin"]) {
      await Deno.copyFile(`${GOLDEN}/adapter-bin/${name}`, `${checkpoint}/${name}`);
    }
    const words = ["get_trainable_weights", "--checkpoint_path", checkpoint, "--save_path", `${root}/out`];
    const wrong = await run(...words, "--trainable_params", "embed,nrom");
    assertEquals([wrong.code, wrong.io.stdout], [1, ""]);
    assertIncludes(wrong.io.stderr, '"nrom"');
    assertEquals(namesIn(root), ["checkpoint"]);
    const { code, io } = await run(...words, "--json");
    const { linears, tensors, trainable_params } = JSON.parse(io.stdout);
    assertEquals([code, linears, tensors, trainable_params], [0, 14, 6, ["embed", "norm"]]);
    assertEquals(namesIn(`${root}/out`), ["adapter_config.json", "adapter_model.safetensors"]);
  });
});
