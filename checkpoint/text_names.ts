/**
 * Gives a tensor, or module, of the text model within one that also reads pictures the name that it has in the text model
 * alone: transformers writes `model.language_model.layers`, before 4.52 `language_model.model.layers`.
 */
export function textName(name: string): string {
  return name.replace(/^(?:model\.language_model|language_model\.model)\./, "model.")
    .replace(/^language_model\.lm_head\./, "lm_head.");
}

/**
 * Gives the inverse of {@linkcode textName} for the files of one model: the name there of a tensor of its text model, also
 * of a head that the files lack.
 *
 * @param stored names of the tensors in the files
 */
export function storedNames(stored: Iterable<string>): (name: string) => string {
  const byTextName = new Map([...stored].map((name) => [textName(name), name]));
  const values = [...byTextName.values()];
  const prefix =
    ["model.language_model.", "language_model.model."].find((prefix) =>
      values.some((name) => name.startsWith(prefix))
    ) ?? "model.";
  const head = prefix === "language_model.model." ? "language_model.lm_head." : "lm_head.";
  return (name) => byTextName.get(name) ?? name.replace(/^model\./, prefix).replace(/^lm_head\./, head);
}
