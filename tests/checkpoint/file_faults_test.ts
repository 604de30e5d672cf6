import { run } from "../campaign/file_faults.ts";
import { assert, assertEquals } from "../support/assert_close.ts";
import { withFault } from "../support/faulty_disk.ts";
import { withFolder } from "../support/files.ts";

/** Trials of each command here; the campaign has one for every operation. */
const SHARE: Readonly<Record<string, number>> = {
  "tokenize": 12,
  "convert to GGUF": 24,
  "convert to safetensors": 24,
  "train": 4,
};

for (const [only, count] of Object.entries(SHARE)) {
  Deno.test(`A file operation that fails in ${only} leaves nothing half-made and is told in one line`, async () => {
    const parts: string[] = [];
    for await (const { part, tried, faults } of run({ count, seed: 1, only, say: () => {} })) {
      assert(tried >= count / 2, `only ${tried} were tried`);
      assertEquals(faults, []);
      parts.push(part);
    }
    assertEquals(parts, [only]);
  });
}

Deno.test("the disk of these tests fails the n-th operation, torn where that is asked", async () => {
  await withFolder(async (folder) => {
    const write = async () => {
      using file = await Deno.open(`${folder}/a`, { write: true, create: true });
      await file.write(new Uint8Array(10));
    };
    assertEquals((await withFault(folder, 0, "EIO", write)).operations, 2);
    await Deno.remove(`${folder}/a`);
    const message = await withFault(folder, 2, "torn", () => write().then(() => "", (error) => error.code));
    assertEquals([message.result, message.failed, Deno.statSync(`${folder}/a`).size], ["EIO", "write /a", 5]);
  });
});
