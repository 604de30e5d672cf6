import type { Tensor } from "../kernels/tensor.ts";

/** A weight that is trained: its values, and the gradient of the steps since it was last cleared. Both f32. */
export interface Parameter {
  /** As in the checkpoint or adapter: `model.norm.weight`, `model.layers.0.self_attn.q_proj.lora_A.weight`. */
  readonly name: string;
  /** Its numbers, f32. */
  readonly value: Tensor;
  /** Its gradient, f32. */
  readonly grad: Tensor;
}

/**
 * Tells whether weight decay applies to a parameter: not to biases and norms, which Hugging Face's trainer knows by their names.
 * @see get_decay_parameter_names in transformers' trainer.py
 */
export function isDecayed(name: string): boolean {
  return !/bias|layernorm|rmsnorm|(^|\.)norm($|\.)|_norm($|\.)/i.test(name);
}
