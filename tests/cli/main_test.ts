import { runCli } from "../../cli/main.ts";
import { OPTION_NAMES } from "../../train_args/schema.ts";
import { assert, assertEquals } from "../support/assert_close.ts";
import { withFolder } from "../support/files.ts";
import { assertIncludes } from "../support/text.ts";
import { MemoryIo } from "./memory_io.ts";

async function run(...words: string[]): Promise<{ code: number; io: MemoryIo }> {
  const io = new MemoryIo();
  return { code: await runCli(words, io), io };
}

async function taskNames(): Promise<Record<string, { command: string; description: string }>> {
  return JSON.parse(await Deno.readTextFile(new URL("../../deno.json", import.meta.url))).tasks;
}

/** The commands that the list names. */
async function commandNames(): Promise<string[]> {
  const { io } = await run();
  return [...io.stdout.matchAll(/^ {2}(\w+) /gm)].map((match) => match[1]!);
}

Deno.test("without a command, the commands are listed, and each is a task with the same summary", async () => {
  const { code, io } = await run();
  assertEquals(code, 0);
  const tasks = await taskNames();
  const names = await commandNames();
  assert(names.length >= 6, "commands");
  for (const name of names) assertIncludes(io.stdout, tasks[name]?.description ?? `a task for ${name}`);
});

Deno.test("every command has --help and --json, and prints them on stdout", async () => {
  for (const name of await commandNames()) {
    const { code, io } = await run(name, "--help");
    assertEquals([code, io.stderr], [0, ""], name);
    assertIncludes(io.stdout, `Usage: longreach ${name}`);
    assertIncludes(io.stdout, "--[no-]json ");
  }
});

Deno.test("train --help shows every option", async () => {
  const { io } = await run("train", "--help");
  for (const name of OPTION_NAMES) assert(new RegExp(`--(\\[no-\\])?${name} `).test(io.stdout), name);
  assert(!io.stdout.includes("deepspeed"), "foreign keys are hidden");
});

Deno.test("unknown commands are answered with the nearest name and exit code 2", async () => {
  const { code, io } = await run("trian");
  assertEquals(code, 2);
  assertEquals(io.stderr, 'Unknown command "trian": did you mean train?\n');
  assertEquals((await run("constructor")).code, 2);
  assertEquals((await run("make-demo", "--help")).code, 0);
});

Deno.test("a failure is one JSON object too, where --json asks for it", async () => {
  const { code, io } = await run("evaluate", "--json", "--base", "x");
  const { error } = JSON.parse(io.stdout);
  assertEquals([code, error.exit_code], [2, 2]);
  assertEquals(io.stderr, `${error.message}\n`);
  assertIncludes(error.message, 'Unknown flag "--base" for evaluate: did you mean --base_model?');
});

Deno.test("help has what must be given first, choices, and an example of every command", async () => {
  for (const name of await commandNames()) {
    const { io } = await run(name, "--help");
    assertIncludes(io.stdout, `  ./longreach ${name}`);
    const [required, general] = ["Required:", "General:"].map((heading) => io.stdout.indexOf(heading));
    const first = io.stdout.indexOf("\n  --");
    assert(required === -1 || required! < first, `${name}: required flags stand first`);
    assert(general! > io.stdout.lastIndexOf("Options:"), `${name}: general flags stand last`);
  }
  assertIncludes((await run("convert", "--help")).io.stdout, "format to write: gguf, bnb-4bit, safetensors");
});

Deno.test("--version names the version", async () => {
  const { code, io } = await run("--version");
  assertEquals(code, 0);
  assert(/^longreach \d+\.\d+\.\d+, Deno \d+/.test(io.stdout), io.stdout);
});

Deno.test("a settings file is the first word, -c, --config or --train_args_file, and only one", async () => {
  const missing = 'Cannot read settings "/no/such.yaml": no such file or folder\n';
  for (const words of [["/no/such.yaml"], ["-c", "/no/such.yaml"], ["--config", "/no/such.yaml"]]) {
    for (const command of ["train", "plan"]) assertEquals((await run(command, ...words)).io.stderr, missing);
  }
  const two = await run("train", "a.yaml", "-c", "b.yaml");
  assertEquals([two.code, two.io.stderr], [
    2,
    'Cannot use "a.yaml" and "b.yaml": one settings file is read\n',
  ]);
});

