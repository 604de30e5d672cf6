/** What runs are compared by: `metrics.jsonl` but for what it measured. */

const MEASURED = /,"tokens_per_second":\d+(\.\d+)?,"seconds":\d+(\.\d+)?,"peak_memory_bytes":\d+\}$/;

/**
 * The text of a run's `metrics.jsonl` without the three keys that are other in every run. All else stays as it is, byte
 * for byte.
 * @throws {Error} if a line does not end with these keys
 */
export function withoutMeasured(text: string): string {
  return text.split("\n").map((line) => {
    if (line === "") return line;
    if (!MEASURED.test(line)) throw new Error(`a line of metrics.jsonl lacks what is measured: ${line}`);
    return line.replace(MEASURED, "}");
  }).join("\n");
}

/** A file of a run's folder as runs are compared by it: what `metrics.jsonl` measured is left out. */
export async function comparedBytes(folder: string, name: string): Promise<Uint8Array> {
  const bytes = await Deno.readFile(`${folder}/${name}`);
  if (name !== "metrics.jsonl") return bytes;
  return new TextEncoder().encode(withoutMeasured(new TextDecoder().decode(bytes)));
}
