import { UserError } from "../../errors.ts";
import { join } from "../../checkpoint/deps.ts";
import { fromF32, toF32 } from "../../checkpoint/dtype.ts";
import { SafetensorsFile, type TensorSource, writeSafetensors } from "../../checkpoint/safetensors.ts";
import { assert, assertEquals, assertThrows } from "../support/assert_close.ts";
import { namesIn, withFolder } from "../support/files.ts";
import { normal } from "../support/random.ts";
import { safetensorsBytes, systemError, watchedFiles } from "./support.ts";

interface Attack {
  readonly why: string;
  readonly bytes: Uint8Array;
  /** What the error must say. */
  readonly says: string;
}

function attack(why: string, says: string, header: string, dataLength = 8, length?: bigint): Attack {
  return { why, says, bytes: safetensorsBytes(header, new Uint8Array(dataLength), length) };
}

/** A header with one tensor "a" whose entry is the given text. */
function entry(why: string, says: string, text: string, dataLength = 8): Attack {
  return attack(why, says, `{"a":${text}}`, dataLength);
}

const f32 = (name: string, count: number, begin: number, end: number) =>
  `"${name}":{"dtype":"F32","shape":[${count}],"data_offsets":[${begin},${end}]}`;
const many = Array.from(
  { length: 100_001 },
  (_, i) => `"${i}":{"dtype":"U8","shape":[0],"data_offsets":[0,0]}`,
);
const GOOD = '{"dtype":"F32","shape":[2],"data_offsets":[0,8]}';

