/** What a GGUF file is made from: config, tokenizer and weights. What is written must parse and hold the same. */
import { gguf } from "@huggingface/gguf";
import { toF32 } from "../../../checkpoint/dtype.ts";
import { openWeights } from "../../../checkpoint/weights.ts";
import { convertToGguf } from "../../../export/gguf.ts";
import { safetensorsBytes } from "../../checkpoint/support.ts";
import { assert } from "../../support/assert_close.ts";
import { normal } from "../../support/random.ts";
import type { Dice } from "../dice.ts";
import { mutateBytes, mutateJson, utf8 } from "../mutate.ts";
import { joinParts, splitParts } from "../parts.ts";
import type { Reader } from "../reader.ts";
import { SMALL_TOKENIZER } from "../small_tokenizer.ts";

const [V, C, F, H, KV, D] = [9, 8, 12, 2, 1, 4];
const CONFIG = JSON.stringify({
  model_type: "llama",
  vocab_size: V,
  hidden_size: C,
  intermediate_size: F,
  num_hidden_layers: 1,
  num_attention_heads: H,
  num_key_value_heads: KV,
  head_dim: D,
  max_position_embeddings: 64,
  rms_norm_eps: 1e-5,
  rope_theta: 10000,
  hidden_act: "silu",
  tie_word_embeddings: false,
  torch_dtype: "float32",
});
const TOKENIZER_CONFIG = JSON.stringify({
  bos_token: "<s>",
  eos_token: "</s>",
  add_bos_token: true,
  chat_template: "x",
});

const SHAPES: readonly [name: string, shape: readonly number[]][] = [
  ["model.embed_tokens.weight", [V, C]],
  ["model.layers.0.input_layernorm.weight", [C]],
  ["model.layers.0.self_attn.q_proj.weight", [H * D, C]],
  ["model.layers.0.self_attn.k_proj.weight", [KV * D, C]],
  ["model.layers.0.self_attn.v_proj.weight", [KV * D, C]],
  ["model.layers.0.self_attn.o_proj.weight", [C, H * D]],
  ["model.layers.0.mlp.gate_proj.weight", [F, C]],
  ["model.layers.0.mlp.up_proj.weight", [F, C]],
  ["model.layers.0.mlp.down_proj.weight", [C, F]],
  ["model.layers.0.post_attention_layernorm.weight", [C]],
  ["model.norm.weight", [C]],
  ["lm_head.weight", [V, C]],
];

/** The weights, or some of them in other shapes, types and under other names. */
function weights(dice: Dice, damage: boolean): Uint8Array {
  let at = 0;
  const odd = damage ? dice.below(SHAPES.length) : -1;
  const kind = dice.below(5);
  const pieces: Uint8Array[] = [];
  const members = SHAPES.flatMap(([name, shape], i) => {
    if (i === odd && kind === 0) return [];
    const isOdd = i === odd;
    const actual = isOdd && kind === 1 ? [...shape].reverse() : isOdd && kind === 2 ? [...shape, 1] : shape;
    const dtype = isOdd && kind === 3 ? dice.pick(["F16", "BF16", "F64", "I64", "U8", "BOOL"]) : "F32";
    const size = actual.reduce((product, axis) => product * axis, 1);
    const bytes = { F64: 8, I64: 8, F16: 2, BF16: 2, U8: 1, BOOL: 1 }[dtype] ?? 4;
    const piece = new Uint8Array(size * bytes);
    piece.set(new Uint8Array(normal(i, size).buffer).subarray(0, piece.length));
    if (isOdd && kind === 4) piece.fill(0xff, 0, 4);
    pieces.push(piece);
    return [
      `${JSON.stringify(name)}:${
        JSON.stringify({ dtype, shape: actual, data_offsets: [at, at += piece.length] })
      }`,
    ];
  });
  const whole = safetensorsBytes(`{${members}}`, new Uint8Array(pieces.flatMap((piece) => [...piece])));
  return damage && dice.chance(0.1) ? mutateBytes(dice, whole, [utf8("}")]) : whole;
}

