/** Runs with LoRA as PEFT's settings say, from adapters that have settings of their own, and with more tokens. */
import { readAdapter, writeAdapter } from "../../checkpoint/peft.ts";
import { evaluatePerplexity } from "../../eval/perplexity.ts";
import { Gpu } from "../../kernels/gpu.ts";
import { readConfig } from "../../model/config.ts";
import { generate } from "../../model/generate.ts";
import { convertToGguf } from "../../export/gguf.ts";
import { mergeAdapter } from "../../export/merge.ts";
import { openModel } from "../../model/load/open.ts";
import { trainedNames } from "../../train/lora.ts";
import { runTraining } from "../../train/run.ts";
import { loadTrainArgs } from "../../train_args/load.ts";
import { assert, assertClose, assertEquals, assertThrows } from "../support/assert_close.ts";
import { GOLDEN, withFolder } from "../support/files.ts";

/** A model of 259 tokens, whose tokenizer has one more, and an adapter with that one. */
const GROWN = `${GOLDEN}/faults/04-grown-vocabulary`;

const SETTINGS: Record<string, string> = {
  model_name_or_path: `${GROWN}/base`,
  train_file: `${GROWN}/t.txt`,
  model_max_length: "64",
  load_in_4bit: "false",
  learning_rate: "0.01",
  lora_rank: "4",
  lora_alpha: "8",
  lora_dropout: "0",
  max_steps: "2",
  save_steps: "1",
};

/** Trains, and gives what was said. */
async function train(overrides: Record<string, string>, file: string | null = null): Promise<string[]> {
  const notes: string[] = [];
  const { args } = await loadTrainArgs(file, file === null ? { ...SETTINGS, ...overrides } : overrides);
  await runTraining(args, {
    onStart() {},
    onStep() {},
    onSave() {},
    note: (line) => notes.push(line),
    shouldStop: () => false,
  });
  return notes;
}

async function lossOf(base_model: string, peft_model: string | null): Promise<number> {
  const { valLoss: val_loss } = await evaluatePerplexity({
    baseModel: base_model,
    peftModel: peft_model,
    dataPath: `${GROWN}/ids.bin`,
    seqLen: 64,
    slidingWindow: 64,
    batchSize: 1,
    quantisation: "none",
    dropLastWindow: true,
    dtype: "fp32",
  });
  return val_loss;
}

/** Merges, which compares the merged model with base and adapter. */
async function assertMerges(base_model: string, peft_model: string, save_path: string): Promise<void> {
  const { verification } = await mergeAdapter({
    baseModel: base_model,
    peftModel: peft_model,
    savePath: save_path,
    dtype: "keep",
    maxShardSize: 5e9,
  });
  assert(verification!.maxRelativeDifference < 1e-5, JSON.stringify(verification));
}

/** Settings over a text that the base knows. */
async function withText<T>(
  use: (folder: string, settings: Record<string, string>) => Promise<T>,
): Promise<T> {
  return await withFolder(async (folder) => {
    const train_file = `${folder}/text.txt`;
    await Deno.writeTextFile(train_file, "a text that every tokenizer of bytes knows how to write");
    return await use(folder, { train_file });
  });
}

Deno.test("LoRA on some layers, with ranks of its own: trained, resumed, gone on from, evaluated and merged", async () => {
  await withText(async (folder, settings) => {
    const some = {
      ...settings,
      output_dir: `${folder}/run`,
      target_modules: "layers.0.self_attn.q_proj,down_proj",
      exclude_modules: String.raw`.*\.0\.mlp.*`,
      rank_pattern: "{down_proj: 2}",
      modules_to_save: "lm_head",
      trainable_params: "norm",
      resize_vocabulary: "false",
    };
    await train({ ...some, max_steps: "1" });
    await train({ ...some, resume_from_checkpoint: "true" });
    const { config, lora, extra } = await readAdapter(some.output_dir);
    const modules = ["model.layers.0.self_attn.q_proj", "model.layers.1.mlp.down_proj"];
    assertEquals([[...lora.keys()].sort(), config.target_modules], [modules, modules]);
    assertEquals(modules.map((module) => lora.get(module)!.A.shape[0]), [4, 2]);
    assert(extra.has("lm_head.weight") && extra.has("model.norm.weight"), [...extra.keys()].join());
    const other = `${folder}/other`;
    await train({
      ...settings,
      output_dir: other,
      adapter_name_or_path: some.output_dir,
      modules_to_save: "lm_head",
    });
    const next = await readAdapter(other);
    assertEquals([next.config.target_modules, { ...next.config.rank_pattern }], [modules, { down_proj: 2 }]);
    await assertMerges(`${GROWN}/base`, other, `${folder}/merged`);
    await assertThrows(
      () =>
        train({
          ...settings,
          output_dir: `${folder}/x`,
          adapter_name_or_path: other,
          modules_to_save: "down_proj",
        }),
      'Cannot train "model.layers.1.mlp.down_proj" whole',
    );
    await assertThrows(
      () => train({ ...some, output_dir: `${folder}/y`, modules_to_save: "score" }),
      'modules_to_save: no module of the model has a name that ends in "score"',
    );
  });
});

