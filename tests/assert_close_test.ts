import { assertClose, assertEquals, assertThrows } from "./support/assert_close.ts";

const DIFFERENT: readonly (readonly [why: string, actual: unknown, expected: unknown])[] = [
  ["members of a Set", new Set([1]), new Set([0])],
  ["sizes of a Set", new Set(), new Set([0])],
  ["values of a Map", new Map([["a", 1]]), new Map([["a", 2]])],
  ["keys of a Map", new Map([["a", 1]]), new Map([["b", 1]])],
  ["NaN and null", NaN, null],
  ["infinity and null", [Infinity], [null]],
  ["undefined and null", undefined, null],
  ["a key that is undefined and one that is missing", { a: undefined }, {}],
  ["an array's hole and undefined", [undefined], new Array(1)],
  ["0 and -0", 0, -0],
  ["typed arrays' values", Uint8Array.of(1, 2), Uint8Array.of(1, 3)],
  ["typed arrays' formats", Uint8Array.of(1), Int8Array.of(1)],
  ["an array and a typed array", [1], Float32Array.of(1)],
  ["an object and an array", { 0: 1 }, [1]],
  ["a number and a string", 1, "1"],
  ["a bigint and a number", 1n, 1],
  ["a date and its text", new Date(0), new Date(0).toJSON()],
  ["dates", new Date(0), new Date(1)],
  ["errors' messages", new Error("a"), new Error("b")],
  ["regular expressions", /a/, /b/],
  ["functions", () => 1, () => 1],
];

Deno.test("assertEquals() tells apart what JSON does not", async () => {
  for (const [why, actual, expected] of DIFFERENT) {
    await assertThrows(() => assertEquals(actual, expected, why), `${why} differ`);
    await assertThrows(() => assertEquals({ x: [actual] }, { x: [expected] }, why), `${why} differ at .x`);
  }
});

Deno.test("assertEquals() accepts equal structures, whatever the order of keys", () => {
  const make = () => ({
    set: new Set([1, { a: 2 }]),
    map: new Map([["a", [NaN]]]),
    bytes: Uint8Array.of(1, 2),
    date: new Date(0),
    zero: -0,
    nothing: undefined,
  });
  assertEquals(make(), make());
  assertEquals({ a: 1, b: 2 }, { b: 2, a: 1 });
});

Deno.test("assertEquals() names the place, both values there and the whole", async () => {
  await assertThrows(
    () => assertEquals({ rows: [{ id: 1 }, { id: 2 }] }, { rows: [{ id: 1 }, { id: 3 }] }, "tables"),
    "tables differ at .rows[1].id\n  got      2\n  expected 3\n  whole    { rows: [ { id: 1 }, { id: 2 } ] }",
  );
});

Deno.test("assertClose() refuses NaN on either side, other lengths and what is too far", async () => {
  const tolerance = { rtol: 0, atol: 1 };
  assertClose("within", [1, 2], [2, 1], tolerance);
  assertClose("equal, none allowed", [0, Infinity], [0, Infinity], { rtol: 0, atol: 0 });
  const relative = { rtol: 0.5, atol: 0 };
  assertClose("within a share of what is expected", [6, -3], [4, -2], relative);
  await assertThrows(() => assertClose("x", [4, 3.5, -3.5], [2.5, 2, -2], relative), "3 of 3");
  await assertThrows(() => assertClose("x", [NaN], [0], tolerance), "1 of 1 values", "got NaN");
  await assertThrows(() => assertClose("x", [0], [NaN], tolerance), "expected NaN");
  await assertThrows(() => assertClose("x", [0, 3, 2.5], [0, 0, 0], tolerance), "2 of 3", "worst at 1");
  await assertThrows(() => assertClose("x", [0], [0, 0], tolerance), "got 1 values, expected 2");
});

Deno.test("assertThrows() fails where nothing is thrown or a part is missing", async () => {
  await assertThrows(() => assertThrows(() => {}, "part"), "nothing was thrown");
  const throwing = () => {
    throw new Error("one thing");
  };
  await assertThrows(() => assertThrows(throwing, "one", "other"), 'lacks "other"');
});
