import { circles, importGraph, specifiers, target, typescriptFiles } from "../tools/import_graph.ts";
import { assert, assertEquals } from "./support/assert_close.ts";

const ROOT = new URL("..", import.meta.url).pathname;

/** Folder -> folders of this project it may import besides itself. Files at the root are everybody's. */
const MAY_IMPORT: Readonly<Record<string, readonly string[]>> = {
  kernels: [],
  distributed: [],
  report: [],
  data: [],
  train_args: ["data"],
  checkpoint: ["data"],
  hub: ["checkpoint", "data"],
  model: ["kernels", "checkpoint", "data"],
  chat: ["kernels", "model", "checkpoint", "data"],
  serve: ["kernels", "model", "chat", "checkpoint", "data"],
  eval: ["kernels", "model", "distributed", "checkpoint", "data", "chat", "report"],
  export: ["kernels", "model", "checkpoint", "hub", "data"],
  train: ["kernels", "model", "distributed", "export", "checkpoint", "data", "train_args", "report"],
  demo: ["kernels", "model", "chat", "eval", "export", "checkpoint", "data", "train", "train_args", "report"],
  examples: [],
  cli: [
    "kernels",
    "distributed",
    "model",
    "chat",
    "serve",
    "eval",
    "export",
    "checkpoint",
    "hub",
    "data",
    "train",
    "train_args",
    "demo",
    "report",
  ],
  tools: ["model", "checkpoint", "data", "train", "train_args", "cli"],
  // Commands of their own, which ask and print as those of cli/ do.
  bench: ["kernels", "distributed", "model", "checkpoint", "data", "train", "train_args", "cli"],
};

/** Files at the root that every folder may import. */
const EVERYBODYS = ["errors.ts", "text.ts", "nearest.ts", "deno.json"];

for (const [folder, allowed] of Object.entries(MAY_IMPORT)) {
  Deno.test(`${folder} imports only ${[folder, ...allowed, ...EVERYBODYS].join(", ")}`, async () => {
    const wrong: string[] = [];
    for await (const path of typescriptFiles(ROOT, folder)) {
      for (const specifier of specifiers(await Deno.readTextFile(`${ROOT}${path}`))) {
        if (!specifier.startsWith(".")) continue;
        const imported = target(path, specifier);
        const room = imported.split("/")[0]!;
        if (!EVERYBODYS.includes(imported) && room !== folder && !allowed.includes(room)) {
          wrong.push(`${path} -> ${imported}`);
        }
      }
    }
    assertEquals(wrong, []);
  });
}

Deno.test("the import scan sees every form of import", () => {
  assertEquals(
    specifiers(
      'import a from "./a.ts";\nimport "./b.ts";\nexport * from "./c.ts";\nconst d = await import("./d.ts");\n' +
        'import type {\n  E,\n} from "./e.ts";\n// import "./no.ts"\n/* import "./no.ts" */\nimport w from "./w.wgsl" with { type: "text" };',
    ),
    ["./a.ts", "./b.ts", "./c.ts", "./d.ts", "./e.ts", "./w.wgsl"],
  );
});

Deno.test("every folder with code has its rule", async () => {
  const folders: string[] = [];
  for await (const entry of Deno.readDir(ROOT)) {
    if (!entry.isDirectory || /^\.|^(tests|docs|output|node_modules)$/.test(entry.name)) continue;
    for await (const _ of typescriptFiles(ROOT, entry.name)) {
      folders.push(entry.name);
      break;
    }
  }
  const without = folders.filter((folder) => !Object.hasOwn(MAY_IMPORT, folder));
  assert(without.length === 0, `no import rule for ${without.join(", ")}: add one to this test`);
  assertEquals(Object.keys(MAY_IMPORT).sort(), folders.sort(), "folders with a rule and those with code");
});

Deno.test("no files import each other in a circle", async () => {
  const graph = await importGraph(ROOT);
  const isOurs = (path: string) => Object.hasOwn(MAY_IMPORT, path.split("/")[0]!) && path.endsWith(".ts");
  const imported = [...graph.values()].flat().filter(isOurs);
  assert(imported.length > 0, "no imports are found");
  assertEquals(imported.filter((path) => !graph.has(path)), [], "files that are imported and not there");
  const found = circles(graph);
  assertEquals(found.map((group) => group.join(" <-> ")), []);
});
