import { roomNote } from "../../checkpoint/free_room.ts";
import { writingsOf } from "../../train/room.ts";
import { assert, assertEquals } from "../support/assert_close.ts";
import { withFolder } from "../support/files.ts";

/** What freeBytes() says in a process with these grants besides reading. */
async function freeIn(folder: string, ...grants: string[]): Promise<unknown> {
  return await withFolder(async (root) => {
    const module = new URL("../../checkpoint/free_room.ts", import.meta.url).href;
    const code = `import { freeBytes } from ${
      JSON.stringify(module)
    };\nconsole.log(freeBytes(Deno.args[0]));\n`;
    await Deno.writeTextFile(`${root}/main.ts`, code);
    const config = new URL("../../deno.json", import.meta.url).pathname;
    const args = ["run", "--quiet", "--allow-read", ...grants, "--config", config, `${root}/main.ts`, folder];
    const { stdout, stderr } = await new Deno.Command("deno", { args, stdin: "null" }).output();
    const [out, err] = [stdout, stderr].map((bytes) => new TextDecoder().decode(bytes));
    assertEquals(err, "");
    return JSON.parse(out!);
  });
}

Deno.test("freeBytes() knows the disk of a folder, of one that is not made yet too, where it may ask", async () => {
  await withFolder(async (folder) => {
    const { stdout } = await new Deno.Command("sh", { args: ["-c", 'df -Pk "$0"', folder] }).output();
    const told = 1024 * Number(/(\d+)\s+\d+%/.exec(new TextDecoder().decode(stdout))![1]);
    for (const path of [folder, `${folder}/not/made/yet`]) {
      const free = await freeIn(path, "--allow-sys=statfs");
      // Others write meanwhile.
      assert(Math.abs(free as number - told) < 2 ** 30, `${free} bytes, but df says ${told}`);
    }
    assertEquals(await freeIn(folder), null);
  });
});

Deno.test("less room than is needed is told, with what it is for", () => {
  const need = { what: "The weights", bytes: 3 * 2 ** 20, remedy: "make room" };
  assertEquals(roomNote("out", { ...need, free: 3 * 2 ** 20 }), undefined);
  assertEquals(roomNote("out", { ...need, free: null }), undefined);
  assertEquals(
    roomNote("out", { ...need, free: 2 ** 20 }),
    'The weights take about 3.0 MiB, but 1.0 MiB are free where "out" is: make room',
  );
});

Deno.test("what a run writes: the result, and the checkpoints that are there at once with both moments", () => {
  const settings = { optim: "adamw_torch", save_total_limit: null } as const;
  const run = { trainable: 1000, saves: 5 };
  assertEquals(writingsOf(settings, run), { checkpoints: 5, bytes: 4000 + 5 * 12_000 });
  assertEquals(writingsOf({ ...settings, save_total_limit: 2 }, run), { checkpoints: 3, bytes: 40_000 });
  assertEquals(writingsOf({ ...settings, optim: "adamw_8bit" }, run).bytes, 4000 + 5 * 6000);
  assertEquals(writingsOf(settings, { ...run, saves: 0 }), { checkpoints: 0, bytes: 4000 });
});
