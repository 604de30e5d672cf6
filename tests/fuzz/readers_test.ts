import { assert } from "../support/assert_close.ts";
import { withFolder } from "../support/files.ts";
import { corpus, fuzz, Trials } from "./fuzz.ts";
import { READER_NAMES, READERS } from "./readers.ts";

function fromEnv(name: string): number | undefined {
  const value = Number(Deno.env.get(name) ?? NaN);
  return Number.isSafeInteger(value) && value >= 0 ? value : undefined;
}

/** Part of each test's name, so that a failure can be repeated: FUZZ_SEED, FUZZ_COUNT. */
const SEED = fromEnv("FUZZ_SEED") ?? 20_240_601;
const COUNT = fromEnv("FUZZ_COUNT");

for (const name of READER_NAMES) {
  const { everyday, waits, accepted: [least, most] } = await READERS[name]();
  const ignore = waits !== undefined;
  Deno.test({ name: `the reader of ${name} survives mutated inputs (seed ${SEED})`, ignore }, async () => {
    const count = COUNT ?? everyday;
    const { accepted, refused, faults } = await withFolder((folder) =>
      fuzz(name, { count, seed: SEED, folder })
    );
    const shown = faults.slice(0, 5).map(({ index, message }) => `input ${index}: ${message}`).join("\n");
    assert(faults.length === 0, `${faults.length} of ${count} inputs fail:\n${shown}`);
    assert(accepted + refused === count, `${accepted + refused} of ${count} inputs were read`);
    const share = accepted / count;
    assert(
      count < 100 || (share >= least && share <= most),
      `${accepted} of ${count} inputs were accepted: a campaign that only sees one kind proves nothing`,
    );
  });

  const kept = corpus(name);
  if (kept.length === 0) continue;
  const once = `the reader of ${name} survives what it once failed at (${kept.length} inputs)`;
  Deno.test({ name: once, ignore }, async () => {
    await withFolder(async (folder) => {
      using trials = new Trials(name, folder);
      for (const { name: file, input } of kept) {
        const fault = await trials.fault(input);
        assert(fault === undefined, `${name}/${file}: ${fault}`);
      }
    });
  });
}
