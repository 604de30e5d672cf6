import { run } from "../campaign/crash.ts";
import { findMpis } from "../support/mpi.ts";
import { assert, assertEquals } from "../support/assert_close.ts";

const SEED = 20_261_126;

Deno.test({
  name:
    `Killed inside a save and started again, train loses nothing and ends with the same bytes (seed ${SEED})`,
  ignore: Deno.build.os === "windows",
  fn: async () => {
    for await (const row of run({ count: 2, seed: SEED, only: "lora-insave", say: () => {} })) {
      assertEquals([row.tried, row.faults], [2, []]);
      assert(row.counts["inside a save"]! > 0, "no kill was inside a save");
    }
  },
});

const isLeftOut = findMpis().length === 0;
Deno.test({
  name:
    `A job of two ranks of which one is killed ends, loses nothing and goes on to the same bytes (seed ${SEED})${
      isLeftOut
        ? ": left out, no mpirun is installed (Debian and Ubuntu: apt-get install openmpi-bin libopenmpi-dev)"
        : ""
    }`,
  ignore: isLeftOut,
  fn: async () => {
    for await (const row of run({ count: 1, seed: SEED, only: "ranks", say: () => {} })) {
      assertEquals([row.tried, row.faults], [1, []]);
    }
  },
});
