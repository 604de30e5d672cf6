import { parse } from "yaml";
import { parseConfig, readConfig } from "../../model/config.ts";
import { preparePublication, type Publication } from "../../export/publish.ts";
import { assert, assertEquals, assertThrows } from "../support/assert_close.ts";
import { GOLDEN, withFolder } from "../support/files.ts";
import { assertIncludes } from "../support/text.ts";

const ARGS = {
  model_name_or_path: "/home/somebody/models/tiny",
  model_max_length: 128,
  max_seq_length: 128,
  train_data: ["/data/secret/train.jsonl", "hf://datasets/org/books"],
  output_dir: "/home/somebody/runs/first",
  use_full_attn: false,
  group_size_ratio: 0.25,
  load_in_4bit: true,
  learning_rate: 0.0002,
};
const STATE = {
  global_step: 1200,
  epoch: 1.5,
  best_metric: 1.5,
  log_history: [{ step: 1, loss: 3 }, { step: 1200, loss: 2.25 }, { step: 1200, eval_loss: 1.5 }],
};

/** A finished run's folder, with things in it that are nobody else's business. */
async function withRun(use: (folder: string) => Promise<void>): Promise<void> {
  await withFolder(async (folder) => {
    for (const name of ["adapter_config.json", "adapter_model.safetensors"]) {
      await Deno.copyFile(`${GOLDEN}/adapter/${name}`, `${folder}/${name}`);
    }
    await Deno.writeTextFile(`${folder}/train_args.yaml`, JSON.stringify(ARGS));
    await Deno.writeTextFile(`${folder}/trainer_state.json`, JSON.stringify(STATE));
    for (const name of ["train.log", "metrics.jsonl", ".longreach.lock", "optimizer.safetensors"]) {
      await Deno.writeTextFile(`${folder}/${name}`, "mine");
    }
    await Deno.mkdir(`${folder}/checkpoint-2`);
    await use(folder);
  });
}

function textOf({ files }: Publication, name: string): string {
  const content = files.find((file) => file.name === name)!.content;
  return typeof content === "string" ? Deno.readTextFileSync(content) : new TextDecoder().decode(content);
}

Deno.test("an adapter goes with what others need of it, a card, and no path of this machine", async () => {
  await withRun(async (folder) => {
    const baseConfig = await readConfig(`${GOLDEN}/mha`);
    const result = await preparePublication(folder, "me/mine", { baseModel: "org/tiny", baseConfig });
    assertEquals([result.kind, result.files.map(({ name }) => name)], ["adapter", [
      "adapter_config.json",
      "adapter_model.safetensors",
      "train_args.yaml",
      "trainer_state.json",
    ]]);
    const config = JSON.parse(textOf(result, "adapter_config.json"));
    const original = JSON.parse(await Deno.readTextFile(`${GOLDEN}/adapter/adapter_config.json`));
    assertEquals(config, { ...original, base_model_name_or_path: "org/tiny" });
    assertEquals(parse(textOf(result, "train_args.yaml")), {
      ...ARGS,
      model_name_or_path: "tiny",
      train_data: ["train.jsonl", "hf://datasets/org/books"],
      output_dir: "first",
    });
    const card = result.card!;
    for (const secret of ["somebody", "secret"]) assert(!card.includes(secret), secret);
    const [, head] = card.split("---\n");
    assertEquals(parse(head!), {
      base_model: "org/tiny",
      datasets: ["org/books"],
      library_name: "peft",
      pipeline_tag: "text-generation",
      tags: ["longreach", "long-context", "lora"],
    });
    assertIncludes(card, "| Trained | LoRA rank 8, alpha 16, on q_proj, k_proj");
    assertIncludes(card, "| RoPE scaling | linear by 2 |");
    assertIncludes(card, "| Context | 128 tokens |");
    assertIncludes(card, "| Data | train.jsonl, hf://datasets/org/books |");
    assertIncludes(card, "| Attention | S2-Attn |");
    assertIncludes(card, "| Steps | 1,200 (1.5 epochs) |");
    assertIncludes(card, "| Training loss at the end | 2.2500 |");
    assertIncludes(card, "| Evaluation loss at the end | 1.5000 (perplexity 4.482) |");
    assertIncludes(card, 'config.rope_scaling = {"rope_type":"linear","factor":2.0}');
    assertIncludes(card, 'PeftModel.from_pretrained(model, "me/mine")');
    assertIncludes(card, "merge --base_model org/tiny --peft_model me/mine --context_size 128");
    await Deno.writeTextFile(`${folder}/README.md`, "my own");
    const again = await preparePublication(folder, "me/mine", { baseModel: "org/tiny" });
    assertEquals([again.card, textOf(again, "README.md")], [undefined, "my own"]);
  });
});

Deno.test("an adapter whose base is a folder, or not named, is not uploaded without --base_model", async () => {
  await withRun(async (folder) => {
    await assertThrows(() => preparePublication(folder, "me/mine"), "not named", "--base_model");
    for (const base of [`${GOLDEN}/mha`, "models/mha/deep", "tests/golden"]) {
      await assertThrows(
        () => preparePublication(folder, "me/mine", { baseModel: base }),
        base,
        "--base_model",
      );
    }
    await Deno.remove(`${folder}/adapter_model.safetensors`);
    await assertThrows(
      () => preparePublication(folder, "me/mine", { baseModel: "org/tiny" }),
      "no adapter_model.safetensors",
    );
  });
});

Deno.test("a model's card tells its context, and the base where the hub has it", async () => {
  await withFolder(async (folder) => {
    for await (const { name } of Deno.readDir(`${GOLDEN}/gqa`)) {
      await Deno.copyFile(`${GOLDEN}/gqa/${name}`, `${folder}/${name}`);
    }
    const raw = JSON.parse(await Deno.readTextFile(`${folder}/config.json`));
    const longreach = { base_model: "org/tiny", peft_model: "/home/x" };
    await Deno.writeTextFile(`${folder}/config.json`, JSON.stringify({ ...raw, longreach }));
    for (const name of ["preprocessor_config.json", "processor_config.json", "other_config.json"]) {
      await Deno.writeTextFile(`${folder}/${name}`, "{}");
    }
    const { kind, files, card } = await preparePublication(folder, "me/merged");
    assertEquals([kind, files.length], ["model", 9]);
    const { rope_scaling } = parseConfig(raw, "config.json");
    assertIncludes(card!, `| RoPE scaling | llama3 by ${rope_scaling!.factor} |`);
    assertIncludes(card!, "base_model: org/tiny");
    assertIncludes(card!, 'AutoModelForCausalLM.from_pretrained("me/merged"');
    assert(!card!.includes("/home/x"), "a path");
    await assertThrows(() => preparePublication(`${folder}/none`, "me/none"), "none");
  });
});
