import { quote } from "../../text.ts";
import { join } from "../../checkpoint/deps.ts";
import { safeJoin } from "../../checkpoint/paths.ts";
import { assert, assertEquals, assertThrows } from "../support/assert_close.ts";
import { withFolder } from "../support/files.ts";
import { HOSTILE_NAMES } from "../support/hostile_names.ts";

const HARMLESS = [
  "model.safetensors",
  "a/b/c.json",
  "..a",
  "a..b",
  ".cache",
  "console.txt",
  "com10",
  "名前.bin",
  "a b",
  "a".repeat(255),
  `${"a/".repeat(511)}bc`,
];

Deno.test("safeJoin() refuses hostile names before touching the disk", async () => {
  assert(HOSTILE_NAMES.length >= 60, "the list should stay long");
  await withFolder(async (folder) => {
    for (const name of HOSTILE_NAMES) {
      await assertThrows(() => safeJoin(folder, name), "Refused the file name", folder);
    }
  });
});

Deno.test("safeJoin() joins ordinary names, also below folders that do not exist yet", async () => {
  await withFolder((folder) => {
    for (const name of HARMLESS) assertEquals(safeJoin(folder, name), join(folder, name));
    assertEquals(safeJoin(join(folder, "new"), "x/y"), join(folder, "new", "x", "y"));
  });
});

Deno.test("safeJoin() with plain refuses subfolders", async () => {
  await withFolder(async (folder) => {
    assertEquals(safeJoin(folder, "x.bin", { plain: true }), join(folder, "x.bin"));
    await assertThrows(() => safeJoin(folder, "sub/x.bin", { plain: true }), "same folder");
  });
});

Deno.test("safeJoin() does not follow links out of the folder", async () => {
  await withFolder(async (outer) => {
    const root = join(outer, "root");
    Deno.mkdirSync(join(root, "real"), { recursive: true });
    Deno.mkdirSync(join(outer, "root-other"));
    Deno.writeTextFileSync(join(outer, "secret"), "s");
    Deno.symlinkSync(outer, join(root, "out"));
    Deno.symlinkSync(join(outer, "root-other"), join(root, "beside"));
    Deno.symlinkSync(join(root, "real"), join(root, "within"));
    Deno.symlinkSync(join(outer, "secret"), join(root, "link"));
    await assertThrows(() => safeJoin(root, "out/secret"), "leads outside");
    await assertThrows(() => safeJoin(root, "beside/x"), "leads outside");
    await assertThrows(() => safeJoin(root, "link"), "symbolic link");
    assertEquals(safeJoin(root, "within/x"), join(root, "within", "x"));
    assertEquals(safeJoin(root, "link", { links: "follow" }), join(root, "link"));
  });
});

Deno.test("quote() cannot steer a terminal and is cut", () => {
  const text = quote("a\u001b[2J\u202eb\u009bc");
  assert(/^[\x20-\x7e]*$/.test(text), `unprintable characters are left in ${text}`);
  assert(quote("x".repeat(10_000)).length < 200, "a long name is not cut");
});
