/** Ops that memory alone limits: everything of a training step but products and attention. */
import { swiglu, swigluBackwardInPlace } from "../../kernels/activation/swiglu.ts";
import { dropout } from "../../kernels/elementwise/dropout.ts";
import { columnSum } from "../../kernels/elementwise/column_sum.ts";
import { addInto, cast } from "../../kernels/elementwise/elementwise.ts";
import { embed, embedBackward } from "../../kernels/embedding/embedding.ts";
import { crossEntropy } from "../../kernels/loss/cross_entropy.ts";
import { quantiseNf4 } from "../../kernels/nf4/nf4.ts";
import { rmsNorm, rmsNormBackward } from "../../kernels/norm/rms_norm.ts";
import { adamW } from "../../kernels/optimizer/adamw.ts";
import { globalNorm, STATUS } from "../../kernels/optimizer/global_norm.ts";
import { rope } from "../../kernels/rope/rope.ts";
import { bytesPerElement } from "../../kernels/tensor.ts";
import type { Format } from "../../kernels/wgsl.ts";
import { randomIds, randomTensor } from "../inputs.ts";
import { type Case, type Extent, type Prepared, prepared } from "./case.ts";

interface Sizes {
  /** T, C, F, V, D of a layer, and the elements of a trained tensor. */
  readonly tokens: number;
  readonly width: number;
  readonly inner: number;
  readonly vocabulary: number;
  readonly headDim: number;
  readonly parameters: number;
}

const SIZES: Record<Extent, Sizes> = {
  quick: { tokens: 512, width: 1024, inner: 2816, vocabulary: 8000, headDim: 64, parameters: 2 ** 20 },
  all: { tokens: 8192, width: 4096, inner: 11008, vocabulary: 32000, headDim: 128, parameters: 2 ** 25 },
};
/** Rows of logits at once: training never has all of them. */
const LOSS_ROWS: Record<Extent, number> = { quick: 64, all: 512 };

/** Every op in f32 and bf16, where it has both. */
export function smallOpCases(extent: Extent): Case[] {
  const sizes = SIZES[extent];
  return [
    ...(["f32", "bf16"] as const).flatMap((format) => [
      ...normCases(sizes, format),
      ropeCase(sizes, format),
      ...swigluCases(sizes, format),
      ...elementwiseCases(sizes, format),
      ...embeddingCases(sizes, format),
    ]),
    lossCase(sizes, LOSS_ROWS[extent]),
    ...optimiserCases(sizes),
    ...nf4Cases(sizes),
  ];
}

/** A case that reads and writes `passes` tensors' worth of elements; its rate is bytes per second. */
function memoryCase(
  [suite, op]: readonly [suite: string, op: string],
  shape: readonly number[],
  { format, passes, extra = 0 }: { format: Format; passes: number; extra?: number },
  prepare: Case["prepare"],
): Case {
  const elements = shape.reduce((product, axis) => product * axis, 1);
  const bytes = passes * elements * bytesPerElement(format) + extra;
  return { suite, op, shape: shape.join("x"), format, flops: 0, bytes, memory: bytes, prepare };
}

function normCases({ tokens, width }: Sizes, format: Format): Case[] {
  const shape = [tokens, width];
  return [
    memoryCase(["norm", "rms norm"], shape, { format, passes: 2 }, (gpu) => {
      const [x, weight] = [randomTensor(gpu, shape, format), randomTensor(gpu, [width])];
      return prepared([x, weight], () => Object.values(rmsNorm(gpu, x, { weight, eps: 1e-5 })));
    }),
    memoryCase(["norm", "rms norm backward"], shape, { format, passes: 3 }, (gpu) => {
      const [x, weight, dy] = [
        randomTensor(gpu, shape, format),
        randomTensor(gpu, [width]),
        randomTensor(gpu, shape, format),
      ];
      const { y, rstd } = rmsNorm(gpu, x, { weight, eps: 1e-5 });
      return prepared([x, weight, dy, y, rstd], () => [rmsNormBackward(gpu, dy, { x, weight, rstd })]);
    }),
  ];
}

function ropeCase({ tokens, width, headDim }: Sizes, format: Format): Case {
  return memoryCase(["rope", "rope"], [tokens, width], { format, passes: 2 }, (gpu) => {
    const x = randomTensor(gpu, [tokens, width], format);
    const [cos, sin] = [randomTensor(gpu, [tokens, headDim / 2]), randomTensor(gpu, [tokens, headDim / 2])];
    const positions = gpu.tensor([tokens], Uint32Array.from({ length: tokens }, (_, i) => i));
    return prepared([x, cos, sin, positions], () => {
      rope(gpu, [x], cos, sin, positions, headDim);
      return [];
    });
  });
}

function swigluCases({ tokens, inner }: Sizes, format: Format): Case[] {
  const shape = [tokens, inner];
  return [
    memoryCase(["swiglu", "swiglu"], shape, { format, passes: 3 }, (gpu) => {
      const [gate, up] = [randomTensor(gpu, shape, format), randomTensor(gpu, shape, format)];
      return prepared([gate, up], () => [swiglu(gpu, gate, up)]);
    }),
    memoryCase(["swiglu", "swiglu backward"], shape, { format, passes: 5 }, (gpu) => {
      const [gate, up, dy] = [0, 1, 2].map(() => randomTensor(gpu, shape, format)) as [
        ReturnType<typeof randomTensor>,
        ReturnType<typeof randomTensor>,
        ReturnType<typeof randomTensor>,
      ];
      return prepared([gate, up, dy], () => {
        swigluBackwardInPlace(gpu, dy, { gate, up });
        return [];
      });
    }),
  ];
}

