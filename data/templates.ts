/** Turns a question into the prompt a model is trained on; the answer follows it directly. */
export interface PromptTemplate {
  /** As saved with a model, so that inference can use the same. */
  readonly name: string;
  prompt(input: string): string;
}

const VICUNA_SYSTEM = "A chat between a curious user and an artificial intelligence assistant. " +
  "The assistant gives helpful, detailed, and polite answers to the user's questions.";

/**
 * LongQLoRA's form of the Vicuna prompt: system text and turns on lines of their own, no `<s>`. It differs from
 * FastChat's vicuna_v1.1, which separates with spaces (LongQLoRA, `component/dataset.py`).
 */
export const LONGQLORA_VICUNA: PromptTemplate = {
  name: "longqlora-vicuna",
  prompt: (input) => `${VICUNA_SYSTEM}\nUSER: ${input}\nASSISTANT: `,
};
