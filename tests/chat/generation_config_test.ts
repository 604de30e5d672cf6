import { readGenerationConfig } from "../../chat/generation_config.ts";
import { assertEquals, assertThrows } from "../support/assert_close.ts";
import { withFolder } from "../support/files.ts";

/** What is read of a `generation_config.json` of this text. */
function read(text: string | null) {
  return withFolder(async (folder) => {
    if (text !== null) await Deno.writeTextFile(`${folder}/generation_config.json`, text);
    return await readGenerationConfig(folder);
  });
}

Deno.test("generation_config.json: one stop token or several, sampling, and greedy without do_sample", async () => {
  assertEquals(await read(null), { stopIds: [], sampling: {} });
  assertEquals(await read('{"eos_token_id": 2}'), { stopIds: [2], sampling: {} });
  assertEquals(
    await read(
      '{"eos_token_id": [7, 9], "do_sample": true, "temperature": 0.7, "top_p": 0.8, "top_k": 20, "min_p": 0.1}',
    ),
    { stopIds: [7, 9], sampling: { temperature: 0.7, topK: 20, topP: 0.8, minP: 0.1 } },
  );
  assertEquals(await read('{"do_sample": false, "temperature": 0.7, "repetition_penalty": 1.1}'), {
    stopIds: [],
    sampling: { temperature: 0, repetitionPenalty: 1.1 },
  });
  assertEquals(await read('{"eos_token_id": null, "top_p": null}'), { stopIds: [], sampling: {} });
});

Deno.test("what it cannot mean is refused by its key", async () => {
  await assertThrows(
    () => read('{"eos_token_id": "</s>"}'),
    "generation_config.json",
    "eos_token_id",
    "</s>",
  );
  await assertThrows(() => read('{"top_p": 2}'), "top_p is 2");
  await assertThrows(() => read('{"temperature": "hot"}'), 'temperature is "hot"');
  await assertThrows(() => read("{"), "is not JSON");
});
