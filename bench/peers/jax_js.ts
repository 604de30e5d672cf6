/** jax-js on its WebGPU backend. Only this file knows its interface. */
import type { Entrant, HostArray } from "./entrant.ts";

/** An array of jax-js. A call consumes its arguments; `ref` lends one more time. */
export interface JaxArray {
  readonly ref: JaxArray;
  reshape(shape: readonly number[]): JaxArray;
  transpose(): JaxArray;
  mul(other: JaxArray | number): JaxArray;
  sum(): JaxArray;
  data(): Promise<Float32Array>;
  dispose(): void;
}

/** A function over one list of arrays, as `grad` and `jit` take it. */
export type JaxFunction<R> = (inputs: readonly JaxArray[]) => R;

/** The part of the package that is used; its own types would make it a dependency of the whole project's type check. */
export interface Jax {
  init(device: string): Promise<unknown>;
  defaultDevice(device: string): void;
  blockUntilReady(arrays: readonly JaxArray[]): Promise<unknown>;
  jit<R>(run: JaxFunction<R>): JaxFunction<R>;
  grad(loss: JaxFunction<JaxArray>): JaxFunction<JaxArray[]>;
  readonly numpy: {
    array(data: Float32Array): JaxArray;
    matmul(a: JaxArray, b: JaxArray): JaxArray;
    square(a: JaxArray): JaxArray;
  };
  readonly nn: {
    silu(a: JaxArray): JaxArray;
    dotProductAttention(
      q: JaxArray,
      k: JaxArray,
      v: JaxArray,
      options: { isCausal: boolean },
    ): JaxArray;
  };
}

const PACKAGE: string = "@jax-js/jax";
/** As bench/peers/deno.json pins it: the package does not tell. */
const NAME = "jax-js 0.1.25";

let loading: Promise<Jax> | undefined;

function load(): Promise<Jax> {
  return loading ??= import(PACKAGE).then(async (jax: Jax) => {
    await jax.init("webgpu");
    jax.defaultDevice("webgpu");
    return jax;
  });
}

/**
 * A function of jax-js as an entrant, compiled by its `jit`.
 * @param build makes the function; it gives one array or several
 */
export async function jaxEntrant(
  inputs: readonly HostArray[],
  build: (jax: Jax) => JaxFunction<JaxArray | JaxArray[]>,
): Promise<Entrant> {
  const jax = await load();
  const run = jax.jit(build(jax));
  const arrays = inputs.map(({ shape, data }) => jax.numpy.array(data).reshape(shape));
  const once = (): readonly JaxArray[] => {
    const result = run(arrays.map(({ ref }) => ref));
    return Array.isArray(result) ? result : [result as JaxArray];
  };
  return {
    name: NAME,
    async run(times) {
      const results: JaxArray[] = [];
      for (let i = 0; i < times; i++) results.push(...once());
      // Work whose result is gone before it ran is left out by jax-js, so all results live until then.
      await jax.blockUntilReady(results);
      for (const result of results) result.dispose();
    },
    async values() {
      const values: Float32Array[] = [];
      for (const result of once()) values.push(await result.data());
      return values;
    },
    free() {
      for (const array of arrays) array.dispose();
      return Promise.resolve();
    },
  };
}
