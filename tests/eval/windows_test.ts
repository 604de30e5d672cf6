import { windowStarts } from "../../eval/windows.ts";
import { assertEquals, assertThrows } from "../support/assert_close.ts";

Deno.test("windowStarts() takes LongLoRA's 358 windows of 8192 out of 100,000 tokens", () => {
  const starts = windowStarts(100_000, 8192, 256);
  assertEquals([starts.length, starts[0], starts[1], starts.at(-1)], [358, 0, 256, 91_392]);
});

Deno.test("windowStarts() keeps the last window for the distributed protocol", () => {
  const starts = windowStarts(100_000, 8192, 256, { dropLastWindow: false });
  assertEquals([starts.length, starts.at(-1)], [359, 91_648]);
});

// tests/golden/data.bin holds 1500 tokens. Its figures were made with these steps: a window of 256 leaves 6 for any step
// from 178 to 207, and of these only 200 reproduces the loss of the gqa model.
for (const [seqLen, slidingWindow, windows] of [[128, 64, 21], [64, 64, 22], [256, 200, 6]] as const) {
  Deno.test(`windowStarts() gives the golden count of ${windows} for ${seqLen} by ${slidingWindow}`, async () => {
    const { size } = await Deno.stat(new URL("../golden/data.bin", import.meta.url));
    assertEquals(windowStarts(size / 2, seqLen, slidingWindow).length, windows);
  });
}

Deno.test("windowStarts() needs one token more than a window", async () => {
  assertEquals(windowStarts(101, 100, 256, { dropLastWindow: false }), [0]);
  await assertThrows(() => windowStarts(100, 100, 256, { dropLastWindow: false }), "at least 101", "seq_len");
  // A start must lie strictly below the number of tokens less the window.
  assertEquals(windowStarts(228, 100, 64, { dropLastWindow: false }), [0, 64]);
  assertEquals(windowStarts(229, 100, 64, { dropLastWindow: false }), [0, 64, 128]);
});

Deno.test("windowStarts() says so when dropping the last window leaves nothing", async () => {
  await assertThrows(() => windowStarts(300, 100, 256), "at least 357", "--no-drop_last_window");
  assertEquals(windowStarts(357, 100, 256), [0]);
});

Deno.test("windowStarts() refuses lengths that are not whole numbers above 0", async () => {
  await assertThrows(() => windowStarts(300, 100, 0), "sliding_window must be a whole number", "got 0");
  await assertThrows(() => windowStarts(300, 12.5, 1), "seq_len must be a whole number", "got 12.5");
});
