/** Routing and the products of experts against their float64 definitions. */
import {
  groupedBackwardInput,
  groupedBackwardWeight,
  groupedMatmul,
  type RowsOf,
} from "../../kernels/experts/grouped.ts";
import { combine, routedSwiglu, routedSwigluBackwardInPlace } from "../../kernels/experts/routed.ts";
import { routeReference, sortReference } from "../../kernels/experts/reference.ts";
import {
  route,
  routeBackwardInPlace,
  type RouterOptions,
  routingShape,
  sectionsOf,
} from "../../kernels/experts/routing.ts";
import { Gpu } from "../../kernels/gpu.ts";
import { matmulBackwardInputReference, matmulReference } from "../../kernels/matmul/reference.ts";
import { quantiseNf4 } from "../../kernels/nf4/nf4.ts";
import { assert, assertClose, assertEquals, assertThrows, reduction } from "../support/assert_close.ts";
import { assertRounded, dot, inFormat, numericalGradient } from "../support/numeric.ts";
import { normal } from "../support/random.ts";
import { ALL_SHARINGS, SHARINGS, sharingTest } from "../support/sharing.ts";

const WAYS = await Promise.all(
  SHARINGS.map(async (sharing) => ({
    sharing,
    whole: await Gpu.open({ poison: true, sharing }),
    split: await Gpu.open({ poison: true, sharing, maxBindingBytes: 64 * 40 * 4, mostWork: 2 ** 15 }),
  })),
);

for (const sharing of ALL_SHARINGS.filter((sharing) => !SHARINGS.includes(sharing))) {
  sharingTest(sharing, `Experts, ${sharing}`, () => Promise.resolve());
}

interface Case extends RouterOptions {
  readonly tokens: number;
  /** "one": every token's first expert is the same; "ties": all logits are equal. */
  readonly spread?: "one" | "ties";
}

const CASES: readonly Case[] = [
  { tokens: 1, experts: 5, perToken: 2, isNormalised: true },
  { tokens: 37, experts: 6, perToken: 3, isNormalised: false },
  { tokens: 130, experts: 3, perToken: 1, isNormalised: true, spread: "one" },
  { tokens: 70, experts: 128, perToken: 8, isNormalised: true },
  { tokens: 9, experts: 4, perToken: 4, isNormalised: false, spread: "ties" },
];

function logitsOf({ tokens, experts, spread }: Case): Float32Array {
  if (spread === "ties") return new Float32Array(tokens * experts);
  const values = normal(5, tokens * experts, 2);
  return spread === "one" ? values.map((value, i) => i % experts === 1 ? value + 50 : value) : values;
}

/** Logits as rows of a multiple of 4, what is behind them out of range. */
function padded(gpu: Gpu, logits: ArrayLike<number>, { tokens, experts }: Case) {
  const width = Math.ceil(experts / 4) * 4;
  const values = new Float32Array(tokens * width).fill(1e9);
  for (let i = 0; i < logits.length; i++) {
    values[Math.floor(i / experts) * width + i % experts] = logits[i]!;
  }
  return gpu.tensor([tokens, width], values);
}

for (const { sharing, whole: gpu } of WAYS) {
  for (const one of CASES) {
    const { tokens, experts, perToken, spread = "normal" } = one;
    const name = `${perToken} of ${experts} experts for ${tokens} tokens, ${spread}, ${sharing}`;

    Deno.test(`The table has each expert's rows together, ${name}`, async () => {
      const logits = logitsOf(one);
      const expected = routeReference(logits, one);
      const { weights, routing } = route(gpu, padded(gpu, logits, one), one);
      assertClose(
        "weights",
        await gpu.read(weights),
        expected.flatMap((token) => token.weights),
        reduction(experts),
      );
      const table = await gpu.readU32(routing.table);
      const pairs = tokens * perToken;
      const section = (number: number) => [...table.slice(number * pairs, (number + 1) * pairs)];
      const order = sortReference(expected);
      assertEquals(section(0), order.map((pair) => Math.floor(pair / perToken)), "tokens");
      assertEquals(section(1), order, "pairs");
      assertEquals(section(2), order.map((_, pair) => order.indexOf(pair)), "places");
      assertEquals(section(3), expected.flatMap((token) => token.experts), "experts");
      const at = sectionsOf(routing);
      const starts = [...table.slice(at.starts, at.tiles)];
      const tiles = Array.from({ length: routing.tiles }, (_, i) => {
        const first = at.tiles + 3 * i;
        return [...table.slice(first, first + 3)];
      });
      const wanted = starts.slice(0, -1).flatMap((start, expert) => {
        const end = starts[expert + 1]!;
        const count = Math.ceil((end - start) / routing.tileRows);
        return Array.from({ length: count }, (_, i) => {
          const first = start + i * routing.tileRows;
          return [expert, first, Math.min(end, first + routing.tileRows)];
        });
      });
      assertEquals(starts.at(-1), pairs);
      assertEquals(tiles, [...wanted, ...tiles.slice(wanted.length).map(() => [0, 0, 0])], "tiles");
    });

    Deno.test(`The gradient of the weights goes back to the logits, ${name}`, async () => {
      const logits = Float64Array.from(logitsOf(one));
      const d = normal(6, tokens * perToken);
      const device = padded(gpu, logits, one);
      const { weights, routing } = route(gpu, device, one);
      routeBackwardInPlace(gpu, device, weights, gpu.tensor([d.length], d), routing, one);
      const actual = await gpu.read(device);
      const taken = routeReference(logits, one).map((token) => token.experts);
      // The choice has no gradient: the experts stay as they are.
      const row = (at: Float64Array, token: number) => {
        const exps = Array.from(at, Math.exp);
        const sum = exps.reduce((all, each) => all + each, 0);
        const shares = taken[token]!.map((e) => exps[e]! / sum);
        const divisor = one.isNormalised ? shares.reduce((all, each) => all + each, 0) : 1;
        return dot(
          shares.map((share) => share / divisor),
          d.subarray(token * perToken, (token + 1) * perToken),
        );
      };
      for (const token of new Set([0, tokens >> 1, tokens - 1])) {
        const at = logits.slice(token * experts, (token + 1) * experts);
        const gradient = numericalGradient((x) => row(x, token), at);
        const begin = token * device.width;
        const [got, rest] = [
          actual.subarray(begin, begin + experts),
          actual.subarray(begin + experts, begin + device.width),
        ];
        assertClose(`token ${token}`, got, gradient, { rtol: 1e-3, atol: 1e-5 });
        assert(rest.every((value) => value === 0), "columns behind the last expert are 0");
      }
    });
  }
}

