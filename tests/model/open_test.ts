import { Gpu } from "../../kernels/gpu.ts";
import { openModel } from "../../model/load/open.ts";
import { assertEquals } from "../support/assert_close.ts";
import { withFolder } from "../support/files.ts";
import { assertIncludes } from "../support/text.ts";

const BASE = "tests/golden/mha";
const ADAPTER = "tests/golden/adapter";

Deno.test("openModel() gives an adapter the positions it was trained with, and says where others are asked for", async () => {
  await withFolder(async (folder) => {
    for await (const { name } of Deno.readDir(ADAPTER)) {
      await Deno.copyFile(`${ADAPTER}/${name}`, `${folder}/${name}`);
    }
    await Deno.writeTextFile(`${folder}/train_args.yaml`, "model_max_length: 192\n");
    using gpu = await Gpu.open();
    const trained = await openModel(gpu, { baseModel: BASE, peftModel: folder });
    assertEquals([trained.config.rope_scaling, trained.notes], [{ type: "linear", factor: 3 }, []]);
    assertEquals(trained.model.config.rope_scaling, trained.config.rope_scaling);
    const asked = await openModel(gpu, { baseModel: BASE, peftModel: folder, contextSize: 128 });
    assertEquals(asked.config.rope_scaling, { type: "linear", factor: 2 });
    assertIncludes(asked.notes.join("\n"), "trained for 192 tokens");
    assertEquals((await openModel(gpu, { baseModel: BASE })).config.rope_scaling, null);
  });
});
