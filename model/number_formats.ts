/** The names that weights' number formats have: on our command line, in safetensors, in config.json. */
import type { Dtype, FloatDtype } from "../checkpoint/dtype.ts";
import type { ModelConfig } from "./model_config.ts";

/** As flags name them. */
export const DTYPES = { fp32: "F32", bf16: "BF16", fp16: "F16" } as const satisfies Record<
  DtypeName,
  FloatDtype
>;

/** A number format of weights, as flags name it. */
export type DtypeName = "fp32" | "bf16" | "fp16";

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

/** PyTorch's other names of these formats. */
const ALIASES: Readonly<Record<string, FloatDtype>> = { float: "F32", half: "F16" };

/** Reads the format that the config names for its weights; BF16 where it names none that is known. */
export function torchDtypeOf({ raw }: Pick<ModelConfig, "raw">): FloatDtype {
  return formatNamed(namedDtype(raw)) ?? "BF16";
}

/** Notes for the user on the config's type of weights, one line each. */
export function dtypeNotes(raw: Readonly<Record<string, unknown>>): string[] {
  const name = namedDtype(raw);
  if (name === undefined || formatNamed(name)) return [];
  return [
    `config.json: dtype ${JSON.stringify(name)} is not known (${
      Object.values(TORCH_NAMES).join(", ")
    } are): where the ` +
    `weights do not say their type, bfloat16 is taken`,
  ];
}

/** `dtype` is the name since transformers 4.56, and counts there before `torch_dtype`. */
function namedDtype({ dtype, torch_dtype }: Readonly<Record<string, unknown>>): unknown {
  return dtype ?? torch_dtype ?? undefined;
}

function formatNamed(name: unknown): FloatDtype | undefined {
  if (typeof name !== "string") return undefined;
  const plain = name.replace(/^torch\./, "");
  return (Object.keys(TORCH_NAMES) as FloatDtype[]).find((dtype) => TORCH_NAMES[dtype] === plain) ??
    (Object.hasOwn(ALIASES, plain) ? ALIASES[plain] : undefined);
}

/**
 * The config's type of weights, as all versions of transformers read it: under `torch_dtype`, and under `dtype` where
 * the config has that. Mixed files keep what they said.
 */
export function torchDtype(
  config: Readonly<Record<string, unknown>>,
  dtypes: readonly FloatDtype[],
): Record<string, string> {
  const name = dtypes.length === 1 ? TORCH_NAMES[dtypes[0]!] : undefined;
  if (name === undefined) return {};
  return { torch_dtype: name, ...(config.dtype === undefined ? {} : { dtype: name }) };
}
