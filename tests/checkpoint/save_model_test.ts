import { join } from "../../checkpoint/deps.ts";
import { fromF32, toF32 } from "../../checkpoint/dtype.ts";
import { SafetensorsFile, type TensorSource } from "../../checkpoint/safetensors.ts";
import { type ModelFolder, writeModel } from "../../checkpoint/save_model.ts";
import { saveFolderAtomic } from "../../checkpoint/store.ts";
import { openWeights } from "../../checkpoint/weights.ts";
import { UserError } from "../../errors.ts";
import { assert, assertEquals, assertThrows } from "../support/assert_close.ts";
import { GOLDEN, namesIn, withFolder } from "../support/files.ts";
import { normal } from "../support/random.ts";
import { systemError, watchedFiles } from "./support.ts";

/** Tensors of 40, 24, 64 and 8 bytes in two types; `reads` collects the names of those that are read. */
function sources(reads: string[] = []): TensorSource[] {
  const make = (name: string, dtype: "F32" | "BF16", shape: number[], seed: number): TensorSource => ({
    name,
    dtype,
    shape,
    read: () => {
      reads.push(name);
      return Promise.resolve(fromF32(normal(seed, shape.reduce((a, b) => a * b)), dtype));
    },
  });
  return [
    make("b.weight", "BF16", [4, 5], 1),
    make("a.weight", "F32", [6], 2),
    make("c.weight", "F32", [2, 8], 3),
    make("d.weight", "F32", [2], 4),
  ];
}

const model = (options: Partial<ModelFolder> = {}): ModelFolder => ({
  config: { model_type: "llama", hidden_size: 8 },
  tensors: sources(),
  ...options,
});

async function json(...path: string[]) {
  return JSON.parse(await Deno.readTextFile(join(...path)));
}

Deno.test("writeModel() writes one file where all fits, and reading gives the same values", async () => {
  await withFolder(async (folder) => {
    const reads: string[] = [];
    const written = await writeModel(folder, model({ tensors: sources(reads) }));
    assertEquals(written, { shards: ["model.safetensors"], totalBytes: 136 });
    assertEquals(namesIn(folder), ["config.json", "model.safetensors"]);
    assertEquals(reads.toSorted(), ["a.weight", "b.weight", "c.weight", "d.weight"], "each is read once");
    assertEquals(await json(folder, "config.json"), { model_type: "llama", hidden_size: 8 });
    const weights = await openWeights(folder);
    for (const { name, dtype, shape, read } of sources()) {
      assertEquals([weights.info(name).dtype, weights.info(name).shape], [dtype, shape], name);
      assertEquals([...await weights.read(name)], [...await (read() as Promise<Uint8Array>)], name);
    }
    weights.close();
    const file = await SafetensorsFile.open(join(folder, "model.safetensors"));
    assertEquals([...file.header.metadata], [["format", "pt"]]);
    file.close();
  });
});

Deno.test("writeModel() splits into shards in the tensors' order, with an index as transformers writes it", async () => {
  await withFolder(async (folder) => {
    const { shards } = await writeModel(folder, model({ maxShardBytes: 72 }));
    assertEquals(shards, ["model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors"]);
    assertEquals(namesIn(folder), ["config.json", ...shards, "model.safetensors.index.json"]);
    assertEquals(await json(folder, "model.safetensors.index.json"), {
      metadata: { total_size: 136 },
      weight_map: {
        "a.weight": shards[0],
        "b.weight": shards[0],
        "c.weight": shards[1],
        "d.weight": shards[1],
      },
    });
    const weights = await openWeights(folder);
    assertEquals([...toF32(await weights.read("c.weight"), "F32")], [...normal(3, 16)]);
    weights.close();
  });
  await withFolder(async (folder) => {
    // A tensor above the limit has a file of its own, and none is empty.
    const { shards } = await writeModel(folder, model({ maxShardBytes: 1 }));
    assertEquals(shards.length, 4);
  });
});

Deno.test("writeModel() copies the tokenizer and sets its length", async () => {
  await withFolder(async (folder) => {
    await writeModel(folder, model({ filesFrom: join(GOLDEN, "mha"), modelMaxLength: 128 }));
    assertEquals(namesIn(folder), [
      "config.json",
      "model.safetensors",
      "tokenizer.json",
      "tokenizer_config.json",
    ]);
    assertEquals(
      await Deno.readTextFile(join(folder, "tokenizer.json")),
      await Deno.readTextFile(join(GOLDEN, "mha", "tokenizer.json")),
    );
    const settings = await json(GOLDEN, "mha", "tokenizer_config.json");
    assertEquals(await json(folder, "tokenizer_config.json"), { ...settings, model_max_length: 128 });
    assert(settings.model_max_length !== 128, "the length changes");
  });
  await withFolder(async (root) => {
    for (const name of ["from", "to"]) await Deno.mkdir(join(root, name));
    await Deno.writeTextFile(join(root, "from", "generation_config.json"), '{"do_sample": true}');
    await Deno.writeTextFile(join(root, "other.json"), "{}");
    const tokenizer = new Map([["tokenizer.json", join(root, "other.json")]]);
    const config = { rope_theta: 10_000, rope_scaling: { factor: 4 }, vocab_size: 2 };
    await writeModel(join(root, "to"), model({ config, filesFrom: join(root, "from"), tokenizer }));
    assertEquals(await json(root, "to", "generation_config.json"), { do_sample: true });
    assertEquals(await json(root, "to", "tokenizer.json"), {});
    const text = await Deno.readTextFile(join(root, "to", "config.json"));
    assertEquals(text.match(/[\d.]+/g), ["10000.0", "4.0", "2"], "what transformers wants to be floats");
  });
});

Deno.test("writeModel() refuses damaged tokenizer settings and two tensors of one name", async () => {
  await withFolder(async (folder) => {
    await Deno.writeTextFile(join(folder, "tokenizer_config.json"), "[1]");
    const copying = () => writeModel(folder, model({ filesFrom: folder, modelMaxLength: 128 }));
    await assertThrows(copying, "tokenizer_config.json", "no JSON object");
    const twice = [...sources(), ...sources()];
    await assertThrows(() => writeModel(folder, model({ tensors: twice })), "b.weight", "twice");
  });
});

Deno.test("a full disk at any write leaves nothing, and one line that names the size", async () => {
  const options = { filesFrom: join(GOLDEN, "mha"), modelMaxLength: 128, maxShardBytes: 72 };
  const attempt = async (root: string, failAt: number) => {
    let writes = 0;
    const files = watchedFiles((operation) => {
      if (operation === "write" && ++writes === failAt) throw systemError("ENOSPC");
    });
    const save = saveFolderAtomic(
      join(root, "merged"),
      async (folder) => void await writeModel(folder, model(options), { files }),
      { files },
    );
    await save;
    return writes;
  };
  await withFolder(async (root) => {
    const writes = await attempt(root, 0);
    assertEquals(namesIn(root), ["merged"]);
    await Deno.remove(join(root, "merged"), { recursive: true });
    assert(writes >= 8, "headers, tensors, index, tokenizer, config");
    for (let failAt = 1; failAt <= writes; failAt++) {
      let caught: unknown;
      await attempt(root, failAt).catch((error) => caught = error);
      assert(
        caught instanceof UserError && caught.message.includes("disk is full"),
        `write ${failAt}: ${caught}`,
      );
      assertEquals(namesIn(root), [], `after write ${failAt}`);
    }
  });
});
