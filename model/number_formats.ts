/** The names that weights' number formats have: on our command line, in safetensors, in config.json. */
import type { Dtype, FloatDtype } from "../checkpoint/dtype.ts";
import type { ModelConfig } from "./config.ts";

/** As flags name them. */
export const DTYPES = { fp32: "F32", bf16: "BF16", fp16: "F16" } as const;

export type DtypeName = keyof typeof DTYPES;

/** As PyTorch names them. */
export const TORCH_NAMES: Readonly<Record<FloatDtype, string>> = {
  F32: "float32",
  F16: "float16",
  BF16: "bfloat16",
};

/** The format in which a tensor is written that should stay as it is. */
export function floatOf(dtype: Dtype): FloatDtype {
  return dtype === "F16" || dtype === "BF16" ? dtype : "F32";
}

/** The format that the config names for its weights; BF16 where it names none. */
export function torchDtypeOf({ raw }: ModelConfig): FloatDtype {
  const name = String(raw.torch_dtype ?? raw.dtype).replace(/^torch\./, "");
  return (Object.keys(TORCH_NAMES) as FloatDtype[]).find((dtype) => TORCH_NAMES[dtype] === name) ?? "BF16";
}

/** The config's type of weights, under the key it has there; mixed files keep what they said. */
export function torchDtype(
  config: Readonly<Record<string, unknown>>,
  dtypes: readonly FloatDtype[],
): Record<string, string> {
  const key = "dtype" in config && !("torch_dtype" in config) ? "dtype" : "torch_dtype";
  return dtypes.length === 1 ? { [key]: TORCH_NAMES[dtypes[0]!] } : {};
}
