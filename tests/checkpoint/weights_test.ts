import { join } from "../../checkpoint/deps.ts";
import { toF32 } from "../../checkpoint/dtype.ts";
import { openWeights } from "../../checkpoint/weights.ts";
import { assert, assertEquals, assertThrows } from "../support/assert_close.ts";
import { GOLDEN, withFolder } from "../support/files.ts";
import { safetensorsBytes, watchedFiles } from "./support.ts";

function shard(tensors: Record<string, number[]>): Uint8Array {
  let begin = 0;
  const members = Object.entries(tensors).map(([name, values]) => {
    const end = begin + values.length;
    const member = `"${name}":{"dtype":"U8","shape":[${values.length}],"data_offsets":[${begin},${end}]}`;
    begin = end;
    return member;
  });
  return safetensorsBytes(`{${members.join(",")}}`, Uint8Array.from(Object.values(tensors).flat()));
}

function writeIndex(
  folder: string,
  map: Record<string, unknown>,
  name = "model.safetensors.index.json",
): void {
  Deno.writeTextFileSync(join(folder, name), JSON.stringify({ weight_map: map }));
}

const [FIRST, SECOND] = ["model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors"];

function writeShards(folder: string): void {
  Deno.writeFileSync(join(folder, FIRST), shard({ a: [1, 2, 3] }));
  Deno.writeFileSync(join(folder, SECOND), shard({ b: [4], c: [5, 6] }));
  writeIndex(folder, { a: FIRST, b: SECOND, c: SECOND });
}

Deno.test("openWeights() reads a model in one file, in shards, and as pytorch_model.bin", async () => {
  for (const [model, count] of [["mha", 21], ["gqa", 20], ["mha-bin", 21]] as const) {
    const reader = await openWeights(join(GOLDEN, model));
    assertEquals([...reader.names()].length, count, model);
    const { shape, byteLength } = reader.info("model.embed_tokens.weight");
    assertEquals((await reader.read("model.embed_tokens.weight")).length, byteLength, `${model} bytes`);
    assertEquals(byteLength, shape[0]! * shape[1]! * 4, `${model} size`);
    assert(!reader.has("model.layers.7.mlp.up_proj.weight"), "has() is wrong");
    await assertThrows(() => reader.info("model.layers.7.mlp.up_proj.weight"), model, "layers.7.mlp.up_proj");
    reader.close();
  }
});

Deno.test("readInto() gives the bytes that read() has, in every format", async () => {
  for (const model of ["mha", "gqa", "mha-bin"]) {
    const reader = await openWeights(join(GOLDEN, model));
    for (const name of ["model.layers.1.mlp.down_proj.weight", "model.norm.weight"]) {
      const whole = await reader.read(name);
      const size = whole.length;
      for (const [from, length] of [[0, size], [5, 70], [size - 1, 1], [3, 0]] as const) {
        const into = new Uint8Array(length);
        await reader.readInto(name, from, into);
        assertEquals([...into], [...whole.subarray(from, from + length)], `${model} ${name} ${from}`);
      }
      for (const from of [size - 1, -1]) {
        await assertThrows(() => reader.readInto(name, from, new Uint8Array(2)), name, `it has ${size}`);
      }
    }
    reader.close();
  }
});

Deno.test("pytorch_model.bin holds the values of model.safetensors, projections rounded to F16", async () => {
  const plain = await openWeights(join(GOLDEN, "mha"));
  const pickled = await openWeights(join(GOLDEN, "mha-bin"));
  assertEquals([...pickled.names()].sort(), [...plain.names()].sort(), "names");
  for (const name of plain.names()) {
    const isProjection = name.includes("_proj");
    assertEquals(pickled.info(name).dtype, isProjection ? "F16" : "F32", name);
    assertEquals(pickled.info(name).shape, plain.info(name).shape, name);
    const expected = toF32(await plain.read(name), "F32");
    const actual = toF32(await pickled.read(name), pickled.info(name).dtype);
    const rounded = isProjection ? new Float32Array(new Float16Array(expected)) : expected;
    assert(actual.every((value, i) => Object.is(value, rounded[i])), `${name} differs`);
  }
  plain.close();
  pickled.close();
});

Deno.test("openWeights() takes a lone .safetensors file, whatever its name", async () => {
  await withFolder(async (folder) => {
    Deno.writeFileSync(join(folder, "weights.safetensors"), shard({ a: [7] }));
    Deno.writeFileSync(join(folder, "adapter_model.safetensors"), shard({ x: [1] }));
    const reader = await openWeights(folder);
    assertEquals([...await reader.read("a")], [7]);
    reader.close();
    Deno.writeFileSync(join(folder, "more.safetensors"), shard({ a: [8] }));
    await assertThrows(() => openWeights(folder), folder, "2 .safetensors files", "index.json");
  });
});

