import { crc32c, EventFile } from "../../train/tensorboard.ts";
import { assertEquals, assertThrows } from "../support/assert_close.ts";
import { readEvents } from "../support/event_file.ts";
import { namesIn, withFolder } from "../support/files.ts";

Deno.test("crc32c() gives the published check value", () => {
  assertEquals(crc32c(new TextEncoder().encode("123456789")), 0xE3069283);
  assertEquals(crc32c(new Uint8Array(32)), 0x8a9136aa);
  assertEquals(crc32c(new Uint8Array()), 0);
});

Deno.test("event files hold steps and values, and a later start makes void what comes after its step", async () => {
  await withFolder(async (folder) => {
    let now = 1_700_000_000_250;
    const first = new EventFile(`${folder}/runs`, () => now);
    await first.open(0);
    await first.add(1, { "train/loss": 2.5, "train/learning_rate": 1e-4 });
    now += 1500;
    await first.add(300, { "eval/loss": NaN });
    const second = new EventFile(`${folder}/runs`, () => now);
    await second.open(2 ** 40);
    // The name that TensorBoard looks for, with the second of the start, by which it orders files.
    assertEquals(namesIn(`${folder}/runs`), [
      "events.out.tfevents.1700000000.longreach.250",
      "events.out.tfevents.1700000001.longreach.750",
    ]);
    const [one, two] = await readEvents(`${folder}/runs`);
    assertEquals(one!.map(({ wallTime }) => wallTime), [
      1_700_000_000.25,
      1_700_000_000.25,
      1_700_000_000.25,
      1_700_000_001.75,
    ]);
    assertEquals([one![0]!.version, one![1]!.starts, String(one![1]!.step)], ["brain.Event:2", true, "0"]);
    assertEquals([String(one![2]!.step), one![2]!.values], ["1", {
      "train/loss": 2.5,
      "train/learning_rate": Math.fround(1e-4),
    }]);
    assertEquals([String(one![3]!.step), Number.isNaN(one![3]!.values!["eval/loss"])], ["300", true]);
    assertEquals([two!.length, two![1]!.starts, String(two![1]!.step)], [2, true, String(2 ** 40)]);

    now += 1000;
    await new EventFile(`${folder}/runs`, () => now).open(0);
    assertEquals((await readEvents(`${folder}/runs`)).length, 1, "files after a fresh start");
    await Deno.writeTextFile(`${folder}/file`, "");
    await assertThrows(() => new EventFile(`${folder}/file`).open(0), "Cannot write", "tfevents");
  });
});
