import { paint } from "../../cli/format.ts";
import { terminalIo } from "../../cli/io.ts";
import { shortened, visible, withoutColours, wrapped } from "../../cli/visible.ts";
import { assert, assertEquals } from "../support/assert_close.ts";

Deno.test("what would steer a terminal is written out; line ends, tabs and letters of any script stay", () => {
  assertEquals(
    visible("a\u001b[2Jb\u0007\u009b31m\u202egnp.exe\u2066\u200f"),
    [
      "a\\x1b[2Jb\\x07\\u009b31m\\u202egnp.exe\\u2066\\u200f",
    ][0]!,
  );
  assertEquals(visible("x\r\ny\rz\u0000"), "x\ny\\x0dz\\x00");
  const plain = "tab\there\nשלום, مرحبا, 你好, \u{1f600}";
  assertEquals(visible(plain), plain);
});

Deno.test("JSON with escapes written out means the same", () => {
  const value = { text: "\u007f\u009b\u202e" };
  const shown = visible(JSON.stringify(value));
  assert(!/[\u007f-\u009f\u202e]/.test(shown), shown);
  assertEquals(JSON.parse(shown), value);
});

Deno.test("our own colours and drawing stay, whatever stands beside them", () => {
  const own = paint("ok", "cyan", true);
  const shown = "\u001b[36mok\u001b[39m";
  assertEquals(visible(`${own}\u001b[8m`, "colours"), `${shown}\\x1b[8m`);
  // A file's colours are not ours.
  assertEquals(visible(`${own}${shown}`, "colours"), `${shown}\\x1b[36mok\\x1b[39m`);
  assertEquals(visible(shown), "\\x1b[36mok\\x1b[39m");
  assertEquals(visible("\r\u001b[2K12 %\u001b[H", "drawing"), "\r\u001b[2K12 %\\x1b[H");
  assertEquals(visible("\r\u001b[2K", "colours"), "\\x0d\\x1b[2K");
});

Deno.test("a message without end is cut, its start and its end stay", () => {
  const cut = shortened(`start ${"[".repeat(200_000)} end`);
  assert(cut.length < 2500 && cut.startsWith("start [") && cut.endsWith("[ end"), cut.length.toString());
  assert(cut.includes("characters left out"), "it says so");
  assert(shortened("line\n".repeat(100_000)).length < 20_500, "many lines");
  assertEquals(shortened("short\nlines"), "short\nlines");
});

Deno.test("no command writes what a file holds to the terminal as it is", () => {
  const written: Uint8Array[] = [];
  const { writeSync } = Deno.stderr;
  Deno.stderr.writeSync = (bytes) => written.push(bytes.slice()) && bytes.length;
  try {
    const io = terminalIo();
    io.err("a\u001b]0;title\u0007");
    io.draw("b\u001b[5A");
  } finally {
    Deno.stderr.writeSync = writeSync;
  }
  const text = written.map((bytes) => new TextDecoder().decode(bytes)).join("");
  assertEquals(text, "a\\x1b]0;title\\x07\nb\\x1b[5A");
});

Deno.test("lines are broken between words, and colours take no room", () => {
  const text = "  one two three four\nshort";
  assertEquals(wrapped(text, 12), "  one two\n    three\n    four\nshort");
  assertEquals(wrapped("x".repeat(30), 12), "x".repeat(30));
  const coloured = visible(`${paint("one", "cyan", true)} two ${paint("three", "bold", true)}`, "colours");
  assertEquals(wrapped(coloured, 13), coloured);
  assertEquals(withoutColours(coloured), "one two three");
  for (const columns of [7, 20, 33]) {
    const words = "the quick brown fox jumps over lazy dogs ".repeat(9);
    assertEquals(wrapped(words, columns).split(/\s+/).join(" "), words);
    assertEquals(wrapped(words, columns).split("\n").every((line) => line.length <= columns), true);
  }
});

Deno.test("colours are for terminals, and for whoever sets FORCE_COLOR", () => {
  const colorWith = (value: string) => {
    const before = Deno.env.get("FORCE_COLOR");
    Deno.env.set("FORCE_COLOR", value);
    try {
      return terminalIo().color;
    } finally {
      if (before === undefined) Deno.env.delete("FORCE_COLOR");
      else Deno.env.set("FORCE_COLOR", before);
    }
  };
  assertEquals(colorWith("1"), true);
  assertEquals(colorWith("0"), Deno.stderr.isTerminal() && !Deno.noColor);
});