Deno.test("openWeights() leaves out what wrappers add to names, in one file and in shards", async () => {
  const [embeddings, q] = ["model.embed_tokens.weight", "model.layers.0.self_attn.q_proj.weight"];
  const forms: ((name: string) => string)[] = [
    (name) => `_orig_mod.${name}`,
    (name) => `module.${name}`,
    (name) => `module._orig_mod.${name}`,
    (name) => `_forward_module.${name}`,
    (name) => name.replace("layers.0", "layers.0._orig_mod"),
    (name) =>
      `_fsdp_wrapped_module.${
        name.replace("layers.0", "layers.0._fsdp_wrapped_module._checkpoint_wrapped_module")
      }`,
  ];
  for (const form of forms) {
    await withFolder(async (folder) => {
      const stored = [form(embeddings), form(q)] as const;
      Deno.writeFileSync(join(folder, "model.safetensors"), shard({ [stored[0]]: [1, 2], [stored[1]]: [3] }));
      const whole = await openWeights(folder);
      Deno.removeSync(join(folder, "model.safetensors"));
      Deno.writeFileSync(join(folder, FIRST), shard({ [stored[0]]: [1, 2] }));
      Deno.writeFileSync(join(folder, SECOND), shard({ [stored[1]]: [3] }));
      writeIndex(folder, { [stored[0]]: FIRST, [stored[1]]: SECOND });
      const sharded = await openWeights(folder);
      for (const reader of [whole, sharded]) {
        assertEquals([...reader.names()], [embeddings, q], stored[1]);
        assertEquals([[...await reader.read(embeddings)], reader.info(q).name], [[1, 2], q]);
        const into = new Uint8Array(1);
        await reader.readInto(embeddings, 1, into);
        assertEquals([...into], [2]);
        reader.close();
      }
    });
  }
  await withFolder(async (folder) => {
    Deno.writeFileSync(join(folder, "model.safetensors"), shard({ a: [1], "_orig_mod.a": [1] }));
    await assertThrows(() => openWeights(folder), '"a" and "_orig_mod.a"', "wrappers");
  });
});

Deno.test("openWeights() says what is missing", async () => {
  await assertThrows(
    () => openWeights(join(GOLDEN, "nothing")),
    "nothing",
    "no such file or folder",
    "download",
  );
  await assertThrows(() => openWeights(join(GOLDEN, "data.bin")), "data.bin", "not a folder");
  await assertThrows(() => openWeights(join(GOLDEN, "adapter")), "LoRA adapter, not a model", "peft_model");
  await withFolder((folder) => assertThrows(() => openWeights(folder), folder, "none of model.safetensors"));
});

Deno.test("openWeights() refuses shards that do not fit their index", async () => {
  await withFolder(async (folder) => {
    writeShards(folder);
    const open = () => openWeights(folder);
    const reader = await open();
    assertEquals([...await reader.read("c"), ...await reader.read("a")], [5, 6, 1, 2, 3]);
    reader.close();

    writeIndex(folder, { a: FIRST, b: SECOND, d: SECOND });
    await assertThrows(open, SECOND, 'lists "d" in it', "no such tensor", "run download again");
    writeShards(folder);
    Deno.writeFileSync(join(folder, SECOND), shard({ a: [9], b: [4], c: [5, 6] }));
    await assertThrows(open, SECOND, 'holds "a"', FIRST);
    writeShards(folder);
    Deno.removeSync(join(folder, SECOND));
    await assertThrows(open, SECOND, "no such file", "run download again");
    writeShards(folder);
    Deno.truncateSync(join(folder, SECOND), 40);
    await assertThrows(open, SECOND, "incomplete");
    Deno.writeTextFileSync(join(folder, "model.safetensors.index.json"), "{");
    await assertThrows(open, "index.json", "not valid JSON");
    Deno.writeTextFileSync(join(folder, "model.safetensors.index.json"), "[]");
    await assertThrows(open, "index.json", "weight_map");
    writeIndex(folder, {});
    await assertThrows(open, "index.json", "empty");
    writeIndex(folder, { a: 5 });
    await assertThrows(open, "index.json", '"a"', "not in 5");
  });
});

Deno.test("openWeights() opens no file that an index should not name", async () => {
  await withFolder(async (outer) => {
    const folder = join(outer, "model");
    Deno.mkdirSync(join(folder, "sub"), { recursive: true });
    writeShards(folder);
    for (const place of [join(outer, "x.safetensors"), join(folder, "sub", "x.safetensors")]) {
      Deno.writeFileSync(place, shard({ a: [1] }));
    }
    const hostile = [
      "../x.safetensors",
      "sub/x.safetensors",
      "/x.safetensors",
      "..\\x.safetensors",
      "sub//x.safetensors",
    ];
    hostile.push(join(outer, "x.safetensors"), "./x.safetensors", "C:x.safetensors", "NUL.safetensors");
    const opened: string[] = [];
    const files = watchedFiles((operation, path) => void (operation === "open-read" && opened.push(path)));
    for (const name of hostile) {
      writeIndex(folder, { b: SECOND, a: name });
      await assertThrows(() => openWeights(folder, { files }), "Refused the file name");
    }
    writeIndex(folder, { a: "passwd" });
    await assertThrows(() => openWeights(folder, { files }), "must be in a .safetensors file");
    assertEquals([...new Set(opened)], [join(folder, "model.safetensors.index.json")], "opened files");
  });
});

Deno.test("openWeights() follows the links of the hub's cache", async () => {
  await withFolder(async (folder) => {
    Deno.mkdirSync(join(folder, "blobs"));
    Deno.mkdirSync(join(folder, "snapshot"));
    Deno.writeFileSync(join(folder, "blobs", "0123"), shard({ a: [1, 2] }));
    Deno.symlinkSync("../blobs/0123", join(folder, "snapshot", FIRST));
    writeIndex(join(folder, "snapshot"), { a: FIRST });
    const reader = await openWeights(join(folder, "snapshot"));
    assertEquals([...await reader.read("a")], [1, 2]);
    reader.close();
  });
});

Deno.test("openWeights() refuses an index of more than 10,000 files, or of more bytes than indexes have", async () => {
  await withFolder(async (folder) => {
    const open = () => openWeights(folder);
    const names = Array.from({ length: 10_001 }, (_, i) => [`t${i}`, `model-${i}.safetensors`]);
    writeIndex(folder, Object.fromEntries(names));
    await assertThrows(open, "index.json", "more than 10000 files");
    Deno.truncateSync(join(folder, "model.safetensors.index.json"), 25_000_001);
    await assertThrows(open, "index.json", "25000001 bytes", "at most 25000000");
  });
});