const ATTACKS: readonly Attack[] = [
  { why: "empty file", says: "only 0 bytes", bytes: new Uint8Array(0) },
  { why: "seven bytes", says: "only 7 bytes", bytes: new Uint8Array(7) },
  { why: "no header", says: "does not start", bytes: new Uint8Array(8) },
  attack("length 2^64 - 1", "18446744073709551615 bytes", "{}", 8, 2n ** 64n - 1n),
  attack("length 2^63", "at most", "{}", 8, 2n ** 63n),
  attack("length above the limit", "at most", "{}", 8, 25_000_001n),
  attack("length past the end", "only 10 bytes follow", "{}", 8, 11n),
  attack("length cuts the header", "not as the format says", `{"a":${GOOD}}`, 8, 20n),
  attack("leading space", "does not start", ` {"a":${GOOD}}`),
  attack("byte order mark", "does not start", `\ufeff{"a":${GOOD}}`),
  attack("an array", "does not start", "[]", 0),
  attack("text after the header", "text follows", `{"a":${GOOD}}x`),
  attack("two objects", "text follows", `{"a":${GOOD}}{}`),
  attack("trailing comma", "is missing", `{"a":${GOOD},}`),
  attack("unclosed", "is missing", `{"a":${GOOD}`),
  attack("unclosed string", "does not end", `{"a`),
  attack("line break in a string", "does not end", `{"a\nb":${GOOD}}`),
  attack("unknown escape", "escape", `{"a\\x":${GOOD}}`),
  attack("half a surrogate pair", "Unicode", `{"a\\ud800":${GOOD}}`),
  { why: "not UTF-8", says: "UTF-8", bytes: safetensorsBytes("", Uint8Array.of(0x7b, 0xff, 0x7d), 3n) },
  attack("duplicate tensor", "occurs twice", `{${f32("a", 1, 0, 4)},${f32("a", 1, 4, 8)}}`),
  attack("duplicate tensor by escape", "occurs twice", `{${f32("a", 1, 0, 4)},${f32("\\u0061", 1, 4, 8)}}`),
  attack(
    "duplicate __proto__",
    "occurs twice",
    `{${f32("__proto__", 1, 0, 4)},${f32("__proto__", 1, 4, 8)}}`,
  ),
  entry("duplicate key", "occurs twice", '{"dtype":"F32","dtype":"F32","shape":[2],"data_offsets":[0,8]}'),
  attack("duplicate metadata", "occurs twice", `{"__metadata__":{"x":"1","x":"2"},"a":${GOOD}}`),
  attack("two metadata", "occurs twice", `{"__metadata__":{},"__metadata__":{},"a":${GOOD}}`),
  attack("metadata of numbers", "is missing", `{"__metadata__":{"x":1},"a":${GOOD}}`),
  attack("nested metadata", "is missing", `{"__metadata__":{"x":{"y":"z"}},"a":${GOOD}}`),
  entry("tensor is a number", "is missing", "5"),
  entry("tensor is null", "is missing", "null"),
  entry("no dtype", "it needs", '{"shape":[2],"data_offsets":[0,8]}'),
  entry("no shape", "it needs", '{"dtype":"F32","data_offsets":[0,8]}'),
  entry("no offsets", "it needs", '{"dtype":"F32","shape":[2]}'),
  entry("one offset", "it needs", '{"dtype":"F32","shape":[2],"data_offsets":[0]}'),
  entry("three offsets", "more than 2", '{"dtype":"F32","shape":[2],"data_offsets":[0,8,8]}'),
  entry("unknown key", "unknown key", '{"dtype":"F32","shape":[2],"data_offsets":[0,8],"extra":1}'),
  entry("unknown dtype", "unknown dtype", '{"dtype":"F31","shape":[2],"data_offsets":[0,8]}'),
  entry("inherited dtype", "unknown dtype", '{"dtype":"constructor","shape":[2],"data_offsets":[0,8]}'),
  entry("dtype in lower case", "unknown dtype", '{"dtype":"f32","shape":[2],"data_offsets":[0,8]}'),
  entry("negative offset", "whole numbers", '{"dtype":"F32","shape":[2],"data_offsets":[-8,0]}'),
  entry("minus zero", "whole numbers", '{"dtype":"F32","shape":[2],"data_offsets":[-0,8]}'),
  entry("fraction", "whole numbers", '{"dtype":"F32","shape":[2.0],"data_offsets":[0,8]}'),
  entry("exponent", "whole numbers", '{"dtype":"F32","shape":[2e0],"data_offsets":[0,8]}'),
  entry("leading zero", "whole numbers", '{"dtype":"F32","shape":[02],"data_offsets":[0,8]}'),
  entry("text as number", "whole numbers", '{"dtype":"F32","shape":["2"],"data_offsets":[0,8]}'),
  entry("infinite", "whole numbers", '{"dtype":"F32","shape":[Infinity],"data_offsets":[0,8]}'),
  entry("2^53", "2^53", '{"dtype":"F32","shape":[9007199254740992],"data_offsets":[0,8]}'),
  entry("400 digits", "2^53", `{"dtype":"F32","shape":[${"9".repeat(400)}],"data_offsets":[0,8]}`),
  entry(
    "shape overflow",
    "too large",
    '{"dtype":"F32","shape":[4294967296,4294967296],"data_offsets":[0,8]}',
  ),
  entry("byte overflow", "too large", '{"dtype":"F64","shape":[9007199254740991],"data_offsets":[0,8]}'),
  entry("rank 9", "more than 8", '{"dtype":"F32","shape":[1,1,1,1,1,1,1,1,2],"data_offsets":[0,8]}'),
  entry("nested shape", "whole numbers", '{"dtype":"F32","shape":[[2]],"data_offsets":[0,8]}'),
  entry("span too small", "takes 8 bytes", '{"dtype":"F32","shape":[2],"data_offsets":[0,4]}', 4),
  entry("span too large", "takes 8 bytes", '{"dtype":"F32","shape":[2],"data_offsets":[0,12]}', 12),
  entry("reversed span", "takes 8 bytes", '{"dtype":"F32","shape":[2],"data_offsets":[8,0]}'),
  entry("past the end", "only 4 follow", GOOD, 4),
  entry("bytes left over", "after the last tensor", GOOD, 9),
  entry("hole at the start", "bytes 0 to 4", '{"dtype":"F32","shape":[1],"data_offsets":[4,8]}'),
  attack("hole between", "bytes 4 to 8", `{${f32("a", 1, 0, 4)},${f32("b", 1, 8, 12)}}`, 12),
  attack("overlap", "overlaps", `{${f32("a", 2, 0, 8)},${f32("b", 1, 4, 8)}}`),
  attack("same span twice", "overlaps", `{${f32("a", 2, 0, 8)},${f32("b", 2, 0, 8)}}`),
  attack("empty tensor inside another", "overlaps", `{${f32("a", 2, 0, 8)},${f32("b", 0, 4, 4)}}`),
  attack("data but no tensor", "after the last tensor", "{}"),
  attack("long name", "longer than 1024", `{"${"x".repeat(1025)}":${GOOD}}`),
  attack("100,001 tensors", "more than 100000", `{${many.join(",")}}`, 0),
  attack("deep nesting", "unknown key", '{"a":'.repeat(20_000)),
];

