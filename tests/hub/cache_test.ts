/** Damaged caches are mended, planted links lead nowhere, and what killed downloads left is used or removed. */
import type { SnapshotOptions } from "../../hub/hub.ts";
import { withDisk } from "../support/full_disk.ts";
import { assert, assertEquals, assertThrows } from "../support/assert_close.ts";
import { COMMIT, MODEL, type TestHub, tree, WEIGHTS, withHub } from "./support.ts";

const ROOT = "models--org--tiny";
const NAMES = ["config.json", "model.safetensors", "tokenizer.json"];

/** The files of the snapshot are those of the hub, and nothing is outside of the cache. */
async function assertWhole({ cache, outside }: TestHub): Promise<void> {
  for (const name of NAMES) {
    const bytes = await Deno.readFile(`${cache}/${ROOT}/snapshots/${COMMIT}/${name}`);
    assertEquals(bytes, MODEL.files[name], name);
  }
  assertEquals(tree(outside).filter((path) => !path.startsWith("cache/")), []);
  assertEquals(tree(`${cache}/${ROOT}/blobs`).length, 3);
}

Deno.test("a damaged cache is mended: blobs cut, longer, changed, gone, links astray, folders in the way", async () => {
  const large = `snapshots/${COMMIT}/model.safetensors`;
  const small = `snapshots/${COMMIT}/config.json`;
  const flip = async (path: string) => {
    const bytes = await Deno.readFile(path);
    bytes[bytes.length >> 1]! ^= 4;
    await Deno.writeFile(path, bytes);
  };
  const damages: [string, (root: string) => unknown, Partial<SnapshotOptions>?][] = [
    ["cut", async (root) => await Deno.truncate(await Deno.realPath(`${root}/${large}`), 1000)],
    ["emptied", async (root) => await Deno.truncate(await Deno.realPath(`${root}/${large}`), 0)],
    ["longer", (root) => Deno.writeFile(`${root}/${large}`, Uint8Array.of(1), { append: true })],
    ["a bit of a small file", (root) => flip(`${root}/${small}`)],
    ["a bit of a larger file", (root) => flip(`${root}/${large}`)],
    ["a bit of a larger file, thoroughly", (root) => flip(`${root}/${large}`), { thorough: true }],
    ["a dangling link", async (root) => await Deno.remove(await Deno.realPath(`${root}/${large}`))],
    ["a link to another blob", async (root) => {
      const other = await Deno.readLink(`${root}/${small}`);
      await Deno.remove(`${root}/${large}`);
      await Deno.symlink(other, `${root}/${large}`);
    }],
    ["a link to itself", async (root) => {
      await Deno.remove(`${root}/${large}`);
      await Deno.symlink("model.safetensors", `${root}/${large}`);
    }],
    ["a wrong file in a link's place", async (root) => {
      await Deno.remove(`${root}/${large}`);
      await Deno.writeFile(`${root}/${large}`, WEIGHTS.subarray(1));
    }],
    ["a folder in a link's place", async (root) => {
      await Deno.remove(`${root}/${large}`);
      await Deno.mkdir(`${root}/${large}`);
    }],
    ["a folder in a blob's place", async (root) => {
      const blob = await Deno.realPath(`${root}/${large}`);
      await Deno.remove(blob);
      await Deno.mkdir(blob);
    }],
    ["no snapshot", (root) => Deno.remove(`${root}/snapshots`, { recursive: true })],
    ["no blobs", (root) => Deno.remove(`${root}/blobs`, { recursive: true })],
    ["a ref that is none", (root) => Deno.writeTextFile(`${root}/refs/main`, "../../x")],
    ["a listing cut", (root) => Deno.truncate(`${root}/listings/${COMMIT}.json`, 20)],
    ["a listing that lies", (root) => Deno.writeTextFile(`${root}/listings/${COMMIT}.json`, "[]")],
  ];
  for (const [name, damage, changes] of damages) {
    await withHub(async (hub) => {
      await hub.fetch();
      await damage(`${hub.cache}/${ROOT}`);
      await hub.fetch(changes);
      await assertWhole(hub);
      assertEquals(await Deno.readTextFile(`${hub.cache}/${ROOT}/refs/main`), COMMIT, name);
      await hub.fetch({ settings: { ...hub.options.settings, offline: true } });
    });
  }
});

Deno.test("a mended file is named; files of more than 16 MiB are hashed only when asked for", async () => {
  const bytes = new Uint8Array(2 ** 24 + 1);
  for (let i = 0; i < bytes.length; i += WEIGHTS.length) bytes.set(WEIGHTS.subarray(0, bytes.length - i), i);
  const large = { ...MODEL, files: { ...MODEL.files, "model.safetensors": bytes } };
  await withHub(async ({ fetch, cache, notes }) => {
    await fetch();
    const path = `${cache}/${ROOT}/snapshots/${COMMIT}/model.safetensors`;
    using file = await Deno.open(path, { write: true });
    await file.seek(12_345_678, Deno.SeekMode.Start);
    await file.write(Uint8Array.of(bytes[12_345_678]! ^ 1));
    await fetch();
    assertEquals(notes, []);
    await fetch({ thorough: true });
    assertEquals(notes, [
      "org/tiny/model.safetensors in the cache is damaged: its sha256 is another. It is fetched again",
    ]);
    assertEquals((await Deno.readFile(path))[12_345_678], bytes[12_345_678]);
  }, [large]);
});