const HINTS = {
  keys: [
    "rope_scaling",
    "head_dim",
    "vocab_size",
    "tie_word_embeddings",
    "model_type",
    "attention_bias",
    "chat_template",
  ],
  values: [
    '{"type":"linear","factor":2}',
    '{"rope_type":"llama3","factor":8,"low_freq_factor":1,"high_freq_factor":4,"original_max_position_embeddings":64}',
    '{"rope_type":"yarn","factor":4}',
    '"mistral"',
    '"qwen2"',
    '"gpt_neox"',
    "4",
    "8",
    "9",
    "12",
    '"BPE"',
    '"Unigram"',
  ],
};

/** Byte-level: llama.cpp wants all bytes of a SentencePiece vocabulary, and this one is small. */
const TOKENIZER = JSON.stringify({
  ...JSON.parse(SMALL_TOKENIZER.replaceAll("\u2581", "\u0120")),
  normalizer: null,
  pre_tokenizer: { type: "ByteLevel", add_prefix_space: false, trim_offsets: true, use_regex: true },
  decoder: { type: "ByteLevel" },
});

export const reader: Reader = {
  everyday: 200,
  accepted: [0.05, 0.95],
  make(dice) {
    const part = dice.below(4);
    return joinParts({
      "config.json": part === 0 ? mutateJson(dice, CONFIG, HINTS) : utf8(CONFIG),
      "tokenizer.json": part === 1 ? mutateJson(dice, TOKENIZER, HINTS) : utf8(TOKENIZER),
      "tokenizer_config.json": part === 2
        ? mutateJson(dice, TOKENIZER_CONFIG, HINTS)
        : utf8(TOKENIZER_CONFIG),
      "model.safetensors": weights(dice, part === 3),
    });
  },
  async read(input, folder) {
    const parts = splitParts(input);
    for (const name of ["config.json", "tokenizer.json", "tokenizer_config.json", "model.safetensors"]) {
      Deno.writeFileSync(`${folder}/${name}`, parts[name] ?? new Uint8Array());
    }
    const path = `${folder}/x.gguf`;
    await convertToGguf(folder, path, { outtype: "f32", overwrite: true });
    await checkFile(path, folder);
  },
};

/** Compares what a file holds with the weights of the folder. */
async function checkFile(path: string, folder: string): Promise<void> {
  const bytes = Deno.readFileSync(path);
  const { tensorInfos, tensorDataOffset, metadata } = await gguf("file", { fetch: serving(bytes) });
  const values = metadata as unknown as Readonly<Record<string, unknown>>;
  const tokens = values["tokenizer.ggml.tokens"] as string[];
  assert(
    tokens.length === values["llama.vocab_size"],
    `${tokens.length} tokens in a vocabulary of another size`,
  );
  const weights = await openWeights(folder);
  try {
    const size = (shape: readonly (number | bigint)[]) =>
      shape.reduce<number>((all, axis) => all * Number(axis), 1);
    const written = tensorInfos.filter(({ name }) => name !== "rope_freqs.weight").map(
      ({ name, offset, shape }) => {
        const at = Number(tensorDataOffset) + Number(offset);
        const numbers = new Float32Array(bytes.slice(at, at + 4 * size(shape)).buffer);
        return { name, numbers };
      },
    );
    // Rows of queries and keys stand in another order, which other tests check: here no number may be lost.
    const key = (numbers: Float32Array) => [...numbers].sort((a, b) => a - b).join();
    const expected = new Set<string>();
    for (const name of weights.names()) {
      expected.add(key(toF32(await weights.read(name), weights.info(name).dtype)));
    }
    for (const { name, numbers } of written) {
      assert(expected.has(key(numbers)), `"${name}" has other numbers`);
    }
    assert(written.length >= SHAPES.length - 1, `only ${written.length} tensors`);
  } finally {
    weights.close();
  }
}

/** Answers requests of ranges: the library reads files by their paths in no thread but the main one. */
function serving(bytes: Uint8Array<ArrayBuffer>): typeof fetch {
  return (_, init) => {
    const [, from, to] = /bytes=(\d+)-(\d+)/.exec(new Headers(init?.headers).get("range")!)!;
    return Promise.resolve(new Response(bytes.slice(Number(from), Number(to) + 1), { status: 206 }));
  };
}
