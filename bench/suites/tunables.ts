/** The classes of work that several kernels can do, each with a case to measure them by. */
import { type AttentionTunable, attentionTunables } from "../../kernels/attention/variants.ts";
import type { Gpu } from "../../kernels/gpu.ts";
import { type MatmulTunable, matmulTunables } from "../../kernels/matmul/variants.ts";
import type { Tunable } from "../../kernels/tuning.ts";
import { attentionPair } from "./attention.ts";
import type { Case } from "./case.ts";
import { productCase } from "./products.ts";

/** A class of work with a case of it. */
export interface TunableCase {
  readonly tunable: Tunable;
  readonly work: Case;
}

/** Everything that can be tuned on this device. */
export function tunableCases(gpu: Gpu): TunableCase[] {
  return [
    ...matmulTunables(gpu).map((tunable) => ({ tunable, work: productOf(tunable) })),
    ...attentionTunables(gpu).map((tunable) => ({ tunable, work: attentionOf(gpu, tunable) })),
  ];
}

/** The result is (rows, columns) over `depth`; which of M, N and K those are depends on the layout. */
function productOf({ kind: { layout, form, format }, shape: { rows, columns, depth } }: MatmulTunable): Case {
  const w = form.name === "nf4" ? "nf4" : format;
  const sizes = {
    nt: { M: rows, N: columns, K: depth },
    nn: { M: rows, N: depth, K: columns },
    tn: { M: depth, N: rows, K: columns },
  }[layout];
  return productCase(layout, { ...sizes, name: w, x: format, w });
}

function attentionOf({ info }: Gpu, { part, headDim, format }: AttentionTunable): Case {
  const [heads, tokens] = info.isSoftware ? [2, 512] : [32, 4096];
  const [forward, backward] = attentionPair({
    heads,
    kvHeads: heads,
    headDim,
    tokens,
    // Without matrix units one class serves all formats, and GPUs work in 16 bits.
    format: info.isSoftware || info.matrices.length > 0 ? format : "bf16",
  });
  return part === "forward" ? forward : backward;
}
