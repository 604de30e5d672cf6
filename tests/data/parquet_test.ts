/** Parquet files whose figures do not fit their bytes: one clear line before anything is built, and the right rows else. */
import { readParquet } from "../../data/parquet.ts";
import { checkGroup, checkSchema, rangeOfGroup } from "../../data/parquet_check.ts";
import { parquetMetadata, parquetReadObjects } from "hyparquet";
import { assert, assertEquals, assertThrows } from "../support/assert_close.ts";
import { GOLDEN, withFolder } from "../support/files.ts";
import { integers } from "../support/random.ts";

const FAULTS = `${GOLDEN}/faults/17-reliability-corpus`;
const read = async (path: string) => (await Array.fromAsync(readParquet(path))).map(({ value }) => value);

Deno.test("parquet files that claim more than they hold are refused in one line", async () => {
  await assertThrows(
    () => read(`${FAULTS}/hang.parquet`),
    "hang.parquet",
    "a run claims",
    "where 512 can be",
  );
  await assertThrows(() => read(`${FAULTS}/uncaught.parquet`), "uncaught.parquet", "as parquet");
  // Whatever was begun has ended when the error comes: nothing is thrown later.
  await new Promise((resolve) => setTimeout(resolve, 50));
});

Deno.test("parquet files are read as their reader reads them, nulls left out and large numbers as text", async () => {
  for (const name of ["snappy", "conversations"]) {
    const path = `${GOLDEN}/parquet/${name}.parquet`;
    const { buffer } = await Deno.readFile(path);
    const wanted = await parquetReadObjects({ file: buffer });
    const clean = (value: unknown) => JSON.stringify(value, (_, item) => item === null ? undefined : item);
    assertEquals((await read(path)).map((value) => JSON.stringify(value)), wanted.map(clean), name);
  }
  // A column "n" of two INT64, by hand from the format's specification: 7 and 2^53 + 1.
  const page = "150015201520" + "2c1504150015061506" + "0000" + "0700000000000000" + "0100000000002000";
  const footer =
    "1502192c4801721502001504250018016e001604191c191c26081c15041915001918016e15001604164216422608000016421604" +
    "0000";
  const bytes = Uint8Array.fromHex(`50415231${page}${footer}3600000050415231`);
  await withFolder(async (folder) => {
    await Deno.writeFile(`${folder}/n.parquet`, bytes);
    assertEquals(await read(`${folder}/n.parquet`), [{ n: 7 }, { n: "9007199254740993" }]);
  });
});

Deno.test("figures of a parquet file's metadata must fit the file", async () => {
  const bytes = await Deno.readFile(`${GOLDEN}/parquet/snappy.parquet`);
  const fresh = () => parquetMetadata(bytes.buffer);
  const refused = (change: (metadata: ReturnType<typeof fresh>) => void, ...parts: string[]) =>
    assertThrows(() => {
      const metadata = fresh();
      change(metadata);
      checkSchema(metadata);
      const [group] = metadata.row_groups;
      const { start, end } = rangeOfGroup(group!, bytes.length);
      checkGroup(metadata, group!, bytes.subarray(start, end), start);
    }, ...parts);
  const meta = (metadata: ReturnType<typeof fresh>) => metadata.row_groups[0]!.columns[0]!.meta_data!;
  await refused((m) => meta(m).total_compressed_size = 10n ** 12n, '"text" is not within the file');
  await refused((m) => meta(m).dictionary_page_offset = -5n, "not within the file");
  await refused((m) => meta(m).num_values = 10n ** 10n, '"text" claims 10000000000 values');
  await refused((m) => meta(m).num_values = 100n, "claims 2048 rows, a column of it 100");
  await refused((m) => m.row_groups[0]!.num_rows = 10n ** 9n, "claims 1000000000 rows");
  await refused((m) => m.row_groups[0]!.columns = [], "no columns");
  await refused((m) => m.schema[1]!.name = "txet", '"text" is not in its schema');
  await refused((m) => m.schema = Array(20_000).fill(m.schema[1]), "more than 10000 elements");
  await refused((m) => m.schema = Array(70).fill({ name: "a", num_children: 1 }), "nests more than 64 deep");
  await refused((m) => meta(m).codec = "GZIP", "incorrect header check");
});

Deno.test("metadata with numbers that do not end, or lists and structs that only claim to be, is refused at once", async () => {
  await withFolder(async (folder) => {
    const path = `${folder}/a.parquet`;
    const long = new Uint8Array(1_000_000).fill(0xff);
    long[0] = 0x36;
    const list = [0x29, 0xfc, 0xff, 0xff, 0xff, 0xff, 0x07, 0, 0, 0, 0, 0];
    const cases: [ArrayLike<number>, string][] = [
      [long, "a number in it does not end"],
      [new Uint8Array(1_000_000).fill(0x1c), "a.parquet"],
      [list, "a.parquet"],
    ];
    for (const [footer, part] of cases) {
      const bytes = new Uint8Array(4 + footer.length + 8);
      bytes.set(new TextEncoder().encode("PAR1"));
      bytes.set(footer, 4);
      new DataView(bytes.buffer).setUint32(4 + footer.length, footer.length, true);
      bytes.set(new TextEncoder().encode("PAR1"), bytes.length - 4);
      await Deno.writeFile(path, bytes);
      await assertThrows(() => read(path), "Cannot read", part);
      await Deno.writeFile(path, bytes.subarray(0, -1));
      await assertThrows(() => read(path), "does not end as parquet does");
    }
  });
});

Deno.test("mutated parquet files end in rows or in one line, and nothing is left running", async () => {
  const late: unknown[] = [];
  const hear = (event: PromiseRejectionEvent) => {
    event.preventDefault();
    late.push(event.reason);
  };
  addEventListener("unhandledrejection", hear);
  try {
    await withFolder(async (folder) => {
      const path = `${folder}/a.parquet`;
      for (const [n, name] of ["snappy", "conversations", "zstd"].entries()) {
        const whole = await Deno.readFile(`${GOLDEN}/parquet/${name}.parquet`);
        for (let i = 0; i < 60; i++) {
          const [at, value, back] = integers(1000 * n + i, 3, 2 ** 16);
          const bytes = whole.slice(0, i % 10 === 0 ? at! % whole.length : whole.length);
          // The footer is small and decides most.
          const place = back! % 2 ? at! % bytes.length : Math.max(0, bytes.length - 1 - at! % 400);
          bytes[place] = i % 3 === 0 ? 0xff : value! & 0xff;
          await Deno.writeFile(path, bytes);
          try {
            await read(path);
          } catch (error) {
            assertEquals((error as Error).name, "UserError", `${name} ${i}: ${error}`);
          }
        }
      }
    });
    await new Promise((resolve) => setTimeout(resolve, 50));
    assert(late.length === 0, `thrown later: ${late[0]}`);
  } finally {
    removeEventListener("unhandledrejection", hear);
  }
});
