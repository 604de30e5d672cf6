import { CommandError, exitCodeOf } from "../../cli/exit.ts";
import { UserError } from "../../errors.ts";
import { assertEquals } from "../support/assert_close.ts";

Deno.test("every kind of failure has its exit code, and a command may have one of its own", () => {
  const cases: readonly [error: unknown, code: number][] = [
    [new UserError("no disk"), 1],
    [new UserError("no such flag", { kind: "usage" }), 2],
    [new UserError("too large", { kind: "doesNotFit" }), 3],
    [new CommandError("told", { isTold: true }), 1],
    [new CommandError("told", { kind: "doesNotFit", isTold: true }), 3],
    [new CommandError("Ctrl-C", { exitCode: 130 }), 130],
    [new TypeError("a bug"), 1],
  ];
  assertEquals(cases.map(([error]) => exitCodeOf(error)), cases.map(([, code]) => code));
});