Deno.test("An adapter that a run goes on from brings its settings, and the run says and writes so", async () => {
  await withText(async (folder, settings) => {
    const own = { target_modules: "q_proj,v_proj", layers_to_transform: "1", alpha_pattern: "{v_proj: 3}" };
    await train({ ...settings, ...own, lora_dropout: "0.25", output_dir: `${folder}/first` });
    const asked = {
      ...settings,
      output_dir: `${folder}/next`,
      adapter_name_or_path: `${folder}/first`,
      lora_rank: "16",
      lora_alpha: "99",
      use_rslora: "true",
      lora_dropout: "0",
      target_modules: "q_proj,k_proj",
      rank_pattern: "{k_proj: 8}",
      layers_to_transform: "0,1",
    };
    const notes = (await train({ ...asked, max_steps: "1" })).join("\n");
    const parts = [
      "lora_rank 4, not 16",
      "lora_alpha 8, not 99",
      "lora_dropout 0.25, not 0;",
      "use_rslora false, not true",
      'not ["q_proj","k_proj"]',
      "layers_to_transform none, not [0,1]",
      'rank_pattern none, not {"k_proj":8}',
    ];
    for (const part of parts) assert(notes.includes(part), `no ${part} in: ${notes}`);
    // The same command goes on, and so do the settings that were written.
    await train({ ...asked, resume_from_checkpoint: "true" });
    const file = `${folder}/next/train_args.yaml`;
    const { args } = await loadTrainArgs(file);
    assertEquals([args.lora_rank, args.lora_alpha, args.lora_dropout, args.use_rslora], [4, 8, 0.25, false]);
    assertEquals([args.layers_to_transform, args.rank_pattern, args.alpha_pattern], [null, null, {
      v_proj: 3,
    }]);
    const modules = ["model.layers.1.self_attn.q_proj", "model.layers.1.self_attn.v_proj"];
    assertEquals(args.target_modules, modules);
    const again = await train({ max_steps: "3", resume_from_checkpoint: "true" }, file);
    assert(!again.some((line) => line.includes("no effect")), again.join("\n"));
    const { config, lora } = await readAdapter(`${folder}/next`);
    assertEquals([config.r, config.lora_alpha, config.lora_dropout, config.use_rslora], [4, 8, 0.25, false]);
    assertEquals([...lora.keys()].sort(), modules);
  });
});

Deno.test("A grown vocabulary works wherever its base does: adapters from elsewhere, and our own", async () => {
  assertClose("loss", [await lossOf(`${GROWN}/base`, `${GROWN}/adapter`)], [5.8329539], {
    rtol: 1e-6,
    atol: 0,
  });
  await withFolder(async (folder) => {
    const elsewhere = { adapter_name_or_path: `${GROWN}/adapter` };
    const grown = { resize_vocabulary: "true" };
    const runs: Record<string, Record<string, string>> = {
      kept: elsewhere,
      trained: { ...elsewhere, modules_to_save: "embed_tokens,lm_head" },
      // The head's new row is the mean of the others, in every command.
      embeddings: { ...grown, modules_to_save: "embed_tokens" },
      both: { ...grown, train_embedding: "true" },
    };
    for (const [name, settings] of Object.entries(runs)) {
      const output_dir = `${folder}/${name}`;
      const notes = await train({ ...settings, output_dir, max_steps: "1" });
      assertEquals(
        notes.some((line) => line.includes("stay as they are")),
        name === "kept",
        notes.join("\n"),
      );
      const { extra } = await readAdapter(output_dir);
      assertEquals(extra.get("model.embed_tokens.weight")!.shape, [260, 16], name);
      assertEquals(extra.has("lm_head.weight"), name !== "embeddings", name);
    }
    for (const name of ["embeddings", "both"]) {
      await train({ ...runs[name], output_dir: `${folder}/${name}`, resume_from_checkpoint: "true" });
      await assertMerges(`${GROWN}/base`, `${folder}/${name}`, `${folder}/${name}-merged`);
    }
    const losses = [
      await lossOf(`${GROWN}/base`, `${folder}/both`),
      await lossOf(`${folder}/both-merged`, null),
    ];
    assertClose("the merged model's loss", [losses[1]!], [losses[0]!], { rtol: 1e-5, atol: 0 });
    await train({ output_dir: `${folder}/next`, adapter_name_or_path: `${folder}/embeddings` });
    assertEquals((await readConfig(`${folder}/both-merged`)).vocab_size, 260);
    await convertToGguf(`${folder}/both-merged`, `${folder}/model.gguf`);
    using gpu = await Gpu.open();
    const { model } = await openModel(gpu, {
      baseModel: `${GROWN}/base`,
      peftModel: `${folder}/both`,
      quantisation: "none",
    });
    assertEquals((await generate(model, [259, 5], { maxNewTokens: 3, temperature: 0 })).length, 3);
  });
});

