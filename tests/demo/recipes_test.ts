import { demoFiles } from "../../demo/make_data.ts";
import { BASE_CONTEXT } from "../../demo/vocabulary.ts";
import { loadTrainArgs } from "../../train_args/load.ts";
import { assertEquals } from "../support/assert_close.ts";

async function recipe(name: string) {
  const { args } = await loadTrainArgs(new URL(`../../demo/${name}.yaml`, import.meta.url).pathname, {});
  return args;
}

Deno.test("the demo's recipes are valid and follow each other", async () => {
  const [first, second, extend] = [
    await recipe("base-64"),
    await recipe("base-256"),
    await recipe("extend-1024"),
  ];
  const made = demoFiles("output/make_demo/data");
  assertEquals([first.model_name_or_path, first.train_file], [made.model, made.base64]);
  assertEquals([second.model_name_or_path, second.train_file], [first.output_dir, made.base256]);
  assertEquals([extend.model_name_or_path, extend.train_file], [
    "demo/model",
    demoFiles("output/demo/data").extend,
  ]);
  assertEquals([first.max_seq_length, second.max_seq_length, extend.max_seq_length], [
    64,
    BASE_CONTEXT,
    1024,
  ]);
  assertEquals([first.attention, second.attention, extend.attention], ["full", "full", "s2"]);
});
