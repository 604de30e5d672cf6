/** Largest error allowed: `atol + rtol * |expected|`. */
export interface Tolerance {
  readonly rtol: number;
  readonly atol: number;
}

/** Elementwise f32 kernels. */
export const F32: Tolerance = { rtol: 1e-5, atol: 1e-6 };

/** A sum of `length` terms in f32: rounding grows with the square root of the length. */
export function reduction(length: number): Tolerance {
  return { rtol: 1e-5 + 2e-7 * Math.sqrt(length), atol: 1e-6 * Math.max(1, Math.sqrt(length)) };
}

/**
 * Fails, naming the worst element, if any value is further from the expected one than allowed.
 * NaN on either side is a failure.
 */
export function assertClose(
  label: string,
  actual: ArrayLike<number>,
  expected: ArrayLike<number>,
  { rtol, atol }: Tolerance,
): void {
  if (actual.length !== expected.length) {
    throw new Error(`${label}: got ${actual.length} values, expected ${expected.length}`);
  }
  let failures = 0;
  let worst = { index: -1, ratio: 0 };
  for (let i = 0; i < actual.length; i++) {
    const ratio = Math.abs(actual[i]! - expected[i]!) / (atol + rtol * Math.abs(expected[i]!));
    if (!(ratio <= 1)) failures++;
    if (!(ratio <= worst.ratio)) worst = { index: i, ratio };
  }
  if (failures > 0) {
    throw new Error(
      `${label}: ${failures} of ${actual.length} values are out of tolerance (rtol ${rtol}, atol ${atol}); ` +
        `worst at ${worst.index}: got ${actual[worst.index]}, expected ${expected[worst.index]}, ` +
        `${worst.ratio.toPrecision(3)}x the tolerance`,
    );
  }
}

/** Fails unless the condition holds. */
export function assert(condition: unknown, message: string): asserts condition {
  if (!condition) throw new Error(message);
}

/** Fails unless both have the same JSON text. */
export function assertEquals(actual: unknown, expected: unknown, label = "values"): void {
  const [a, e] = [JSON.stringify(actual), JSON.stringify(expected)];
  if (a !== e) throw new Error(`${label} differ\n  got      ${a}\n  expected ${e}`);
}

/** Fails unless `run` throws an error whose message contains every part; returns the message. */
export async function assertThrows(run: () => unknown, ...parts: string[]): Promise<string> {
  let message: string;
  try {
    await run();
  } catch (error) {
    message = error instanceof Error ? error.message : String(error);
    for (const part of parts) {
      if (!message.includes(part)) throw new Error(`The error lacks ${JSON.stringify(part)}: ${message}`);
    }
    return message;
  }
  throw new Error(`Expected an error with ${JSON.stringify(parts)}, but nothing was thrown`);
}
