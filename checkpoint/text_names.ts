/**
 * Gives a tensor, or module, of the text model within one that also reads pictures the name that it has in the text model
 * alone: transformers writes `model.language_model.layers`, before 4.52 `language_model.model.layers`.
 */
export function textName(name: string): string {
  return name.replace(/^(?:model\.language_model|language_model\.model)\./, "model.")
    .replace(/^language_model\.lm_head\./, "lm_head.");
}
