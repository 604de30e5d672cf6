import { Gpu } from "../../kernels/gpu.ts";
import { drawReference, keptProbabilitiesReference, uniformOf } from "../../kernels/sample/reference.ts";
import { type LastTokens, NO_TOKEN, sample, type Sampling } from "../../kernels/sample/sample.ts";
import { assert, assertEquals, assertThrows } from "../support/assert_close.ts";
import { normal, uniform } from "../support/random.ts";

const PLAIN: Sampling = { temperature: 1, topK: 0, topP: 1, minP: 0, repetitionPenalty: 1, seed: 1 };

interface Draws {
  readonly sampling: Sampling;
  readonly steps: number;
  /** Tokens seen before the first step. */
  readonly seen?: readonly number[];
  readonly firstPosition?: number;
}

function lastTokensOf(
  gpu: Gpu,
  rows: number,
  vocabSize: number,
  seen: readonly number[],
  position: number,
): LastTokens {
  const words = Math.ceil(vocabSize / 32);
  const bits = new Uint32Array(words * rows);
  for (let row = 0; row < rows; row++) {
    for (const id of seen) bits[row * words + (id >> 5)]! |= 1 << (id & 31);
  }
  return {
    tokens: gpu.tensor([rows], new Uint32Array(rows)),
    positions: gpu.tensor([rows], new Uint32Array(rows).fill(position)),
    seen: gpu.tensor([rows, words], bits),
  };
}

/** Tokens (steps, rows) drawn from the same logits (rows, V) again and again, each time as if nothing had been drawn. */
async function drawMany(
  gpu: Gpu,
  logits: Float32Array,
  rows: number,
  { sampling, steps, seen = [], firstPosition = 0 }: Draws,
): Promise<Uint32Array> {
  const vocabSize = logits.length / rows;
  const width = Math.ceil(vocabSize / 4) * 4;
  // Columns that pad hold what would win.
  const padded = new Float32Array(rows * width).fill(1e30);
  for (let row = 0; row < rows; row++) {
    padded.set(logits.subarray(row * vocabSize, (row + 1) * vocabSize), row * width);
  }
  const source = gpu.tensor([rows, width], padded);
  const work = gpu.empty([rows, width]);
  const last = lastTokensOf(gpu, rows, vocabSize, seen, firstPosition);
  const fresh = lastTokensOf(gpu, rows, vocabSize, seen, firstPosition);
  const drawn = gpu.empty([steps * rows], "u32");
  for (let step = 0; step < steps; step++) {
    gpu.copy(source, work);
    gpu.copy(fresh.seen, last.seen);
    sample(gpu, work, last, sampling, { vocabSize, drawn, step });
  }
  const [tokens, positions, lastIds] = await Promise.all(
    [drawn, last.positions, last.tokens].map((t) => gpu.readU32(t)),
  );
  assertEquals([...positions!], Array(rows).fill(firstPosition + steps), "positions");
  assertEquals([...lastIds!], [...tokens!.subarray((steps - 1) * rows)], "last tokens");
  return tokens!;
}

/** Fails where a token is not the one that the same uniform numbers give in float64, but for draws at an edge. */
async function checkDraws(gpu: Gpu, logits: Float32Array, rows: number, draws: Draws): Promise<void> {
  const vocabSize = logits.length / rows;
  const { sampling, seen, firstPosition = 0, steps } = draws;
  const tokens = await drawMany(gpu, logits, rows, draws);
  let near = 0;
  for (let row = 0; row < rows; row++) {
    const own = logits.subarray(row * vocabSize, (row + 1) * vocabSize);
    const probabilities = keptProbabilitiesReference(own, sampling, new Set(seen));
    for (let step = 0; step < steps; step++) {
      const { token, margin } = drawReference(
        probabilities,
        uniformOf(sampling.seed, row, firstPosition + step + 1),
      );
      if (margin < 2e-6) near++;
      else {
        assertEquals(
          tokens[step * rows + row],
          token,
          `V ${vocabSize} ${JSON.stringify(sampling)} row ${row} step ${step}`,
        );
      }
    }
  }
  assert(near <= 1 + rows * steps / 20, `${near} draws of ${rows * steps} are at an edge`);
}

const SETTINGS: Sampling[] = [
  PLAIN,
  { ...PLAIN, temperature: 0.7, topK: 5, seed: 2 },
  { ...PLAIN, topP: 0.8, seed: 3 },
  { ...PLAIN, minP: 0.2, seed: 4 },
  { ...PLAIN, temperature: 1.3, topK: 20, topP: 0.9, minP: 0.05, repetitionPenalty: 1.5, seed: 0xffffffff },
];

