/** Which files of a repository are fetched: what is read here, and of several formats of the weights only one. */
import { dataAmong } from "../data/rows.ts";

const MODEL_FILES =
  /^(config|generation_config|preprocessor_config|processor_config|tokenizer|tokenizer_config|special_tokens_map|added_tokens|chat_template)\.json$|^chat_template\.jinja$|^additional_chat_templates\/[\w-]+\.jinja$/;

/** A model or adapter: configuration, tokenizer, and safetensors or, where there are none, `.bin` weights. */
export function modelFiles(names: readonly string[]): string[] {
  const plain = names.filter((name) => MODEL_FILES.test(name));
  const adapter = names.filter((name) =>
    /^adapter_config\.json$|^train_args\.yaml$|^trainable_params\.(bin|safetensors)$/.test(name)
  );
  const weights = [
    /^(model|adapter_model).*\.safetensors(\.index\.json)?$/,
    /^(pytorch_model|adapter_model).*\.bin(\.index\.json)?$/,
  ]
    .map((pattern) => names.filter((name) => pattern.test(name)))
    .find((found) => found.length > 0) ?? [];
  return weights.length === 0 ? [] : [...plain, ...adapter, ...weights];
}

/** A data set: the file or folder named, or all that is for training. */
export function dataFiles(path: string | undefined): (names: readonly string[]) => string[] {
  return (names) =>
    path === undefined
      ? dataAmong(names)
      : names.filter((name) => name === path || name.startsWith(`${path}/`));
}
