/** What a device is sent for one token: each dispatch costs microseconds on a GPU, whatever it computes. */
import { adapterConfig, type AdapterOptions } from "../../checkpoint/peft.ts";
import { TYPICAL_LIMITS } from "../../kernels/dry_device.ts";
import { type Dispatch, Gpu, type Sharing } from "../../kernels/gpu.ts";
import type { Quantisation } from "../../kernels/quantisation.ts";
import { addLora } from "../../model/lora.ts";
import { Decoder } from "../../model/decoder.ts";
import type { ModelConfig } from "../../model/model_config.ts";
import { assert, assertEquals } from "../support/assert_close.ts";
import { load, smallConfig } from "./support.ts";

const SAMPLING = { temperature: 0, topK: 0, topP: 1, minP: 0, repetitionPenalty: 1, seed: 0 };

/** Dispatches of a token besides those of rotation and cache, in their order. */
async function dispatchesOf(
  config: ModelConfig,
  {
    sharing = "workgroup" as Sharing,
    sequences = 1,
    adapter = undefined as Partial<AdapterOptions> | undefined,
    quantisation = "none" as Quantisation,
    limits = TYPICAL_LIMITS,
  } = {},
): Promise<string[]> {
  const dispatches: string[] = [];
  const onDispatch = ({ kernel, bindings }: Dispatch): void => {
    dispatches.push(kernel);
    const most = limits.maxStorageBuffersPerShaderStage;
    assert(bindings.length <= most, `"${kernel}" binds ${bindings.length} buffers of ${most}`);
  };
  const gpu = Gpu.dry({ limits, sharing, onDispatch });
  const model = await load(gpu, config, undefined, { quantisation });
  if (adapter) addLora(model, adapterConfig({ r: 8, lora_alpha: 16, target_modules: null, ...adapter }), 1);
  const decoder = new Decoder(model, { sequences, capacity: 8 });
  for (let i = 0; i < sequences; i++) decoder.prefill(i, [1, 2, 3]);
  const drawn = gpu.empty([sequences], "u32");
  dispatches.length = 0;
  decoder.sample(SAMPLING, drawn, 0);
  decoder.advance();
  const others = dispatches.filter((kernel) => !/rope|cache/.test(kernel));
  return others.map((kernel) =>
    kernel.replace(/_(quads|pairs|nf4(_words)?(_nested)?)/, "").replace(/_(work|sub)group$/, "")
  );
}

const NORMED = "matvec_norm";
/** Queries, keys and values; gate and up. */
const [QKV, GATE_UP] = [`${NORMED}_3_parts`, `${NORMED}_2_parts`];

Deno.test("Products make norms and gated activations while few sequences are written", async () => {
  const layer = [QKV, "matvec", GATE_UP, "matvec_swiglu"];
  const token = [NORMED, "sample", "embed", ...layer, ...layer];
  assertEquals(await dispatchesOf(smallConfig()), token);
  assertEquals(await dispatchesOf(smallConfig(), { sequences: 8 }), token);
  const apart = ["rms_norm", "swiglu"];
  const nine = await dispatchesOf(smallConfig(), { sequences: 9 });
  assertEquals(nine.filter((kernel) => apart.includes(kernel)).length, 5 + 2);
  const gemma2 = await dispatchesOf(smallConfig({ model_type: "gemma2", head_dim: 8 }));
  assertEquals(gemma2.filter((kernel) => kernel.includes("geglu")), Array(2).fill("matvec_geglu"));
  const fused = [NORMED, "split_qkv", "matvec", NORMED, "matvec_swiglu"];
  const phi3 = await dispatchesOf(smallConfig({ model_type: "phi3" }));
  assertEquals(phi3, [NORMED, "sample", "embed", ...fused, ...fused]);
});

Deno.test("An adapter that is not merged adds a product for each place that linears read, of four in a layer", async () => {
  const layer = [
    QKV,
    "matvec_norm_inner_3_parts",
    "matvec",
    "matvec_inner",
    GATE_UP,
    "matvec_norm_inner_2_parts",
    "matvec_swiglu",
    "matvec_swiglu_inner",
  ];
  const token = [NORMED, "sample", "embed", ...layer, ...layer];
  assertEquals(await dispatchesOf(smallConfig(), { adapter: {} }), token);
  // Factors that do not scale alike are not one product.
  const apart = await dispatchesOf(smallConfig(), { adapter: { alpha_pattern: { k_proj: 3 } } });
  assertEquals(apart.length, token.length + 2 * 2);
  // Linears without an adapter are part of the dispatch.
  const some = await dispatchesOf(smallConfig(), { adapter: { target_modules: ["q_proj", "v_proj"] } });
  assertEquals(some.slice(3, 6), [`${NORMED}_2_parts`, "matvec_norm_inner_3_parts", "matvec"]);
});

Deno.test("A software adapter makes them once for all workgroups", async () => {
  const layer = ["rms_norm", "matvec_3_parts", "matvec", "rms_norm", "matvec_2_parts", "swiglu", "matvec"];
  const token = ["rms_norm", "matvec", "sample", "embed", ...layer, ...layer];
  assertEquals(await dispatchesOf(smallConfig(), { sharing: "subgroup" }), token);
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

Deno.test("Linears in 4 bits that read the same rows are one dispatch as others are", async () => {
  const layer = [QKV, "matvec", GATE_UP, "matvec_swiglu"];
  for (const quantisation of ["nf4", "nf4-double"] as const) {
    const token = await dispatchesOf(smallConfig(), { quantisation });
    assertEquals(token, [NORMED, "sample", "embed", ...layer, ...layer], quantisation);
  }
});

Deno.test("Where a kernel may bind 8 buffers, what products with an adapter on nested 4 bits read is made by kernels of its own", async () => {
  const limits = { ...TYPICAL_LIMITS, maxStorageBuffersPerShaderStage: 8 };
  const quantisation = "nf4-double";
  const layer = [
    ...["rms_norm", "matvec_3_parts", "matvec_inner_3_parts", "matvec", "matvec_inner"],
    ...["rms_norm", "matvec_2_parts", "matvec_inner_2_parts", "swiglu", "matvec", "matvec_inner"],
  ];
  assertEquals(await dispatchesOf(smallConfig(), { quantisation, limits, adapter: {} }), [
    ...[NORMED, "sample", "embed"],
    ...layer,
    ...layer,
  ]);
  for (const options of [{ quantisation }, { quantisation: "nf4", adapter: {} }, { adapter: {} }] as const) {
    const free = await dispatchesOf(smallConfig(), options);
    assertEquals(await dispatchesOf(smallConfig(), { ...options, limits }), free);
  }
});