Deno.test("Draws are those of float64 by the same uniform numbers, vocabularies of any size", async () => {
  using gpu = await Gpu.open({ poison: true });
  for (const [i, vocabSize] of [1, 5, 37, 260, 1023, 4097].entries()) {
    for (const sampling of SETTINGS) {
      const logits = normal(i, 3 * vocabSize, 2);
      const seen = [0, vocabSize >> 1, vocabSize - 1];
      await checkDraws(gpu, logits, 3, { sampling, steps: 12, seen, firstPosition: 7 });
    }
  }
});

Deno.test("Draws from the vocabularies of Llama 2 and 3 are those of float64", async () => {
  using gpu = await Gpu.open({ poison: true });
  for (const [vocabSize, settings] of [[32000, SETTINGS], [128256, [SETTINGS[0]!, SETTINGS[4]!]]] as const) {
    for (const sampling of settings) {
      // A few likely tokens over a long tail, as a model has them.
      const logits = normal(vocabSize, vocabSize, 2).map((x, id) => id % 1000 === 7 ? x + 12 : x);
      await checkDraws(gpu, logits, 1, { sampling, steps: 6, seen: [7, 1007, 31999] });
    }
  }
});

Deno.test("Frequencies are the probabilities: chi-square", async () => {
  using gpu = await Gpu.open({ poison: true });
  const [rows, steps, vocabSize] = [8, 600, 24];
  const own = normal(3, vocabSize);
  const logits = new Float32Array(rows * vocabSize);
  for (let row = 0; row < rows; row++) logits.set(own, row * vocabSize);
  const sampling = { ...PLAIN, topP: 0.95, seed: 11 };
  const tokens = await drawMany(gpu, logits, rows, { sampling, steps });
  const expected = keptProbabilitiesReference(own, sampling).map((p) => p * rows * steps);
  const counts = new Float64Array(vocabSize);
  for (const token of tokens) counts[token]!++;
  let [squares, kinds] = [0, 0];
  expected.forEach((wanted, id) => {
    if (wanted === 0) return assertEquals(counts[id], 0, `token ${id} is not kept`);
    squares += (counts[id]! - wanted) ** 2 / wanted;
    kinds++;
  });
  // Beyond 4 standard deviations of the chi-square distribution once in 10,000 times.
  const limit = kinds - 1 + 4 * Math.sqrt(2 * (kinds - 1));
  assert(squares < limit, `chi-square ${squares} over ${limit} for ${kinds} tokens`);
});

Deno.test("Temperature 0 takes the likeliest, the first of equals; the penalty still counts", async () => {
  using gpu = await Gpu.open({ poison: true });
  const sampling = { ...PLAIN, temperature: 0, topK: 3, topP: 0.5 };
  for (const vocabSize of [3, 260, 32000]) {
    const next = uniform(vocabSize);
    const logits = new Float32Array(2 * vocabSize).map(() => Math.floor(20 * next()));
    const rows = [logits.subarray(0, vocabSize), logits.subarray(vocabSize)];
    const firstMaxima = rows.map((row) => row.indexOf(Math.max(...row)));
    assertEquals([...await drawMany(gpu, logits, 2, { sampling, steps: 1 })], firstMaxima);
  }
  const logits = Float32Array.of(-1, 4, 3, -0.5);
  const penalised = { ...sampling, repetitionPenalty: 2 };
  assertEquals([...await drawMany(gpu, logits, 1, { sampling: penalised, steps: 1, seen: [1] })], [2]);
  const negative = Float32Array.of(-1, -4, -3, -0.75);
  assertEquals([...await drawMany(gpu, negative, 1, { sampling: penalised, steps: 1, seen: [3] })], [0]);
});

Deno.test("Tokens as likely as the last that is kept are kept too", async () => {
  using gpu = await Gpu.open({ poison: true });
  const logits = Float32Array.of(2, 1, 3, 1, 0, 1);
  for (const sampling of [{ ...PLAIN, topK: 3 }, { ...PLAIN, topP: 0.9 }]) {
    const tokens = await drawMany(gpu, logits, 1, { sampling, steps: 300 });
    assertEquals([...new Set(tokens)].sort(), [0, 1, 2, 3, 5], JSON.stringify(sampling));
  }
  assertEquals([...new Set(await drawMany(gpu, logits, 1, { sampling: { ...PLAIN, topP: 0 }, steps: 9 }))], [
    2,
  ]);
});

