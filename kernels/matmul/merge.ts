/** Products that are alike but for where their operands lie, as one dispatch. */
import type { Gpu } from "../gpu.ts";
import { bytesPerElement, Tensor } from "../tensor.ts";
import type { Product } from "./variant.ts";

/** Elements of a tensor that a product begins with. */
interface Place {
  readonly tensor: Tensor;
  /** Number of the first that takes part. */
  readonly first: number;
}

/** Places at even steps, as one tensor. */
interface Spaced extends Place {
  /** Elements from one to the next. */
  readonly step: number;
}

/**
 * Makes one product of several: what each reads and writes lies evenly spaced in one buffer, or is the same for all, and
 * results do not overlap.
 * @returns undefined where that is not so
 */
export function merged(gpu: Gpu, products: readonly Product[]): Product | undefined {
  const [first] = products as [Product];
  const { inner, mask = inner?.mask } = first;
  if (products.some((product) => !isAlike(first, product))) return undefined;
  const place = (placeOf: (product: Product) => Place) => evenly(gpu, products.map(placeOf));
  const a = place(({ a, aFirst }) => ({ tensor: a, first: aFirst }));
  const b = place(({ b }) => ({ tensor: b.tensors.b!, first: 4 * b.firstQuad }));
  const c = place(({ c, cFirst }) => ({ tensor: c, first: cFirst }));
  if (!a || !b || !c || c.step === 0 || b.step > 0 && first.b.format === undefined) return undefined;
  const innerA = inner && place(({ inner }) => ({ tensor: inner!.a, first: inner!.aFirst }));
  const innerB = inner && place(({ inner }) => ({ tensor: inner!.b, first: 0 }));
  if (inner && !(innerA && innerB)) return undefined;
  const streams = products.map((product) => (product.mask ?? product.inner?.mask)?.stream ?? 0);
  const streamStep = streams[1]! - streams[0]!;
  if (streamStep < 0 || streams.some((stream, i) => stream !== streams[0]! + i * streamStep)) {
    return undefined;
  }
  const stepped = mask && { ...mask, streamStep };
  return {
    ...first,
    a: a.tensor,
    aFirst: a.first,
    b: { ...first.b, tensors: { ...first.b.tensors, b: b.tensor }, firstQuad: b.first / 4 },
    c: c.tensor,
    cFirst: c.first,
    ...(first.mask && { mask: stepped }),
    ...(inner && {
      inner: {
        ...inner,
        a: innerA!.tensor,
        aFirst: innerA!.first,
        b: innerB!.tensor,
        mask: inner.mask && stepped,
      },
    }),
    blocks: {
      count: products.length,
      aStep: a.step,
      bStep: b.step,
      cStep: c.step,
      innerAStep: innerA?.step ?? 0,
      innerBStep: innerB?.step ?? 0,
    },
  };
}

/** Whether two products differ in nothing but where their operands lie, and the streams of their masks. */
function isAlike(one: Product, other: Product): boolean {
  const shape = ({ layout, rows, columns, depth, alpha, beta, a, b, c, mask, inner, addend }: Product) =>
    JSON.stringify([
      [layout, rows, columns, depth, alpha, beta, b.name, b.rows, b.width, b.format, addend !== undefined],
      [a, c, ...(inner ? [inner.a, inner.b] : [])].map(({ dtype, width }) => [dtype, width]),
      [inner?.depth, ...[mask, inner?.mask].map((key) => key && { ...key, stream: 0 })],
    ]);
  return !one.addend && shape(one) === shape(other);
}

function evenly(gpu: Gpu, places: readonly Place[]): Spaced | undefined {
  const bounds = places.map(({ tensor }) => tensor.bound);
  const bytes = bytesPerElement(places[0]!.tensor.dtype);
  const starts = bounds.map(({ offset }) => offset / bytes);
  const firsts = places.map(({ first }, i) => starts[i]! + first);
  const step = firsts[1]! - firsts[0]!;
  const isEven = firsts.every((first, i) => first === firsts[0]! + i * step);
  if (!isEven || step < 0 || bounds.some(({ buffer }) => buffer !== bounds[0]!.buffer)) return undefined;
  const { tensor, first } = places[0]!;
  const end = Math.max(...places.map(({ tensor }, i) => starts[i]! + tensor.size));
  const rows = (end - starts[0]!) / tensor.width;
  if (!Number.isInteger(rows) || rows * tensor.rowBytes > gpu.maxBindingBytes || step % 4 !== 0) {
    return undefined;
  }
  const [segment] = tensor.segments;
  const span = new Tensor([rows, tensor.width], tensor.dtype, tensor.label, [{
    ...segment!,
    start: 0,
    rows,
  }]);
  return { tensor: span, first, step };
}
