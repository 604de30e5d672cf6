import { WORDS } from "./corpus.ts";

/** The special tokens; ids 0 to 3 in this order. */
const SPECIAL = ["<unk>", "<s>", "</s>", "<pad>"] as const;

/** Tokens of the demo's vocabulary: the words and the special tokens. */
export const VOCAB_SIZE = SPECIAL.length + WORDS.length;

/** `tokenizer.json` of the demo: every word is one token (WordLevel), cut at spaces and punctuation. */
export function demoTokenizer(): unknown {
  const vocab = Object.fromEntries([...SPECIAL, ...WORDS].map((token, id) => [token, id]));
  return {
    version: "1.0",
    truncation: null,
    padding: null,
    added_tokens: SPECIAL.map((content, id) => ({
      id,
      content,
      single_word: false,
      lstrip: false,
      rstrip: false,
      normalized: false,
      special: true,
    })),
    normalizer: null,
    pre_tokenizer: { type: "Whitespace" },
    post_processor: {
      type: "TemplateProcessing",
      single: [{ SpecialToken: { id: "<s>", type_id: 0 } }, { Sequence: { id: "A", type_id: 0 } }],
      pair: [
        { SpecialToken: { id: "<s>", type_id: 0 } },
        { Sequence: { id: "A", type_id: 0 } },
        { Sequence: { id: "B", type_id: 1 } },
      ],
      special_tokens: { "<s>": { id: "<s>", ids: [SPECIAL.indexOf("<s>")], tokens: ["<s>"] } },
    },
    decoder: null,
    model: { type: "WordLevel", vocab, unk_token: "<unk>" },
  };
}

/** `tokenizer_config.json` of the demo. */
export function demoTokenizerConfig(): unknown {
  return {
    tokenizer_class: "PreTrainedTokenizerFast",
    unk_token: "<unk>",
    bos_token: "<s>",
    eos_token: "</s>",
    pad_token: "<pad>",
    add_bos_token: true,
    add_eos_token: false,
    clean_up_tokenization_spaces: false,
    model_max_length: BASE_CONTEXT,
  };
}

/** Context the base model is trained at, in tokens. */
export const BASE_CONTEXT = 256;

/** `config.json` of the demo: a LLaMA of about one million parameters. */
export function demoConfig(): unknown {
  return {
    architectures: ["LlamaForCausalLM"],
    model_type: "llama",
    vocab_size: VOCAB_SIZE,
    hidden_size: 128,
    intermediate_size: 352,
    num_hidden_layers: 4,
    num_attention_heads: 4,
    num_key_value_heads: 4,
    max_position_embeddings: BASE_CONTEXT,
    rms_norm_eps: 1e-5,
    rope_theta: 10000,
    rope_scaling: null,
    hidden_act: "silu",
    tie_word_embeddings: true,
    attention_bias: false,
    mlp_bias: false,
    bos_token_id: SPECIAL.indexOf("<s>"),
    eos_token_id: SPECIAL.indexOf("</s>"),
    pad_token_id: SPECIAL.indexOf("<pad>"),
    torch_dtype: "float32",
    use_cache: true,
  };
}
