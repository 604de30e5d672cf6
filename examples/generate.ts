/**
 * Writes on from a prompt, with a base model and the adapter that was trained for it:
 *
 *     deno run --config deno.json --allow-read --allow-write --allow-env \
 *       examples/generate.ts models/base output/long "Once upon a time"
 */
import { generate, openGpu, openModel, Tokenizer } from "@longreach/longreach";

const [baseModel, peftModel, prompt] = Deno.args;
if (!baseModel || !peftModel || !prompt) throw new Error("Usage: generate.ts MODEL ADAPTER PROMPT");

using gpu = await openGpu();
const { model } = await openModel(gpu, { baseModel, peftModel });
const tokenizer = await Tokenizer.load(baseModel, peftModel);
const ids = await generate(model, tokenizer.encode(prompt), {
  maxNewTokens: 40,
  temperature: 0.7,
  topP: 0.9,
});
console.log(prompt + tokenizer.decode(ids, { skipSpecial: true }));