Deno.test("SafetensorsFile.open() refuses every hand-made attack with the file and the rule", async () => {
  assert(ATTACKS.length >= 30, "the corpus should stay long");
  await withFolder(async (folder) => {
    const path = join(folder, "model.safetensors");
    for (const { why, bytes, says } of ATTACKS) {
      Deno.writeFileSync(path, bytes);
      try {
        (await SafetensorsFile.open(path)).close();
      } catch (error) {
        assert(error instanceof UserError, `${why}: not a UserError but ${error}`);
        assert(error.message.includes(path) && error.message.includes(says), `${why}: ${error.message}`);
        continue;
      }
      throw new Error(`${why}: was accepted`);
    }
  });
});

Deno.test("SafetensorsFile.open() accepts what is unusual but legal", async () => {
  const names = ["__proto__", "constructor", "toString", "", "名前", "a b", "\\u0041"];
  const tensors = names.map((name, i) => f32(name, 1, 4 * i, 4 * i + 4));
  const header = `{ "__metadata__" : {"k":"v","__proto__":"w"},\n${tensors.reverse().join(" ,\t")},` +
    `"scalar":{"shape":[],"data_offsets":[28,30],"dtype":"F16"},` +
    `"none":{"dtype":"F64","shape":[3,0],"data_offsets":[12,12]}}   `;
  await withFolder(async (folder) => {
    const path = join(folder, "x.safetensors");
    Deno.writeFileSync(path, safetensorsBytes(header, Uint8Array.from({ length: 30 }, (_, i) => i)));
    const file = await SafetensorsFile.open(path);
    assertEquals(file.tensors.size, 9);
    assertEquals([...await file.read(file.tensors.get("__proto__")!)], [0, 1, 2, 3]);
    assertEquals([...await file.read(file.tensors.get("A")!)], [24, 25, 26, 27]);
    assertEquals([...await file.read(file.tensors.get("scalar")!)], [28, 29]);
    assertEquals((await file.read(file.tensors.get("none")!)).length, 0);
    assertEquals(file.header.metadata.get("__proto__"), "w");
    file.close();
  });
});

function sources(): { tensors: TensorSource[]; values: Map<string, Float32Array> } {
  const values = new Map([["b.weight", normal(1, 12)], ["__proto__", normal(2, 5)], [
    "a.weight",
    normal(3, 6),
  ]]);
  const shapes: Record<string, number[]> = { "b.weight": [3, 4], "a.weight": [2, 3] };
  const dtypes = { "b.weight": "F16", "a.weight": "F32" } as const;
  const tensors = [...values].map(([name, data]): TensorSource => {
    const dtype = Object.hasOwn(dtypes, name) ? dtypes[name as keyof typeof dtypes] : "BF16";
    return {
      name,
      dtype,
      shape: Object.hasOwn(shapes, name) ? shapes[name]! : [5],
      read: () => Promise.resolve(fromF32(data, dtype)),
    };
  });
  return { tensors, values };
}

