/** A model that also reads pictures around the text model that is used: what is written of it. */
import { parseConfig } from "./config.ts";
import { configJson } from "./config_json.ts";
import type { ModelConfig } from "./model_config.ts";

type Values = Readonly<Record<string, unknown>>;

/** Keys that versions of transformers read at different places: of the text model, and of the whole. */
const IN_BOTH = ["tie_word_embeddings", "torch_dtype"];

/**
 * Gives the content of the whole model's config.json, with what changed of its text model: at the place where the file
 * has the key, under `text_config` where it does not.
 *
 * @param wrapper the file as it is
 * @param written config.json of the text model alone, as it is to be
 */
export function wrapperJson(wrapper: Values, written: Values): Record<string, unknown> {
  const before = configJson(parseConfig(wrapper, "config.json"));
  const text_config = { ...wrapper.text_config as Values };
  const whole: Record<string, unknown> = { ...wrapper, text_config };
  for (const key of new Set([...Object.keys(before), ...Object.keys(written)])) {
    if (JSON.stringify(before[key]) === JSON.stringify(written[key])) continue;
    const own = [text_config, whole].filter((place) => key in place);
    const places = IN_BOTH.includes(key) ? [text_config, whole] : own.length > 0 ? own : [text_config];
    for (const place of places as Record<string, unknown>[]) {
      if (written[key] === undefined) delete place[key];
      else place[key] = written[key];
    }
  }
  return whole;
}

/** Notes for the user where the text model of one that also reads pictures is written alone. */
export function textAloneNotes({ wrapper, raw }: ModelConfig): string[] {
  if (!wrapper) return [];
  return [
    `The part that reads pictures is left out: the text model alone is written, as ${raw.architectures}`,
  ];
}
