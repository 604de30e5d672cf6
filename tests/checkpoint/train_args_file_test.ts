import { readTrainArgs, TRAIN_ARGS } from "../../checkpoint/train_args_file.ts";
import { stringify } from "yaml";
import { assertEquals, assertThrows } from "../support/assert_close.ts";
import { withFolder } from "../support/files.ts";

Deno.test("readTrainArgs() finds the settings of a run, and of its checkpoints, and no others", async () => {
  await withFolder(async (folder) => {
    for (const name of ["checkpoint-2", "adapter"]) await Deno.mkdir(`${folder}/${name}`);
    assertEquals(await readTrainArgs(folder), undefined);
    const path = `${folder}/${TRAIN_ARGS}`;
    await Deno.writeTextFile(path, "seed: 3\nrank_pattern: { q_proj: 4 }\nnot_known_here: [a, null]\n");
    const values = { seed: 3, rank_pattern: { q_proj: 4 }, not_known_here: ["a", null] };
    for (const place of [folder, `${folder}/checkpoint-2`, `${folder}/checkpoint-2/`]) {
      const found = (await readTrainArgs(place))!;
      assertEquals(JSON.parse(JSON.stringify(found.values)), values);
      assertEquals(await Deno.realPath(found.path), await Deno.realPath(path));
      assertEquals(stringify(found.values), stringify(values));
    }
    assertEquals(await readTrainArgs(`${folder}/adapter`), undefined);
    // A checkpoint's own come first.
    await Deno.writeTextFile(`${folder}/checkpoint-2/${TRAIN_ARGS}`, "seed: 4\n");
    assertEquals((await readTrainArgs(`${folder}/checkpoint-2`))!.values, { seed: 4 });
  });
});

Deno.test("readTrainArgs() names the place of what is no map of settings", async () => {
  const cases: readonly [yaml: string, ...says: string[]][] = [
    ["model_max_length: [\n", `${TRAIN_ARGS}:`, "not valid YAML"],
    ["seed: 1\nseed: 2\n", `${TRAIN_ARGS}:2:1`],
    ["a: &x 1\nb: *x\n", `${TRAIN_ARGS}:2:4: b: aliases`],
    ["- seed\n", "one map of options"],
  ];
  await withFolder(async (folder) => {
    for (const [yaml, ...says] of cases) {
      await Deno.writeTextFile(`${folder}/${TRAIN_ARGS}`, yaml);
      await assertThrows(() => readTrainArgs(folder), `Cannot use "${folder}/${TRAIN_ARGS}"`, ...says);
    }
  });
});