for (const { sharing, whole, split } of WAYS) {
  for (const [form, gpu] of Object.entries({ f32: whole, bf16: whole, nf4: whole, split })) {
    for (const rows of ["tokens", "pairs"] as const) {
      Deno.test(`Each row is multiplied with its expert's matrix, ${form}, rows of ${rows}, ${sharing}`, async () => {
        // Every case where kernels are the same but for the tile; one where they are others.
        const cases = form === "split" ? [{ ...CASES[1]!, tokens: 20 }] : [CASES[1]!];
        for (const one of form === "f32" && rows === "tokens" ? CASES : cases) {
          await products(gpu, one, form, rows);
        }
      });
    }
  }
}

/** Compares the three products with those of each expert's rows alone. */
async function products(gpu: Gpu, one: Case, form: string, rows: RowsOf): Promise<void> {
  const { tokens, experts, perToken } = one;
  const [N, K] = form === "nf4" ? [16, 64] : [24, 40];
  // All in one binding but for the weight.
  const logits = logitsOf(one);
  const { routing } = route(gpu, padded(gpu, logits, one), one);
  const order = sortReference(routeReference(logits, one));
  const expertOf = routeReference(logits, one).flatMap((token) => token.experts);
  const source = (place: number) => rows === "tokens" ? Math.floor(order[place]! / perToken) : place;
  const count = rows === "tokens" ? tokens : order.length;
  const format = form === "bf16" ? "bf16" : "f32";
  const dense = normal(1, experts * N * K, 1 / Math.sqrt(K));
  const w = inFormat(gpu, [experts * N, K], dense, format);
  const weight = form === "nf4" ? quantiseNf4(gpu, w.tensor) : w.tensor;
  const values = "dequantise" in weight ? await gpu.read(weight.dequantise(gpu)) : w.values;
  const x = inFormat(gpu, [count, K], normal(2, count * K), format);
  const dy = inFormat(gpu, [count, N], normal(3, count * N), format);
  const pick = (from: Float64Array, place: number, width: number) =>
    from.subarray(source(place) * width, (source(place) + 1) * width);
  const matrix = (place: number) => {
    const e = expertOf[order[place]!]!;
    return values.subarray(e * N * K, (e + 1) * N * K);
  };
  const places = order.map((_, place) => place);
  const y = places.flatMap((
    i,
  ) => [...matmulReference(pick(x.values, i, K), matrix(i), { M: 1, N, K }).map((v) => 0.5 * v)]);
  const dx = places.flatMap((
    i,
  ) => [...matmulBackwardInputReference(pick(dy.values, i, N), matrix(i), { M: 1, N, K })]);
  const close = (label: string, actual: Float32Array, wanted: ArrayLike<number>, depth: number) =>
    format === "f32"
      ? assertClose(label, actual, wanted, reduction(depth))
      : assertRounded(label, actual, wanted, format);

  const options = { routing, rows };
  const product = groupedMatmul(gpu, x.tensor, weight, { ...options, alpha: 0.5 });
  close("y", await gpu.read(product), y, K);
  const input = groupedBackwardInput(gpu, dy.tensor, weight, options);
  close("dx", await gpu.read(input), dx, N);
  if (format === "f32") {
    const before = normal(4, dx.length);
    const into = gpu.tensor([order.length, K], before);
    groupedBackwardInput(gpu, dy.tensor, weight, { ...options, into, beta: 1 });
    close("dx added", await gpu.read(into), dx.map((value, i) => value + before[i]!), N);
  }

  const xRows = rows === "tokens" ? "pairs" : "tokens";
  const other = inFormat(
    gpu,
    [xRows === "tokens" ? tokens : order.length, K],
    normal(8, (xRows === "tokens" ? tokens : order.length) * K),
    format,
  );
  const grad = Float64Array.from(normal(9, experts * N * K));
  const into = gpu.tensor([experts * N, K], Float32Array.from(grad));
  groupedBackwardWeight(gpu, dy.tensor, other.tensor, { ...options, xRows, into, beta: 1 });
  for (const place of places) {
    const e = expertOf[order[place]!]!;
    const from = xRows === "tokens" ? Math.floor(order[place]! / perToken) : place;
    const [d, input] = [pick(dy.values, place, N), other.values.subarray(from * K, (from + 1) * K)];
    for (let n = 0; n < N; n++) {
      for (let c = 0; c < K; c++) grad[(e * N + n) * K + c]! += d[n]! * input[c]!;
    }
  }
  assertClose("dW", await gpu.read(into), grad, reduction(tokens));
}