Deno.test("What was drawn is seen from then on, and penalised", async () => {
  using gpu = await Gpu.open({ poison: true });
  const source = gpu.tensor([1, 4], Float32Array.of(8, 4, 3, 1));
  const last = lastTokensOf(gpu, 1, 4, [], 0);
  const drawn = gpu.empty([4], "u32");
  for (let step = 0; step < 4; step++) {
    const logits = gpu.empty([1, 4]);
    gpu.copy(source, logits);
    sample(gpu, logits, last, { ...PLAIN, temperature: 0, repetitionPenalty: 2.5 }, {
      vocabSize: 4,
      drawn,
      step,
    });
  }
  // 8, then 8 / 2.5 = 3.2 < 4, then 3.2 > 3 again.
  assertEquals([...await gpu.readU32(drawn)], [0, 1, 0, 0]);
});

Deno.test("Draws depend on seed, sequence and position, on nothing else", async () => {
  using gpu = await Gpu.open({ poison: true });
  const row = normal(1, 500);
  const logits = new Float32Array(1000);
  logits.set(row);
  logits.set(row, 500);
  const both = await drawMany(gpu, logits, 2, { sampling: PLAIN, steps: 40 });
  const first = both.filter((_, i) => i % 2 === 0);
  const second = both.filter((_, i) => i % 2 === 1);
  assertEquals([...await drawMany(gpu, row, 1, { sampling: PLAIN, steps: 40 })], [...first]);
  assertEquals(
    [...await drawMany(gpu, row, 1, { sampling: PLAIN, steps: 30, firstPosition: 10 })],
    [...first.subarray(10)],
  );
  const differing = (other: ArrayLike<number>) => first.filter((token, i) => token !== other[i]).length;
  assert(differing(second) > 20, "sequences draw alike");
  const reseeded = await drawMany(gpu, row, 1, { sampling: { ...PLAIN, seed: 2 }, steps: 40 });
  assert(differing(reseeded) > 20, "seeds draw alike");
});

Deno.test("Logits that are no numbers give no token; minus infinity is never drawn", async () => {
  using gpu = await Gpu.open({ poison: true });
  for (const temperature of [0, 1]) {
    const sampling = { ...PLAIN, temperature };
    for (const bad of [NaN, -NaN, Infinity]) {
      const logits = normal(1, 300);
      logits[299] = bad;
      assertEquals([...await drawMany(gpu, logits, 1, { sampling, steps: 1 })], [NO_TOKEN], String(bad));
    }
    const nothing = new Float32Array(9).fill(-Infinity);
    assertEquals([...await drawMany(gpu, nothing, 1, { sampling, steps: 1 })], [NO_TOKEN]);
    nothing[6] = -1e30;
    assertEquals([...await drawMany(gpu, nothing, 1, { sampling, steps: 3 })], [6, 6, 6]);
  }
});

Deno.test("Logits, last tokens and tokens drawn that do not fit are refused", async () => {
  using gpu = await Gpu.open();
  const last = lastTokensOf(gpu, 1, 8, [], 0);
  const drawn = gpu.zeros([2], "u32");
  const at = { vocabSize: 8, drawn };
  await assertThrows(() => sample(gpu, gpu.zeros([1, 8]), last, PLAIN, { ...at, step: 2 }), "step 2");
  await assertThrows(
    () => sample(gpu, gpu.zeros([1, 12]), last, PLAIN, { ...at, step: 0 }),
    "[1,12]",
    "8 tokens",
  );
  const refused = (changed: Partial<LastTokens>, drawn: typeof at.drawn, part: string) =>
    assertThrows(
      () => sample(gpu, gpu.zeros([1, 8]), { ...last, ...changed }, PLAIN, { ...at, drawn, step: 0 }),
      part,
    );
  await refused({ seen: gpu.zeros([1, 2], "u32") }, drawn, "seen [1,2]");
  await refused({ seen: gpu.zeros([1, 1]) }, drawn, "seen [1,1]");
  await refused({ tokens: gpu.zeros([2], "u32") }, drawn, "must hold 1 u32");
  await refused({ positions: gpu.zeros([1]) }, drawn, "must hold 1 u32");
  await refused({}, gpu.zeros([2]), "drawn [2]");
});
