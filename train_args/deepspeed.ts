/** What of DeepSpeed's settings means something here: the stage of ZeRO. */
import { readWholeText } from "../data/file_bytes.ts";

/** Settings are no longer. */
const LIMIT = 2 ** 20;

/**
 * Reads the stage of ZeRO from DeepSpeed's settings: a map, or the path of a JSON file with one.
 * @returns undefined where there is no such file, or it says none
 */
export async function zeroStageOf(value: unknown): Promise<unknown> {
  let settings = value;
  if (typeof value === "string") {
    try {
      settings = JSON.parse(await readWholeText(value, LIMIT));
    } catch {
      return undefined;
    }
  }
  const zero = (settings as { zero_optimization?: { stage?: unknown } } | null)?.zero_optimization;
  return zero?.stage;
}
