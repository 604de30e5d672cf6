/** What a device is sent for one token: each dispatch costs microseconds on a GPU, whatever it computes. */
import { TYPICAL_LIMITS } from "../../kernels/dry_device.ts";
import { Gpu, type Sharing } from "../../kernels/gpu.ts";
import { Decoder } from "../../model/decoder.ts";
import type { ModelConfig } from "../../model/model_config.ts";
import { assertEquals } from "../support/assert_close.ts";
import { load, smallConfig } from "./support.ts";

const SAMPLING = { temperature: 0, topK: 0, topP: 1, minP: 0, repetitionPenalty: 1, seed: 0 };

/** Dispatches of a token besides those of rotation and cache, in their order. */
async function dispatchesOf(
  config: ModelConfig,
  { sharing = "workgroup" as Sharing, sequences = 1 } = {},
): Promise<string[]> {
  const dispatches: string[] = [];
  const gpu = Gpu.dry({
    limits: TYPICAL_LIMITS,
    sharing,
    onDispatch: ({ kernel }) => dispatches.push(kernel),
  });
  const model = await load(gpu, config);
  const decoder = new Decoder(model, { sequences, capacity: 8 });
  for (let i = 0; i < sequences; i++) decoder.prefill(i, [1, 2, 3]);
  const drawn = gpu.empty([sequences], "u32");
  dispatches.length = 0;
  decoder.sample(SAMPLING, drawn, 0);
  decoder.advance();
  const others = dispatches.filter((kernel) => !/rope|cache/.test(kernel));
  return others.map((kernel) => kernel.replace(/_(quads|pairs)/, "").replace(/_(work|sub)group$/, ""));
}

const NORMED = "matvec_norm";
const ATTENTION = [NORMED, NORMED, NORMED, "matvec"];
const LAYER = [...ATTENTION, NORMED, NORMED, "swiglu", "matvec"];

Deno.test("No norm of a LLaMA is a dispatch of its own while few sequences are written", async () => {
  const token = [NORMED, "sample", "embed", ...LAYER, ...LAYER];
  for (const sharing of ["workgroup", "subgroup"] as const) {
    assertEquals(await dispatchesOf(smallConfig(), { sharing }), token, sharing);
  }
  assertEquals(await dispatchesOf(smallConfig(), { sequences: 8 }), token);
  const nine = await dispatchesOf(smallConfig(), { sequences: 9 });
  assertEquals(nine.filter((kernel) => kernel === "rms_norm").length, 5);
});

Deno.test("Norms that products do not make stay kernels: LayerNorm, and those behind blocks or of queries and keys", async () => {
  const norms = async (model_type: string, changes = {}) => {
    const dispatches = await dispatchesOf(smallConfig({ model_type, ...changes }));
    return dispatches.filter((kernel) => /norm$/.test(kernel) && kernel !== NORMED);
  };
  assertEquals(await norms("gpt_neox", { rotary_pct: 0.5 }), Array(5).fill("layer_norm"));
  assertEquals(await norms("qwen3", { head_dim: 8 }), Array(4).fill("rms_norm"));
  assertEquals(await norms("gemma2", { head_dim: 8 }), Array(4).fill("rms_norm"));
});
