import { HELP, readOptions } from "../../bench/options.ts";
import { assert, assertEquals, assertThrows } from "../support/assert_close.ts";
import { assertIncludes } from "../support/text.ts";

Deno.test("flags of bench are read, with what holds unless they are given", () => {
  const plain = readOptions([])!;
  assertEquals([plain.mode, plain.clock, plain.shape, plain.full], ["kernels", "device", "demo", false]);
  assertEquals([plain.extent, plain.sharing, plain.filter, plain.seconds], [
    undefined,
    undefined,
    undefined,
    undefined,
  ]);
  const given = readOptions([
    "--step",
    "--shape=llama2-7b",
    "--tokens",
    "4096",
    "--rank",
    "32",
    "--full",
    "--seconds=0.5",
    "--sharing",
    "subgroup",
    "--json",
    "out.json",
  ])!;
  assertEquals(
    [given.mode, given.shape, given.tokens, given.rank, given.full, given.seconds, given.sharing, given.json],
    ["step", "llama2-7b", 4096, 32, true, 0.5, "subgroup", "out.json"],
  );
  assertEquals(readOptions(["--both", "--quick", "--clock", "cpu"]), {
    ...plain,
    sharing: "both",
    extent: "quick",
    clock: "cpu",
  });
  const dawn = (name: string) => name === "LONGREACH_WEBGPU" ? "dawn" : undefined;
  assertEquals(readOptions([], dawn)!.webgpu, "dawn");
  assertEquals(readOptions(["--webgpu", "deno"], dawn)!.webgpu, "deno");
  for (const mode of ["s2", "decode", "memory", "load", "tune"] as const) {
    assertEquals(readOptions([`--${mode}`])!.mode, mode);
  }
  assertEquals(readOptions(["--all", "--room", "1.5", "--compare", "old.json"]), {
    ...plain,
    extent: "all",
    room: 1.5,
    compare: "old.json",
  });
  assert(readOptions(["--filter", "NF4"])!.filter!.test("matmul nf4"), "case does not matter");
});

Deno.test("--help wins, and names every flag", () => {
  assertEquals(readOptions(["--help", "--quick"]), null);
  assertEquals(readOptions(["-h"]), null);
  for (
    const flag of [
      "s2",
      "step",
      "decode",
      "tune",
      "quick",
      "all",
      "filter",
      "seconds",
      "sharing",
      "both",
      "clock",
    ]
      .concat(["memory", "load", "room", "webgpu", "shape", "tokens", "rank", "full", "json", "compare"])
  ) {
    assertIncludes(HELP, `--${flag}`);
  }
});

Deno.test("flags that cannot be used are refused in a line that says why", async () => {
  const cases: readonly (readonly [words: string[], ...parts: string[]])[] = [
    [["--quik"], "--quik", "--quick"],
    [["--frobnicate"], "--frobnicate", "see --help"],
    [["--step", "--s2"], "--step", "--s2", "at a time"],
    [["--quick", "--all"], "--quick", "--all"],
    [["--clock", "sun"], "--clock", "device, cpu", '"sun"'],
    [["--sharing", "none"], "--sharing", "subgroup, workgroup"],
    [["--seconds", "0"], "--seconds", "above 0"],
    [["--tokens", "1.5"], "--tokens", "whole number"],
    [["--filter", "("], "--filter"],
    [["--json"], "--json"],
    [["surplus"], "surplus"],
  ];
  for (const [words, ...parts] of cases) {
    const message = await assertThrows(() => readOptions(words), ...parts);
    assert(!message.includes("\n") && !message.endsWith("."), message);
  }
});
