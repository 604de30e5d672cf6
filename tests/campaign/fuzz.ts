/** Mutated inputs for every reader, 100,000 each; what fails is made small and kept in `tests/fuzz/corpus`. */
import { fuzz, keep } from "../fuzz/fuzz.ts";
import { READER_NAMES } from "../fuzz/readers.ts";
import { withFolder } from "../support/files.ts";
import type { CampaignOptions, CampaignRow } from "./campaign.ts";

const COUNT = 100_000;

/** Fuzzes the readers one after the other. @throws {Error} if `only` is none of them */
export async function* run({ count = COUNT, seed, only, say }: CampaignOptions): AsyncGenerator<CampaignRow> {
  const names = READER_NAMES.filter((name) => only === undefined || name === only);
  if (names.length === 0) {
    throw new Error(`There is no reader "${only}": they are ${READER_NAMES.join(", ")}`);
  }
  for (const name of names) {
    const started = performance.now();
    const row = await withFolder(async (folder) => {
      const result = await fuzz(name, { count, seed, folder, say: progress(say) });
      const kept = await keep(name, seed, result.faults, folder);
      if (kept.length > 0) say(`${name}: kept as ${kept.join(", ")}`);
      return result;
    });
    const { tried, accepted, refused, peakBytes, longest, faults } = row;
    yield {
      part: name,
      tried,
      counts: {
        accepted,
        refused,
        "MiB at most": Math.round(peakBytes / 2 ** 20),
        "ms at most": Math.round(longest.milliseconds),
        "s in all": Math.round((performance.now() - started) / 1000),
      },
      faults: faults.map(({ index, message }) => `input ${index} of seed ${seed}: ${message}`),
    };
  }
}

/** A line of progress each ten seconds at most. */
function progress(say: (line: string) => void): (line: string) => void {
  let last = performance.now();
  return (line) => {
    if (performance.now() - last < 10_000) return;
    last = performance.now();
    say(line);
  };
}