Deno.test("what other tools' users type is answered with what it is here", async () => {
  const cases = [
    [["train", "my.yaml", "lora_rank=16"], "write --lora_rank=16"],
    [["train", "--lr", "1"], "did you mean --learning_rate?"],
    [["doctor", "model"], "everything else it takes is a --flag"],
  ] as const;
  for (const [words, answer] of cases) {
    const { code, io } = await run(...words);
    assertEquals(code, 2);
    assertIncludes(io.stderr, answer);
  }
});

Deno.test("train reports every wrong flag at once, takes foreign ones, and prints nothing on stdout", async () => {
  const { code, io } = await run(
    ..."train --lora-rank x --no-load-in-4bit --tf32 True --deepspeed ds.json --learning_rate=-1 --bf16"
      .split(" "),
  );
  assertEquals([code, io.stdout], [2, ""]);
  assertIncludes(io.stderr, '--lora_rank: must be a whole number from 1 to 4096, got "x"');
  assertIncludes(io.stderr, '--learning_rate: must be a number above 0, got "-1"');
  assertIncludes(io.stderr, "--output_dir: is required");
  assert(!io.stderr.includes("tf32: "), "foreign flags are no error");
});

Deno.test("train names a missing settings file", async () => {
  const { code, io } = await run("train", "--train_args_file", "/no/such.yaml");
  assertEquals([code, io.stderr], [2, 'Cannot read settings "/no/such.yaml": no such file or folder\n']);
});

Deno.test("--webgpu takes the names that there are, from its flag or the environment", async () => {
  const wrong = await run("doctor", "--webgpu", "chrome");
  assertEquals([wrong.code, wrong.io.stderr], [2, '--webgpu: must be one of deno, dawn, got "chrome"\n']);
  Deno.env.set("LONGREACH_WEBGPU", "chrome");
  const { code, io } = await run("doctor").finally(() => Deno.env.delete("LONGREACH_WEBGPU"));
  assertEquals([code, io.stderr], [2, '--webgpu: must be one of deno, dawn, got "chrome"\n']);
});

Deno.test("Dawn without permission for native code is refused with the command that grants it", async () => {
  const { code, io } = await run("doctor", "--webgpu", "dawn");
  assertEquals([code, io.stdout], [1, ""]);
  assertIncludes(io.stderr, '"./longreach COMMAND --webgpu dawn" or "deno task dawn COMMAND"');
});

Deno.test("tasks list their permissions: none has all of them, none asks", async () => {
  for (const [name, { command, description }] of Object.entries(await taskNames())) {
    assert(description.length > 5, `${name} has a description`);
    // Dawn is native code; whoever runs its tasks asked for that.
    const allowed = /(^|:)dawn$/.test(name) ? ["ffi"] : [];
    const forbidden = ["net", "ffi", "sys", "run"].filter((permission) => !allowed.includes(permission)).join(
      "|",
    );
    assert(
      !new RegExp(`(^| )(-A|--allow-all|--allow-(${forbidden}))( |$)`).test(command),
      `${name}: ${command}`,
    );
    if (command.includes("deno run")) assertIncludes(command, "--no-prompt");
  }
});

Deno.test("a task run from another folder reads paths from there, with just its permissions", async () => {
  await withFolder(async (folder) => {
    await Deno.writeTextFile(`${folder}/my.yaml`, "lora_rnk: 3\n");
    const config = new URL("../../deno.json", import.meta.url).pathname;
    const { code, stderr } = await new Deno.Command("deno", {
      args: ["task", "--quiet", "--config", config, "train", "--train-args-file", "my.yaml"],
      cwd: folder,
      env: { INIT_CWD: folder, NO_COLOR: "1" },
    }).output();
    const text = new TextDecoder().decode(stderr);
    assertEquals(code, 2);
    assertIncludes(text, "my.yaml:1:1: lora_rnk: not an option; did you mean lora_rank?");
  });
});
