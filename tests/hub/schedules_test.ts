/** A small share of `deno task campaign faults --only hub`. */
import { runSchedule } from "../campaign/hub.ts";
import { assert, assertEquals } from "../support/assert_close.ts";

Deno.test("under schedules of faults a file is right or refused, and all is right when they are over", async () => {
  let fetched = 0;
  for (let seed = 1; seed <= 10; seed++) {
    const { counts, faults } = await runSchedule(seed, { kills: false });
    assertEquals(faults, [], `schedule ${seed}`);
    fetched += counts.fetched ?? 0;
  }
  assert(fetched >= 10, `${fetched} snapshots were fetched`);
});
