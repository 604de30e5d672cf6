import type { Reader } from "./reader.ts";

const named = <T extends string>(names: Record<T, () => Promise<{ reader: Reader }>>) => names;

const FILES = named({
  safetensors: () => import("./readers/safetensors.ts"),
  pickle: () => import("./readers/pickle.ts"),
  zip: () => import("./readers/zip.ts"),
  index: () => import("./readers/index_json.ts"),
  adapter_config: () => import("./readers/adapter_config.ts"),
  config: () => import("./readers/config.ts"),
  tokenizer: () => import("./readers/tokenizer.ts"),
  jsonl: () => import("./readers/jsonl.ts"),
  gzip: () => import("./readers/gzip.ts"),
  parquet: () => import("./readers/parquet.ts"),
  yaml: () => import("./readers/yaml.ts"),
  jinja: () => import("./readers/jinja.ts"),
  bnb4: () => import("./readers/bnb4.ts"),
  gguf: () => import("./readers/gguf.ts"),
  training_state: () => import("./readers/training_state.ts"),
});

/** A reader by its name: `--only` of the campaign, and the folder of its corpus. */
export type ReaderName = keyof typeof FILES;

export const READER_NAMES = Object.keys(FILES) as ReaderName[];

/** Loads a reader when it is needed: some come with large libraries. */
export const READERS = Object.fromEntries(
  Object.entries(FILES).map(([name, load]) => [name, async () => (await load()).reader]),
) as Record<ReaderName, () => Promise<Reader>>;
