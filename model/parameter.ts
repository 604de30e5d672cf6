import type { Tensor } from "../kernels/tensor.ts";

/** A weight that is trained: its values, and the gradient of the steps since it was last cleared. Both f32. */
export interface Parameter {
  /** As in the checkpoint or adapter, but for the `parts`: `model.norm.weight`, `model.layers.0.self_attn.q_proj.lora_A.weight`. */
  readonly name: string;
  /** Its numbers, f32. */
  readonly value: Tensor;
  /** Its gradient, f32. */
  readonly grad: Tensor;
  /** Names of equal runs of its rows, one behind the other, in checkpoint or adapter; the one name unless given. */
  readonly parts?: readonly string[] | undefined;
}

/** The parameter as checkpoint and adapter have it: its parts, borrowed, or itself. */
export function partsOf(parameter: Parameter): Omit<Parameter, "parts">[] {
  const { value, grad, parts } = parameter;
  if (!parts) return [parameter];
  const rows = value.rows / parts.length;
  return parts.map((name, i) => {
    const [start, end] = [i * rows, (i + 1) * rows];
    return { name, value: value.slice(start, end), grad: grad.slice(start, end) };
  });
}

/**
 * Tells whether weight decay applies to a parameter: not to biases and norms, which Hugging Face's trainer knows by their names.
 * @see get_decay_parameter_names in transformers' trainer.py
 */
export function isDecayed(name: string): boolean {
  return !/bias|layernorm|rmsnorm|(^|\.)norm($|\.)|_norm($|\.)/i.test(name);
}