for (const { sharing, whole: gpu } of WAYS) {
  for (const format of ["f32", "bf16", "f16"] as const) {
    Deno.test(`What lies between the products of experts, forward and back, ${format}, ${sharing}`, async () => {
      const one = CASES[1]!;
      const { tokens, perToken } = one;
      const [F, pairs] = [12, tokens * perToken];
      const { weights, routing } = route(gpu, padded(gpu, logitsOf(one), one), one);
      const order = sortReference(routeReference(logitsOf(one), one));
      const w = await gpu.read(weights);
      const gate = inFormat(gpu, [pairs, F], normal(1, pairs * F, 2), format);
      const up = inFormat(gpu, [pairs, F], normal(2, pairs * F), format);
      const silu = (x: number) => x / (1 + Math.exp(-x));
      const weightOf = (i: number) => w[order[Math.floor(i / F)]!]!;
      const hidden = gate.values.map((g, i) => weightOf(i) * silu(g) * up.values[i]!);
      const inputs = { gate: gate.tensor, up: up.tensor };
      const y = routedSwiglu(gpu, inputs, weights, routing);
      assertRounded("y", await gpu.read(y), hidden, format);

      const x = inFormat(gpu, [pairs, F], normal(4, pairs * F), format);
      const sums = new Float64Array(tokens * F).fill(3);
      order.forEach((pair, place) => {
        for (let f = 0; f < F; f++) sums[Math.floor(pair / perToken) * F + f]! += x.values[place * F + f]!;
      });
      const all = gpu.tensor([64 + tokens, F], new Float32Array((64 + tokens) * F).fill(3));
      const out = all.slice(64, 64 + tokens);
      combine(gpu, x.tensor, out, routing, { adds: true });
      assertClose("sum over a token's experts", await gpu.read(out), sums, reduction(perToken));

      const dy = inFormat(gpu, [pairs, F], normal(3, pairs * F), format);
      const dWeights = await gpu.read(routedSwigluBackwardInPlace(gpu, dy.tensor, inputs, weights, routing));
      const step = 1e-5;
      const slope = (f: (x: number) => number, at: number) => (f(at + step) - f(at - step)) / (2 * step);
      const dGate = gate.values.map((g, i) => dy.values[i]! * weightOf(i) * up.values[i]! * slope(silu, g));
      const dUp = gate.values.map((g, i) => dy.values[i]! * weightOf(i) * silu(g));
      assertRounded("dGate", await gpu.read(gate.tensor), dGate, format);
      assertRounded("dUp", await gpu.read(up.tensor), dUp, format);
      const dw = new Float64Array(pairs);
      order.forEach((pair, place) => {
        for (let i = place * F; i < (place + 1) * F; i++) {
          dw[pair]! += dy.values[i]! * silu(gate.values[i]!) * up.values[i]!;
        }
      });
      assertClose("dWeights", dWeights, dw, reduction(F));
    });
  }
}

Deno.test("A routing's sizes are known before it is made; more than the kernels hold is refused", async () => {
  const gpu = WAYS[0]!.whole;
  assertEquals(routingShape(gpu, 1, { experts: 128, perToken: 8 }).tiles, 8);
  const { tileRows, tiles } = routingShape(gpu, 4096, { experts: 4, perToken: 2 });
  const rows = gpu.sharing === "subgroup" ? 32 : 64;
  assertEquals([tileRows, tiles], [rows, 8192 / rows + 3]);
  const one = { experts: 4, perToken: 5, isNormalised: true };
  await assertThrows(() => void route(gpu, gpu.zeros([3, 4]), one), "5 of 4 experts");
});