Deno.test("A grown vocabulary that does not fit is refused, with what would", async () => {
  await withFolder(async (folder) => {
    const output_dir = `${folder}/run`;
    await assertThrows(() => train({ output_dir }), "token id 259", "has 259 tokens");
    const evaluated = {
      eval_file: `${GROWN}/t.txt`,
      eval_strategy: "epoch",
      train_file: `${folder}/text.txt`,
    };
    await Deno.writeTextFile(evaluated.train_file, "bytes alone");
    await assertThrows(() => train({ output_dir, ...evaluated }), "Cannot evaluate on", "token id 259");
    // A tokenizer with yet another token than the adapter has.
    const base = `${folder}/base`;
    await Deno.mkdir(base);
    for (const name of ["config.json", "model.safetensors", "tokenizer_config.json"]) {
      await Deno.copyFile(`${GROWN}/base/${name}`, `${base}/${name}`);
    }
    const tokenizer = JSON.parse(await Deno.readTextFile(`${GROWN}/base/tokenizer.json`));
    const added = { ...tokenizer.added_tokens.at(-1), id: 260, content: "<more>" };
    tokenizer.added_tokens.push(added);
    await Deno.writeTextFile(`${base}/tokenizer.json`, JSON.stringify(tokenizer));
    const more = {
      output_dir,
      model_name_or_path: base,
      resize_vocabulary: "true",
      modules_to_save: "embed_tokens",
    };
    await assertThrows(
      () => train({ ...more, adapter_name_or_path: `${GROWN}/adapter` }),
      "resize_vocabulary",
      "261 tokens",
      "260 rows",
      "Merge the adapter",
    );
    await train(more);
    assertEquals((await readAdapter(output_dir)).extra.get("model.embed_tokens.weight")!.shape[0], 261);
  });
});

Deno.test("A tied table that is trained is written for both ends, and stays one table here", async () => {
  await withFolder(async (folder) => {
    const base = `${folder}/base`;
    await Deno.mkdir(base);
    for (const { name } of Deno.readDirSync(`${GROWN}/base`)) {
      await Deno.copyFile(`${GROWN}/base/${name}`, `${base}/${name}`);
    }
    const config = JSON.parse(await Deno.readTextFile(`${base}/config.json`));
    await Deno.writeTextFile(`${base}/config.json`, JSON.stringify({ ...config, tie_word_embeddings: true }));
    const settings = {
      model_name_or_path: base,
      output_dir: `${folder}/run`,
      resize_vocabulary: "true",
      modules_to_save: "embed_tokens",
    };
    await train({ ...settings, max_steps: "1" });
    await train({ ...settings, resume_from_checkpoint: "true" });
    const { extra, config: { modules_to_save } } = await readAdapter(settings.output_dir);
    assertEquals(modules_to_save, ["embed_tokens", "lm_head"]);
    const [embeddings, head] = ["model.embed_tokens.weight", "lm_head.weight"].map((name) =>
      extra.get(name)!
    );
    assertEquals([...embeddings!.data], [...head!.data]);
    await assertMerges(base, settings.output_dir, `${folder}/merged`);
    assertEquals((await readConfig(`${folder}/merged`)).tie_word_embeddings, true);

    // As PEFT trains one end of it, which parts it from the other.
    const one = `${folder}/one`;
    await Deno.mkdir(one);
    const adapter = await readAdapter(settings.output_dir);
    const table = {
      ...embeddings!,
      data: embeddings!.data.map((value, i) => i % 7 === 0 ? value + 0.5 : value),
    };
    await writeAdapter(one, { ...adapter, extra: new Map([["model.embed_tokens.weight", table]]) });
    const next = { model_name_or_path: base, adapter_name_or_path: one, output_dir: `${folder}/next` };
    const notes = await train({ ...next, max_steps: "1" });
    assert(notes.some((line) => line.includes("the head stays as the base has it")), notes.join("\n"));
    assertEquals([...(await readAdapter(next.output_dir)).extra.keys()], ["model.embed_tokens.weight"]);
    await assertMerges(base, next.output_dir, `${folder}/parted`);
    assertEquals((await readConfig(`${folder}/parted`)).tie_word_embeddings, false);
    const [apart, merged] = [await lossOf(base, next.output_dir), await lossOf(`${folder}/parted`, null)];
    assertClose("loss", [merged], [apart], { rtol: 1e-5, atol: 0 });
  });
});

Deno.test("New tokens want the embeddings trained, by whatever names the architecture has for them", async () => {
  const configs = [await readConfig(`${GOLDEN}/mha`), await readConfig(`${GOLDEN}/neox`)];
  const names = async (index: number, given: Record<string, string>) => {
    const fixed = { ...SETTINGS, output_dir: "-", resize_vocabulary: "true" };
    const { args } = await loadTrainArgs(null, { ...fixed, ...given });
    return trainedNames(configs[index]!, args);
  };
  for (const given of [{ trainable_params: "embed" }, { train_embedding: "true" }]) {
    for (const index of [0, 1]) await names(index, given);
  }
  await names(1, { modules_to_save: "embed_in" });
  for (const given of [{}, { trainable_params: "norm" }, { modules_to_save: "lm_head" }]) {
    await assertThrows(() => names(0, given), "resize_vocabulary", "neither be learnt nor saved");
  }
});
