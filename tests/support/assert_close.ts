import { inspect, isDeepStrictEqual } from "./deps.ts";

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
    const isSame = actual[i] === expected[i];
    const ratio = isSame ? 0 : Math.abs(actual[i]! - expected[i]!) / (atol + rtol * Math.abs(expected[i]!));
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

/**
 * Fails unless both are the same structure: same classes, keys and values, as node's `isDeepStrictEqual` compares.
 * NaN equals NaN; -0 differs from 0, a missing key from one that is undefined, an array from a typed array.
 */
export function assertEquals(actual: unknown, expected: unknown, label = "values"): void {
  if (isDeepStrictEqual(actual, expected)) return;
  const [place, got, wanted] = firstDifference(actual, expected);
  const where = place === "" ? "" : ` at ${place}`;
  const whole = place === "" ? "" : `\n  whole    ${shown(actual)}`;
  throw new Error(`${label} differ${where}\n  got      ${shown(got)}\n  expected ${shown(wanted)}${whole}`);
}

/** A value in one line, cut after 2,000 characters. */
function shown(value: unknown): string {
  const text = inspect(value, { breakLength: Infinity, depth: 8, maxArrayLength: 200, compact: true });
  return text.length > 2000 ? `${text.slice(0, 2000)}...` : text;
}

/** Follows keys and indices down to the innermost pair that differs: `[place, actual, expected]`. */
function firstDifference(actual: unknown, expected: unknown, place = ""): [string, unknown, unknown] {
  if (isRecord(actual) && isRecord(expected) && Array.isArray(actual) === Array.isArray(expected)) {
    const keys = new Set([...Object.keys(actual), ...Object.keys(expected)]);
    const sameKeys = [...keys].every((key) => Object.hasOwn(actual, key) && Object.hasOwn(expected, key));
    for (const key of sameKeys ? keys : []) {
      if (isDeepStrictEqual(actual[key], expected[key])) continue;
      const step = Array.isArray(actual) ? `[${key}]` : `.${key}`;
      return firstDifference(actual[key], expected[key], place + step);
    }
  }
  return [place, actual, expected];
}

function isRecord(value: unknown): value is Record<string, unknown> {
  return typeof value === "object" && value !== null && !ArrayBuffer.isView(value);
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
