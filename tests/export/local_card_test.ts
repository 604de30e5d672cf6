import { parse } from "yaml";
import { readConfig } from "../../model/config.ts";
import { configForPositions } from "../../model/positions.ts";
import { CARD, hasForeignCard, localCard, writeCard } from "../../export/local_card.ts";
import { preparePublication } from "../../export/publish.ts";
import { assert, assertEquals } from "../support/assert_close.ts";
import { GOLDEN, withFolder } from "../support/files.ts";
import { assertIncludes } from "../support/text.ts";

/** An adapter's folder, and what its card is made from. */
async function withAdapter(use: (folder: string, subject: Parameters<typeof localCard>[1]) => Promise<void>) {
  await withFolder(async (folder) => {
    for (const name of ["adapter_config.json", "adapter_model.safetensors"]) {
      await Deno.copyFile(`${GOLDEN}/adapter/${name}`, `${folder}/${name}`);
    }
    const base = await readConfig(`${GOLDEN}/mha`);
    const config = configForPositions(base, {
      model_max_length: 2 * base.max_position_embeddings,
      rope_theta: null,
      rope_scaling: null,
    });
    await use(folder, { base: "org/tiny@main", config, args: { train_file: "/home/me/rows.jsonl" } });
  });
}

Deno.test("the card of an adapter has PEFT's keys, the base, positions, and how to load it; no path of this machine", async () => {
  await withAdapter(async (folder, subject) => {
    await writeCard(folder, subject);
    const card = await Deno.readTextFile(`${folder}/${CARD}`);
    assertEquals(parse(card.split("---\n")[1]!), {
      base_model: "org/tiny",
      library_name: "peft",
      pipeline_tag: "text-generation",
      tags: ["longreach", "long-context", "lora"],
    });
    for (
      const part of [
        "| RoPE scaling | linear by 2 |",
        "| Trained | LoRA rank 8, alpha 16",
        "| Data | rows.jsonl |",
        'config.rope_scaling = {"rope_type":"linear","factor":2.0}',
        "PeftModel.from_pretrained(model,",
        "./longreach merge --base_model org/tiny",
      ]
    ) assertIncludes(card, part);
    assert(!card.includes("/home/me") && !card.includes(folder), card);
    const local = await localCard(folder, { ...subject, base: `${GOLDEN}/mha` });
    assertEquals(parse(local.split("---\n")[1]!).base_model, undefined);
    assert(!local.includes(GOLDEN), local);
    assertIncludes(local, "# mha, ");
  });
});

Deno.test("a card that somebody changed or wrote stays, one as Longreach wrote it is replaced, and not uploaded", async () => {
  await withAdapter(async (folder, subject) => {
    const isForeign = async () => [
      await hasForeignCard(folder),
      (await preparePublication(folder, "me/mine", { baseModel: "org/tiny" })).card === undefined,
    ];
    assertEquals(await isForeign(), [false, false]);
    await writeCard(folder, subject);
    assertEquals(await isForeign(), [false, false]);
    const card = await Deno.readTextFile(`${folder}/${CARD}`);
    for (const text of [card.replace("tiny", "tinier"), `${card}Mine.\n`, "", "# Mine\n"]) {
      await Deno.writeTextFile(`${folder}/${CARD}`, text);
      assertEquals(await isForeign(), [true, true], text);
    }
  });
});
