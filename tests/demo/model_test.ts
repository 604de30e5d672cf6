import { Random } from "../../data/random.ts";
import { Tokenizer } from "../../data/tokenizer.ts";
import { recallCase } from "../../demo/corpus.ts";
import { demoConfig, demoTokenizer } from "../../demo/vocabulary.ts";
import { scoreRecall } from "../../eval/recall.ts";
import { Gpu } from "../../kernels/gpu.ts";
import { openModel } from "../../model/load/open.ts";
import { assert, assertEquals } from "../support/assert_close.ts";

const MODEL = "demo/model";

Deno.test("the demo's base model is of the generator's vocabulary and shape", async () => {
  const tokenizer = JSON.parse(await Deno.readTextFile(`${MODEL}/tokenizer.json`));
  assertEquals(tokenizer, demoTokenizer());
  const config = JSON.parse(await Deno.readTextFile(`${MODEL}/config.json`));
  const { vocab_size, hidden_size, num_hidden_layers, max_position_embeddings } = demoConfig() as Record<
    string,
    unknown
  >;
  assertEquals(
    [config.vocab_size, config.hidden_size, config.num_hidden_layers, config.max_position_embeddings],
    [vocab_size, hidden_size, num_hidden_layers, max_position_embeddings],
  );
});

Deno.test("the demo's base model recalls a fact over 150 to 240 tokens, nine times in ten", async () => {
  using gpu = await Gpu.open();
  const { model } = await openModel(gpu, { baseModel: MODEL, contextSize: 256, quantisation: "none" });
  const tokenizer = await Tokenizer.load(MODEL);
  const random = new Random(99);
  const cases = Array.from({ length: 60 }, () => {
    const { prompt, answer } = recallCase(random, 256, { shortest: 150, longest: 240 });
    const tokens = Uint32Array.from(tokenizer.encode(prompt, { bos: true, eos: false }));
    return { tokens, answer: tokenizer.encode(answer, { bos: false, eos: false })[0]! };
  });
  const { right } = await scoreRecall(model, cases);
  assert(right >= 54, `${right} of 60 facts recalled`);
});
