/** Hostile names on every way that leads from a server or a file to a path. */
import { fetchAgain } from "../../checkpoint/fetch_again.ts";
import { RepositoryCache } from "../../hub/cache.ts";
import { parseHubReference } from "../../hub/reference.ts";
import { openWeights } from "../../checkpoint/weights.ts";
import { assert, assertEquals, assertThrows } from "../support/assert_close.ts";
import { withFolder } from "../support/files.ts";
import { HOSTILE_NAMES } from "../support/hostile_names.ts";
import { COMMIT, REFERENCE, tree, withHub } from "./support.ts";

Deno.test("names of the hub's listing, and what it calls commits and hashes, lead nowhere", async () => {
  await withHub(async ({ server, fetch, outside }) => {
    for (const name of HOSTILE_NAMES) {
      const asCommit = (path: string) =>
        path.includes("/revision/") ? Response.json({ sha: name }) : undefined;
      const file = { type: "file", path: name, size: 2, oid: "a".repeat(40) };
      const asName = (path: string) => path.includes("/tree/") ? Response.json([file]) : undefined;
      const asHash = (path: string) =>
        path.includes("/tree/") ? Response.json([{ ...file, path: "config.json", oid: name }]) : undefined;
      for (
        const [answer, part] of [[asCommit, "40 hex"], [asName, "Refused the file name"], [
          asHash,
          "no hash",
        ]] as const
      ) {
        server.apiFault = (_, path) => answer(path);
        const message = await assertThrows(() => fetch({ wanted: (names) => names }), part);
        assert(!message.includes("\n") && message.length < 700, message);
      }
    }
    assertEquals(tree(outside).filter((path) => !path.includes(".lock")), []);
    assert(server.requests.every(({ path }) => path.startsWith("/api/")), "nothing is fetched");
  });
});

Deno.test("revisions and data sets' paths lead nowhere, however they are called", async () => {
  await withFolder(async (cacheDir) => {
    const cache = new RepositoryCache({ cacheDir }, REFERENCE);
    for (const name of HOSTILE_NAMES) {
      await assertThrows(() => cache.readRef(name), "Refused the file name");
      await assertThrows(() => cache.writeRef(name, COMMIT), "Refused the file name");
      await assertThrows(() => cache.file(COMMIT, name), "Refused the file name");
      const reference = parseHubReference(`hf://datasets/org/books/${name}`);
      if (reference?.path === undefined) continue;
      await assertThrows(() => cache.file(COMMIT, reference.path!), "Refused the file name");
    }
    assertEquals(tree(cacheDir), []);
  });
});

Deno.test("shards of an index are plain names in the same folder", async () => {
  await withFolder(async (outside) => {
    const folder = `${outside}/model`;
    await Deno.mkdir(folder);
    for (const name of HOSTILE_NAMES) {
      const index = { weight_map: { a: name.endsWith(".safetensors") ? name : `${name}/x.safetensors` } };
      await Deno.writeTextFile(`${folder}/model.safetensors.index.json`, JSON.stringify(index));
      await assertThrows(() => openWeights(folder), "Refused the file name");
    }
  });
});

Deno.test("a damaged file in the cache is named with the command that mends it", async () => {
  await withHub(async ({ cache, fetch }) => {
    const folder = await fetch();
    await Deno.truncate(await Deno.realPath(`${folder}/model.safetensors`), 3);
    await assertThrows(
      () => openWeights(folder),
      "only 3 bytes",
      `longreach download --name org/tiny@${COMMIT}`,
    );
    assertEquals(
      fetchAgain(`${cache}/datasets--a-b--c.d/snapshots/${COMMIT}/x/y`).split("--name ")[1],
      `hf://datasets/a-b/c.d@${COMMIT}`,
    );
    assertEquals(
      fetchAgain(`${cache}/models--a--b--c/snapshots/${COMMIT}/x`).split("--name ")[1],
      `a/b--c@${COMMIT}`,
    );
    assertEquals(parseHubReference(`hf://datasets/a-b/c.d@${COMMIT}`)?.revision, COMMIT);
    for (const path of ["models--org--tiny/x", "/a/model", `snapshots/${COMMIT}/x`]) {
      assert(fetchAgain(path).endsWith("or copy the file anew"), path);
    }
  });
});
