/**
 * LLaMA as an ONNX graph with the operators that onnxruntime's exporter for generation writes: packed products of q, k and
 * v, GroupQueryAttention that rotates and keeps keys and values, norms that add the residual, MatMulNBits for 4 bits.
 */
import { layoutOf } from "../../model/tensors.ts";
import { ropeTables } from "../../model/rope.ts";
import type { HostArray } from "./entrant.ts";
import { BLOCK, type HostMatrix, type HostModel } from "./host_model.ts";
import { ELEMENT, type Graph, type Initializer, type Node } from "./onnx_model.ts";
import { bytesOf, constant } from "./onnxruntime.ts";

/** Names of a layer's keys and values, before and after the new tokens. */
export const cacheNames = (layer: number) => ({
  past: [`past.${layer}.key`, `past.${layer}.value`] as const,
  present: [`present.${layer}.key`, `present.${layer}.value`] as const,
});

/**
 * A graph of `input_ids` (1, T), the keys and values of the tokens before (1, H, P, D), and their number, to the last
 * token's `logits` (1, V) and all keys and values.
 * @param capacity positions of the rotary tables
 */
export function llamaGraph(model: HostModel, capacity: number): Graph {
  const { config } = model;
  const layout = layoutOf(config);
  const element = model.format === "f16" ? ELEMENT.float16 : ELEMENT.float;
  const held = (name: string, array: HostArray) => constant(name, array, element);
  const nodes: Node[] = [];
  const initializers: Initializer[] = [];
  const add = (op: string, inputs: string[], output: string, more: Partial<Node> = {}): string => {
    nodes.push({ op, inputs, outputs: [output], ...more });
    return output;
  };
  const MICROSOFT = { domain: "com.microsoft" };
  const floats = { epsilon: layout.norm.eps };
  /** One product of several linears that read the same input. */
  const product = (x: string, names: readonly string[], output: string): string => {
    const linears = names.map((name) => model.matrices.get(name)!);
    const K = linears[0]!.shape[1];
    const N = linears.reduce((sum, { shape }) => sum + shape[0], 0);
    if (linears.some(({ ternary }) => !ternary)) {
      initializers.push(held(`${output}.weight`, transposed([N, K], linears.map(({ data }) => data))));
      return add("MatMul", [x, `${output}.weight`], output);
    }
    initializers.push(...fourBits(output, [N, K], linears));
    return add("MatMulNBits", [x, `${output}.codes`, `${output}.scales`], output, {
      ...MICROSOFT,
      attributes: { K, N, bits: 4, block_size: ONNX_BLOCK },
    });
  };
  const tables = ropeTables(config, capacity);
  const half = config.rotary_dim / 2;
  initializers.push(
    held("embeddings", model.matrices.get(`${layout.embeddings}.weight`)!),
    held("cos", { shape: [capacity, half], data: tables.cos as Float32Array<ArrayBuffer> }),
    held("sin", { shape: [capacity, half], data: tables.sin as Float32Array<ArrayBuffer> }),
  );
  let residual = add("Gather", ["embeddings", "input_ids"], "embedded");
  let block: string | undefined;
  /** Adds what the last block gave to the residual, and norms the sum. */
  const norm = (weight: string, output: string): string => {
    initializers.push(held(weight, model.norms.get(weight)!));
    if (block === undefined) {
      return add("SimplifiedLayerNormalization", [residual, weight], output, { floats });
    }
    const sum = `${output}.sum`;
    nodes.push({
      op: "SkipSimplifiedLayerNormalization",
      ...MICROSOFT,
      inputs: [residual, block, weight],
      outputs: [output, "", "", sum],
      floats,
    });
    residual = sum;
    return output;
  };
  for (let layer = 0; layer < config.num_hidden_layers; layer++) {
    const within = `${layout.layers}.${layer}`;
    const weights = (...modules: string[]) => modules.map((module) => `${within}.${module}.weight`);
    const { past, present } = cacheNames(layer);
    const x = norm(`${within}.input_layernorm.weight`, `${within}.norm1`);
    const qkv = product(
      x,
      weights("self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj"),
      `${within}.qkv`,
    );
    nodes.push({
      op: "GroupQueryAttention",
      ...MICROSOFT,
      inputs: [qkv, "", "", ...past, "last", "total", "cos", "sin"],
      outputs: [`${within}.attended`, ...present],
      attributes: {
        num_heads: config.num_attention_heads,
        kv_num_heads: config.num_key_value_heads,
        do_rotary: 1,
        rotary_interleaved: 0,
      },
    });
    block = product(`${within}.attended`, weights("self_attn.o_proj"), `${within}.o`);
    const y = norm(`${within}.post_attention_layernorm.weight`, `${within}.norm2`);
    const gate = product(y, weights("mlp.gate_proj"), `${within}.gate`);
    const up = product(y, weights("mlp.up_proj"), `${within}.up`);
    const sigmoid = add("Sigmoid", [gate], `${within}.sigmoid`);
    const silu = add("Mul", [gate, sigmoid], `${within}.silu`);
    const hidden = add("Mul", [silu, up], `${within}.hidden`);
    block = product(hidden, weights("mlp.down_proj"), `${within}.down`);
  }
  const normed = norm(`${layout.norm.name}.weight`, "normed");
  initializers.push({
    name: "minus_one",
    type: ELEMENT.int64,
    shape: [],
    bytes: bytesOf(BigInt64Array.of(-1n)),
  });
  // The head reads the last token alone.
  const last = add("Gather", [normed, "minus_one"], "last_state", { attributes: { axis: 1 } });
  product(last, [`${config.tie_word_embeddings ? layout.embeddings : layout.head}.weight`], "held_logits");
  add("Cast", ["held_logits"], "logits", { attributes: { to: ELEMENT.float } });
  const cacheShape = (length: string) => [1, config.num_key_value_heads, length, config.head_dim];
  const layers = Array.from({ length: config.num_hidden_layers }, (_, layer) => cacheNames(layer));
  const caches = (names: readonly string[], length: string) =>
    names.map((name) => ({ name, type: element, shape: cacheShape(length) }));
  return {
    nodes,
    initializers,
    inputs: [
      { name: "input_ids", type: ELEMENT.int64, shape: [1, "T"] },
      { name: "last", type: ELEMENT.int32, shape: [1] },
      { name: "total", type: ELEMENT.int32, shape: [1] },
      ...layers.flatMap(({ past }) => caches(past, "P")),
    ],
    outputs: [
      { name: "logits", type: ELEMENT.float, shape: [1, config.vocab_size] },
      ...layers.flatMap(({ present }) => caches(present, "S")),
    ],
  };
}