Deno.test("what is unfinished is gone on with, and what is of no use any more is removed and named", async () => {
  await withHub(async (hub) => {
    await hub.fetch();
    const { cache, fetch, notes, server } = hub;
    const root = `${cache}/${ROOT}`;
    const blob = await Deno.realPath(`${root}/snapshots/${COMMIT}/model.safetensors`);
    // A process was killed while it wrote each of these.
    await Deno.remove(blob);
    await Deno.writeFile(`${blob}.incomplete`, WEIGHTS.subarray(0, 1234));
    const old = `${root}/blobs/${"b".repeat(64)}.incomplete`;
    const locked = `${root}/blobs/${"c".repeat(40)}.incomplete`;
    for (const path of [old, locked, `${root}/refs/main.tmp-0123abcd`]) await Deno.writeTextFile(path, "x");
    using file = await Deno.open(`${cache}/.locks/${ROOT}/${"c".repeat(40)}.lock`, {
      write: true,
      create: true,
    });
    await file.lock(true);
    server.requests.length = 0;
    await fetch();
    assertEquals(server.requests.at(-1)!.range, "bytes=1234-");
    assertEquals(tree(`${root}/blobs`).filter((name) => name.includes(".")), [locked.split("/").at(-1)]);
    assertEquals(tree(`${root}/refs`), ["main"]);
    assert(
      notes.length === 1 && notes[0]!.includes("b".repeat(64)) && notes[0]!.includes("main.tmp-"),
      notes.join(),
    );
    await file.unlock();
    await fetch();
    await assertWhole(hub);
  });
});

Deno.test("beginnings that are none of this file's are fetched again: wrong bytes, too many, all but wrong", async () => {
  const wrong = WEIGHTS.slice();
  wrong[5]! ^= 1;
  for (const beginning of [wrong.subarray(0, 1000), new Uint8Array([...WEIGHTS, 1]), wrong, WEIGHTS]) {
    await withHub(async (hub) => {
      await hub.fetch();
      const blob = await Deno.realPath(`${hub.cache}/${ROOT}/snapshots/${COMMIT}/model.safetensors`);
      await Deno.remove(blob);
      await Deno.writeFile(`${blob}.incomplete`, beginning);
      await hub.fetch();
      await assertWhole(hub);
    });
  }
});

Deno.test("links planted in the cache lead no write outside of it", async () => {
  const blobName = (await import("../../checkpoint/deps.ts")).createHash("sha256").update(WEIGHTS).digest(
    "hex",
  );
  const places: [string, boolean][] = [
    [ROOT, true],
    [`${ROOT}/blobs`, true],
    [`${ROOT}/snapshots`, true],
    [`${ROOT}/snapshots/${COMMIT}`, true],
    [`${ROOT}/refs`, true],
    [`${ROOT}/listings`, true],
    [`.locks`, true],
    [`.locks/${ROOT}`, true],
    [`${ROOT}/refs/main`, false],
    [`${ROOT}/blobs/${blobName}`, false],
    [`${ROOT}/blobs/${blobName}.incomplete`, false],
    [`${ROOT}/snapshots/${COMMIT}/config.json`, false],
    [`${ROOT}/listings/${COMMIT}.json`, false],
    [`.locks/${ROOT}/${blobName}.lock`, false],
  ];
  for (const [place, isFolder] of places) {
    await withHub(async (hub) => {
      const { cache, outside } = hub;
      const victim = `${outside}/victim`;
      await Deno.mkdir(`${cache}/${place}`.replace(/\/[^/]*$/, ""), { recursive: true });
      if (isFolder) await Deno.mkdir(victim);
      else await Deno.writeTextFile(victim, "mine");
      await Deno.symlink(victim, `${cache}/${place}`);
      try {
        await hub.fetch();
      } catch (error) {
        assert(/Refused the file name .* (link)/.test((error as Error).message), `${place}: ${error}`);
      }
      if (isFolder) assertEquals(tree(victim), [], place);
      else assertEquals(await Deno.readTextFile(victim), "mine", place);
    });
  }
});

Deno.test("a repository's files cannot be named outside of its snapshot, though inside the cache", async () => {
  for (
    const name of [
      "../../blobs/x.json",
      "../../../models--a--b/refs/main",
      "a/../config.json",
      "/config.json",
    ]
  ) {
    const hostile = { ...MODEL, files: { ...MODEL.files, [name]: Uint8Array.of(1, 2) } };
    await withHub(async ({ fetch, cache }) => {
      await assertThrows(() => fetch({ wanted: () => [name] }), "Refused the file name");
      assertEquals(tree(cache).filter((path) => !path.includes(".lock")), []);
    }, [hostile]);
  }
});

Deno.test("a cache that cannot be written is said in one line, and serves where it is whole", async () => {
  const refusals: [bytes: number, part: string][] = [[-1, "read-only"], [0, "the disk is full"], [
    20_000,
    "the disk is full",
  ]];
  for (const [bytes, part] of refusals) {
    await withHub(async (hub) => {
      const { cache, fetch } = hub;
      const message = await assertThrows(
        () => withDisk(cache, bytes, () => fetch()),
        "Cannot",
        "org/tiny",
        "in the cache of the hub",
        part,
      );
      assert(!message.includes("\n"), message);
      await fetch();
      await assertWhole(hub);
    });
  }
  await withHub(async ({ cache, fetch }) => {
    const folder = await fetch();
    assertEquals(await withDisk(cache, -1, () => fetch()), folder);
    await Deno.remove(`${cache}/${ROOT}/listings`, { recursive: true });
    await Deno.writeTextFile(`${cache}/${ROOT}/blobs/${"b".repeat(64)}.incomplete`, "x");
    assertEquals(await withDisk(cache, -1, () => fetch()), folder);
  });
});