function elementwiseCases({ tokens, width }: Sizes, format: Format): Case[] {
  const shape = [tokens, width];
  const cases = [
    memoryCase(["elementwise", "dropout"], shape, { format, passes: 2 }, (gpu) => {
      const x = randomTensor(gpu, shape, format);
      return prepared([x], () => [dropout(gpu, x, { p: 0.1, seed: 1, stream: 1 })]);
    }),
    memoryCase(["elementwise", "add"], shape, { format, passes: 3 }, (gpu) => {
      const [x, y] = [randomTensor(gpu, shape, format), randomTensor(gpu, shape, format)];
      return prepared([x, y], () => {
        addInto(gpu, x, y);
        return [];
      });
    }),
    memoryCase(["elementwise", "column sum"], shape, { format, passes: 1 }, (gpu) => {
      const [x, into] = [randomTensor(gpu, shape, format), gpu.zeros([width])];
      return prepared([x, into], () => {
        columnSum(gpu, x, into);
        return [];
      });
    }),
  ];
  if (format === "f32") return cases;
  const extra = 4 * tokens * width;
  cases.push(memoryCase(["elementwise", "cast to f32"], shape, { format, passes: 1, extra }, (gpu) => {
    const x = randomTensor(gpu, shape, format);
    return prepared([x], () => [cast(gpu, x, "f32")]);
  }));
  return cases;
}

function embeddingCases({ tokens, width, vocabulary }: Sizes, format: Format): Case[] {
  const shape = [tokens, width];
  return [
    memoryCase(["embedding", "embedding"], shape, { format, passes: 2 }, (gpu) => {
      const table = randomTensor(gpu, [vocabulary, width], format);
      const ids = gpu.tensor([tokens], randomIds(tokens, vocabulary));
      return prepared([table, ids], () => [embed(gpu, ids, table, format)]);
    }),
    memoryCase(["embedding", "embedding backward"], shape, {
      format,
      passes: 1,
      extra: 8 * tokens * width,
    }, (gpu) => {
      const [dx, dTable] = [randomTensor(gpu, shape, format), gpu.zeros([vocabulary, width])];
      const ids = randomIds(tokens, vocabulary);
      return prepared([dx, dTable], () => {
        embedBackward(gpu, ids, dx, dTable);
        return [];
      });
    }),
  ];
}

function lossCase({ vocabulary }: Sizes, rows: number): Case {
  const shape = [rows, vocabulary];
  return memoryCase(["loss", "cross-entropy and gradient"], shape, { format: "f32", passes: 2 }, (gpu) => {
    const logits = randomTensor(gpu, shape);
    const labels = gpu.tensor([rows], randomIds(rows, vocabulary));
    return prepared(
      [logits, labels],
      () => Object.values(crossEntropy(gpu, logits, labels, { vocabSize: vocabulary, gradScale: 1 })),
    );
  });
}

function optimiserCases({ parameters }: Sizes): Case[] {
  const shape = [parameters / 1024, 1024];
  const hyper = { beta1: 0.9, beta2: 0.999, epsilon: 1e-8, weightDecay: 0, learningRate: 1e-4, step: 1 };
  return [
    memoryCase(["optimiser", "AdamW"], shape, { format: "f32", passes: 7 }, (gpu) => {
      const [param, grad] = [randomTensor(gpu, shape), randomTensor(gpu, shape)];
      const [m, v, status] = [gpu.zeros(shape), gpu.zeros(shape), gpu.zeros([STATUS.length])];
      globalNorm(gpu, [grad], status, { maxNorm: 1, inverseScale: 1 });
      return prepared([param, grad, m, v, status], () => {
        adamW(gpu, [{ param, grad, m, v }], status, hyper);
        return [];
      });
    }),
    memoryCase(["optimiser", "gradient norm"], shape, { format: "f32", passes: 1 }, (gpu) => {
      const [grad, status] = [randomTensor(gpu, shape), gpu.zeros([STATUS.length])];
      return prepared([grad, status], () => {
        globalNorm(gpu, [grad], status, { maxNorm: 1, inverseScale: 1 });
        return [];
      });
    }),
  ];
}

function nf4Cases({ width }: Sizes): Case[] {
  const shape = [width, width];
  const extra = width * width / 2;
  return [
    memoryCase(["nf4", "quantise"], shape, { format: "f32", passes: 1, extra }, (gpu): Prepared => {
      const x = randomTensor(gpu, shape);
      return { run: () => quantiseNf4(gpu, x).free(), free: () => x.free() };
    }),
    memoryCase(["nf4", "dequantise"], shape, { format: "f32", passes: 1, extra }, (gpu): Prepared => {
      const x = randomTensor(gpu, shape);
      const weight = quantiseNf4(gpu, x);
      x.free();
      return { run: () => weight.dequantise(gpu).free(), free: () => weight.free() };
    }),
  ];
}