/** Weights in blocks of this many share a scale in MatMulNBits: the exporter's own choice. */
const ONNX_BLOCK = 32;

/** MatMul reads (K, N). */
function transposed([N, K]: readonly [number, number], parts: readonly Float32Array[]): HostArray {
  const data = new Float32Array(N * K);
  let row = 0;
  for (const part of parts) {
    for (let i = 0; i < part.length; i += K, row++) {
      for (let k = 0; k < K; k++) data[k * N + row] = part[i + k]!;
    }
  }
  return { shape: [K, N], data };
}

/** A weight is (code - 8) * scale, two codes a byte, the earlier in the low half. */
function fourBits(
  name: string,
  [N, K]: readonly [number, number],
  linears: readonly HostMatrix[],
): Initializer[] {
  const codes = new Uint8Array(N * K / 2);
  const scales = new Float32Array(N * K / ONNX_BLOCK);
  let at = 0;
  for (const { ternary } of linears) {
    const { signs, scales: ours } = ternary!;
    for (let i = 0; i < signs.length; i += 2) {
      codes[(at + i) / 2] = 8 + signs[i]! + 16 * (8 + signs[i + 1]!);
    }
    for (let i = 0; i < signs.length; i += ONNX_BLOCK) {
      scales[(at + i) / ONNX_BLOCK] = ours[Math.floor(i / BLOCK)]!;
    }
    at += signs.length;
  }
  const blocks = K / ONNX_BLOCK;
  return [
    { name: `${name}.codes`, type: ELEMENT.uint8, shape: [N, blocks, ONNX_BLOCK / 2], bytes: codes },
    constant(`${name}.scales`, { shape: [N * blocks], data: scales }),
  ];
}
