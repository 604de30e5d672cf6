/** What a key of Granite's config.json means, and its published sizes. */
import { parseConfig } from "../../model/config.ts";
import { shapeConfig } from "../../model/shapes.ts";
import { checkpointTensors, countParameters } from "../../model/tensors.ts";
import { assertEquals, assertThrows } from "../support/assert_close.ts";
import { GOLDEN } from "../support/files.ts";

const raw = JSON.parse(Deno.readTextFileSync(`${GOLDEN}/granite/config.json`));
const parse = (changes: Record<string, unknown>) => parseConfig({ ...raw, ...changes }, "config.json");

Deno.test("Granite's multipliers are 1 where its config has none, that of the scores too", async () => {
  const multipliers = (config: Record<string, unknown>) => {
    const { attention_multiplier, embedding_multiplier, residual_multiplier, logits_scaling } = config;
    return [attention_multiplier, embedding_multiplier, residual_multiplier, logits_scaling];
  };
  const given = parse({}) as unknown as Record<string, unknown>;
  assertEquals(multipliers(given), [0.0625, 12, 0.22, 8]);
  const {
    attention_multiplier: _,
    embedding_multiplier: __,
    residual_multiplier: ___,
    logits_scaling: ____,
    tie_word_embeddings: _____,
    ...rest
  } = raw;
  const config = parseConfig(rest, "config.json");
  assertEquals(multipliers(config as unknown as Record<string, unknown>), [1, 1, 1, 1]);
  assertEquals(config.tie_word_embeddings, false);
  await assertThrows(() => parse({ logits_scaling: 0 }), "logits_scaling");
  await assertThrows(() => parse({ hidden_act: "gelu" }), 'hidden_act is "gelu"', '"granite"');
  await assertThrows(() => parse({ num_local_experts: 8 }), "its num_local_experts is 8");
  await assertThrows(
    () => parse({ position_embedding_type: "nope" }),
    'its position_embedding_type is "nope"',
  );
});

Deno.test("Granite's blocks multiply what they give, and other architectures refuse its keys", async () => {
  const biased = [...checkpointTensors(parse({ attention_bias: true, mlp_bias: true })).keys()];
  assertEquals(biased.filter((name) => name.endsWith(".bias")).length, 14);
  for (
    const key of ["attention_multiplier", "embedding_multiplier", "residual_multiplier", "logits_scaling"]
  ) {
    const { [key]: value, ...rest } = raw;
    const llama = { ...rest, model_type: "llama" };
    for (const other of ["attention", "embedding", "residual"]) delete llama[`${other}_multiplier`];
    delete llama.logits_scaling;
    await assertThrows(
      () => parseConfig({ ...llama, [key]: value }, "config.json"),
      `its ${key} is ${value}`,
    );
  }
});

Deno.test("Granite's published models have as many parameters as their cards say", () => {
  assertEquals(countParameters(shapeConfig("granite-3.1-2b")), 2_533_531_648);
  assertEquals(countParameters(shapeConfig("granite-3.1-8b")), 8_170_848_256);
});