Deno.test("writeSafetensors() writes what SafetensorsFile reads, aligned, in pieces or whole", async () => {
  await withFolder(async (folder) => {
    const path = join(folder, "x.safetensors");
    const { tensors, values } = sources();
    const pieces = Uint8Array.from({ length: 300 }, (_, i) => i);
    const streamed: TensorSource = {
      name: "streamed",
      dtype: "U8",
      shape: [3, 100],
      async *read() {
        for (let i = 0; i < 300; i += 60) yield await Promise.resolve(pieces.subarray(i, i + 60));
      },
    };
    await writeSafetensors(path, [...tensors, streamed], { format: "pt", note: "ä" });
    const file = await SafetensorsFile.open(path);
    assertEquals(file.dataStart % 8, 0, "start of the data");
    assertEquals([...file.header.metadata], [["format", "pt"], ["note", "ä"]]);
    for (const { name, dtype } of tensors) {
      const span = file.tensors.get(name)!;
      assertEquals(span.begin % (dtype === "F32" ? 4 : 2), 0, `alignment of ${name}`);
      const kept = dtype === "F32"
        ? values.get(name)!
        : toF32(fromF32(values.get(name)!, dtype as "F16"), dtype);
      assertEquals([...toF32(await file.read(span), dtype)], [...kept], name);
    }
    assertEquals([...await file.read(file.tensors.get("streamed")!)], [...pieces]);
    const part = new Uint8Array(3);
    await file.readInto(file.tensors.get("streamed")!, 100, part);
    assertEquals([...part], [100, 101, 102]);
    file.close();
    // An independent reading of the same bytes: length, JSON, offsets.
    const bytes = Deno.readFileSync(path);
    const length = Number(new DataView(bytes.buffer).getBigUint64(0, true));
    const header = JSON.parse(new TextDecoder().decode(bytes.subarray(8, 8 + length)));
    const [begin, end] = header["a.weight"].data_offsets;
    const data = new Float32Array(bytes.slice(8 + length + begin, 8 + length + end).buffer);
    assertEquals([...data], [...values.get("a.weight")!], "read by hand");
  });
});

Deno.test("writeSafetensors() leaves nothing behind when a tensor is short, a name is taken, or the disk fills", async () => {
  await withFolder(async (folder) => {
    const path = join(folder, "x.safetensors");
    const { tensors } = sources();
    const short: TensorSource = {
      name: "s",
      dtype: "F32",
      shape: [4],
      read: () => Promise.resolve(new Uint8Array(15)),
    };
    await assertThrows(() => writeSafetensors(path, [...tensors, short]), '"s"', "takes 16 bytes", "gave 15");
    await assertThrows(() => writeSafetensors(path, [...tensors, tensors[0]!]), "taken");
    let writes = 0;
    const files = watchedFiles((operation) => {
      if (operation === "write" && ++writes === 3) throw systemError("ENOSPC");
    });
    await assertThrows(
      () => writeSafetensors(path, tensors, {}, { files }),
      path,
      "disk is full",
      "needs 282 B",
    );
    assertEquals(namesIn(folder), []);
  });
});

Deno.test("SafetensorsFile reads concurrently without mixing ranges up", async () => {
  await withFolder(async (folder) => {
    const path = join(folder, "x.safetensors");
    const blocks = Array.from({ length: 20 }, (_, i) => new Uint8Array(10_000).fill(i + 1));
    await writeSafetensors(
      path,
      blocks.map((block, i) => ({
        name: `${i}`,
        dtype: "U8",
        shape: [10_000],
        read: () => Promise.resolve(block),
      })),
    );
    const file = await SafetensorsFile.open(path);
    const read = await Promise.all(blocks.map((_, i) => file.read(file.tensors.get(`${i}`)!)));
    read.forEach((bytes, i) => assert(bytes.every((byte) => byte === i + 1), `block ${i} has other bytes`));
    file.close();
  });
});

Deno.test("SafetensorsFile reports a file that shrinks after it was opened", async () => {
  await withFolder(async (folder) => {
    const path = join(folder, "x.safetensors");
    Deno.writeFileSync(path, safetensorsBytes(`{"a":${GOOD}}`, new Uint8Array(8)));
    const file = await SafetensorsFile.open(path);
    Deno.truncateSync(path, 30);
    await assertThrows(() => file.read(file.tensors.get("a")!), "became shorter", path);
    file.close();
  });
});
