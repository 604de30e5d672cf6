import { fetchSnapshot, type SnapshotOptions } from "../../hub/hub.ts";
import { hubAddress, parseHubReference } from "../../hub/reference.ts";
import { hubSettings } from "../../hub/settings.ts";
import { dataFiles, modelFiles } from "../../hub/wanted.ts";
import { namesIn, withFolder } from "../support/files.ts";
import { type HubRepository, HubServer, serve } from "../support/hub_server.ts";
import { assert, assertEquals, assertThrows } from "../support/assert_close.ts";
import { integers } from "../support/random.ts";

const COMMIT = "0123456789abcdef0123456789abcdef01234567";
const WEIGHTS = Uint8Array.from(integers(8, 300_000, 256));
const MODEL: HubRepository = {
  kind: "model",
  name: "org/tiny",
  commit: COMMIT,
  files: {
    "config.json": new TextEncoder().encode('{"model_type": "llama"}'),
    "tokenizer.json": new TextEncoder().encode("{}"),
    "model.safetensors": WEIGHTS,
    "pytorch_model.bin": Uint8Array.of(1, 2, 3),
    "README.md": new TextEncoder().encode("# tiny"),
  },
};
const REFERENCE = parseHubReference("org/tiny")!;

/** Runs with a server and an empty cache. */
async function withHub(
  run: (server: HubServer, options: SnapshotOptions, cache: string) => Promise<void>,
  repositories: readonly HubRepository[] = [MODEL],
): Promise<void> {
  await withFolder(async (cacheDir) => {
    await using server = new HubServer(repositories);
    const settings = { endpoint: server.url, token: undefined, cacheDir, offline: false };
    await run(server, { settings, wanted: modelFiles, retryDelay: 1 }, cacheDir);
  });
}

/** Every file in the cache that has a final name. */
async function blobs(cache: string): Promise<string[]> {
  const folder = `${cache}/models--org--tiny/blobs`;
  const names = await Array.fromAsync(Deno.readDir(folder)).catch(() => []);
  return names.map(({ name }) => name).filter((name) => !name.endsWith(".incomplete"));
}

Deno.test("fetchSnapshot() brings what is needed in Python's layout, and asks for no file twice", async () => {
  await withHub(async (server, options, cache) => {
    const folder = await fetchSnapshot(REFERENCE, options);
    assertEquals(folder, `${cache}/models--org--tiny/snapshots/${COMMIT}`);
    assertEquals(namesIn(folder), ["config.json", "model.safetensors", "tokenizer.json"]);
    assertEquals(await Deno.readFile(`${folder}/model.safetensors`), WEIGHTS);
    assertEquals(await Deno.readTextFile(`${cache}/models--org--tiny/refs/main`), COMMIT);
    const link = await Deno.readLink(`${folder}/model.safetensors`);
    assert(/^\.\.\/\.\.\/blobs\/[0-9a-f]{64}$/.test(link), link);
    const before = server.requests.length;
    await fetchSnapshot(REFERENCE, options);
    assert(
      server.requests.slice(before).every(({ path }) => path.startsWith("/api/")),
      "a file was fetched twice",
    );
    await fetchSnapshot(REFERENCE, { ...options, settings: { ...options.settings, offline: true } });
    assertEquals(server.requests.slice(before).length, 2);
  });
});

Deno.test("fetchSnapshot() goes on where a connection was cut, and gives up in the end with what came kept", async () => {
  await withHub(async (server, options, cache) => {
    let cuts = 0;
    server.fault = (request, bytes) => {
      if (bytes !== WEIGHTS || cuts++ >= 3) return undefined;
      const from = Number(/\d+/.exec(request.headers.get("range") ?? "0")![0]);
      const part = bytes.slice(from, from + 70_000);
      const body = new ReadableStream({
        start(controller) {
          controller.enqueue(part);
          controller.close();
        },
      });
      const headers = { "content-range": `bytes ${from}-${bytes.length - 1}/${bytes.length}` };
      return new Response(body, from > 0 ? { status: 206, headers } : {});
    };
    const folder = await fetchSnapshot(REFERENCE, options);
    assertEquals(await Deno.readFile(`${folder}/model.safetensors`), WEIGHTS);
    const ranges = server.requests.filter(({ path }) => path.endsWith(".safetensors")).map(({ range }) =>
      range
    );
    assertEquals(ranges, [null, "bytes=70000-", "bytes=140000-", "bytes=210000-"]);
    assertEquals((await blobs(cache)).length, 3);
  });
  await withHub(async (server, options, cache) => {
    server.fault = (_, bytes) => bytes === WEIGHTS ? new Response("busy", { status: 503 }) : undefined;
    await assertThrows(
      () => fetchSnapshot(REFERENCE, options),
      "org/tiny/model.safetensors",
      "503",
      "to go on",
    );
    assertEquals((await blobs(cache)).length, 2);
  });
});

Deno.test("fetchSnapshot() in two places at once fetches each file once, and both have it", async () => {
  await withHub(async (server, options, cache) => {
    const folders = await Promise.all([1, 2, 3].map(() => fetchSnapshot(REFERENCE, options)));
    for (const folder of folders) assertEquals(await Deno.readFile(`${folder}/model.safetensors`), WEIGHTS);
    assertEquals(server.requests.filter(({ path }) => path.endsWith(".safetensors")).length, 1);
    assertEquals(namesIn(`${cache}/models--org--tiny/blobs`).length, 3);
  });
});

Deno.test("a hub that sends wrong bytes, too many, too few or none never leaves a file under its name", async () => {
  const wrong = WEIGHTS.slice();
  wrong[1234]! ^= 1;
  const faults: [string, (request: Request) => Response, ...string[]][] = [
    ["other bytes", (request) => serve(request, wrong), "sha256 is not what the hub lists"],
    ["more bytes", () => new Response(new Uint8Array([...WEIGHTS, 0])), "sends more than the 300000 bytes"],
    ["fewer bytes", () => new Response(WEIGHTS.slice(0, 10)), "ended after 10 of 300000"],
    ["nothing", () => new Response(new ReadableStream()), "no data for 0.3 s"],
    ["a page", () => new Response("<html>"), "ended after 6 of 300000"],
    ["a loop", (request) => Response.redirect(request.url), "redirects more than"],
    [
      "another protocol",
      () => new Response(null, { status: 302, headers: { location: "file:///etc/passwd" } }),
      "redirects to",
    ],
  ];
  for (const [name, answer, ...parts] of faults) {
    await withHub(async (server, options, cache) => {
      server.fault = (request, bytes) => bytes === WEIGHTS ? answer(request) : undefined;
      // A busy machine is slow too: only who waits for nothing is in a hurry.
      const hurried = name === "nothing" ? { ...options, stallLimit: 300 } : options;
      await assertThrows(() => fetchSnapshot(REFERENCE, hurried), "model.safetensors", ...parts);
      assertEquals((await blobs(cache)).length, 2, name);
    });
  }
});

Deno.test("the token goes to the hub and to nobody it redirects to", async () => {
  await using other = new HubServer([MODEL]);
  await withHub(async (server, options) => {
    server.token = "secret";
    await assertThrows(() => fetchSnapshot(REFERENCE, options), "401", "set HF_TOKEN");
    const settings = { ...options.settings, token: "secret" };
    const path = `/org/tiny/resolve/${COMMIT}/model.safetensors`;
    server.fault = (_, bytes) => bytes === WEIGHTS ? Response.redirect(other.url + path) : undefined;
    await fetchSnapshot(REFERENCE, { ...options, settings });
    assertEquals(other.requests.map(({ token }) => token), [null]);
  });
});

Deno.test("offline and unreachable hubs: what was fetched serves, what was not is said", async () => {
  await withHub(async (_, options) => {
    const offline = { ...options, settings: { ...options.settings, offline: true } };
    await assertThrows(() => fetchSnapshot(REFERENCE, offline), "org/tiny", "HF_HUB_OFFLINE");
    const folder = await fetchSnapshot(REFERENCE, options);
    assertEquals(await fetchSnapshot(REFERENCE, offline), folder);
    const notes: string[] = [];
    const gone = { ...options.settings, endpoint: "http://127.0.0.1:1" };
    assertEquals(
      await fetchSnapshot(REFERENCE, { ...options, settings: gone, onNote: (text) => notes.push(text) }),
      folder,
    );
    assertEquals(notes.length, 1);
    await assertThrows(
      () => fetchSnapshot(parseHubReference("org/other")!, { ...options, settings: gone }),
      "Cannot reach the hub at http://127.0.0.1:1",
    );
    await assertThrows(
      () => fetchSnapshot(parseHubReference("org/none")!, options),
      "no such file, model or revision",
    );
  });
});

Deno.test("a hub cannot name files outside of the cache", async () => {
  const hostile = {
    ...MODEL,
    files: { ...MODEL.files, "../../../model.safetensors": WEIGHTS, "model.safetensors": WEIGHTS },
  };
  await withHub(async (_, options) => {
    const all = { ...options, wanted: (names: readonly string[]) => names };
    await assertThrows(() => fetchSnapshot(REFERENCE, all), "Refused the file name");
  }, [hostile]);
});

Deno.test("data sets: one file, or all that can be read", async () => {
  const data: HubRepository = {
    kind: "dataset",
    name: "org/books",
    commit: COMMIT,
    files: {
      "train.jsonl": Uint8Array.of(1),
      "test/a.parquet": Uint8Array.of(2),
      "LICENSE": Uint8Array.of(3),
      "x/b #1%.txt": Uint8Array.of(4),
    },
  };
  await withHub(async (_, options) => {
    const reference = parseHubReference("hf://datasets/org/books/test/a.parquet")!;
    const folder = await fetchSnapshot(reference, { ...options, wanted: dataFiles(reference.path) });
    assertEquals(await Deno.readFile(`${folder}/test/a.parquet`), Uint8Array.of(2));
    assertEquals(namesIn(folder), ["test"]);
    await fetchSnapshot(reference, { ...options, wanted: dataFiles("x") });
    assertEquals(await Deno.readFile(`${folder}/x/b #1%.txt`), Uint8Array.of(4));
    assertEquals(dataFiles("test")(["test/a.parquet", "test2/b.parquet", "a/test"]), ["test/a.parquet"]);
    const all = dataFiles(undefined)(["train.jsonl", "test/a.parquet", "LICENSE"]);
    assertEquals(all, ["train.jsonl"]);
  }, [data]);
});

Deno.test("parseHubReference() reads names, revisions, addresses and nothing else", () => {
  assertEquals(parseHubReference("meta-llama/Llama-2-7b-hf"), {
    kind: "model",
    name: "meta-llama/Llama-2-7b-hf",
    revision: "main",
    path: undefined,
  });
  assertEquals(parseHubReference("org/name@refs/pr/3")?.revision, "refs/pr/3");
  assertEquals(parseHubReference("hf://datasets/org/name@v1/a/b.json"), {
    kind: "dataset",
    name: "org/name",
    revision: "v1",
    path: "a/b.json",
  });
  assertEquals(hubAddress(parseHubReference("hf://datasets/org/name@v1/a")!), "hf://datasets/org/name@v1");
  for (const path of ["model", "./a/b", "../a", "/a/b", "a/b/c", "a//b", "https://a/b", "a/b@", ""]) {
    assertEquals(parseHubReference(path), undefined, path);
  }
});

Deno.test("hubSettings() reads the variables of Python's hub client", async () => {
  await withFolder(async (home) => {
    const from = (variables: Record<string, string>) => {
      const all: Record<string, string> = { HOME: home, ...variables };
      return hubSettings((name) => all[name]);
    };
    assertEquals(from({}), {
      endpoint: "https://huggingface.co",
      token: undefined,
      cacheDir: `${home}/.cache/huggingface/hub`,
      offline: false,
    });
    await Deno.mkdir(`${home}/hf`);
    await Deno.writeTextFile(`${home}/hf/token`, "kept\n");
    const set = from({ HF_HOME: `${home}/hf`, HF_ENDPOINT: "http://mirror/", HF_HUB_OFFLINE: "1" });
    assertEquals(set, {
      endpoint: "http://mirror",
      token: "kept",
      cacheDir: `${home}/hf/hub`,
      offline: true,
    });
    assertEquals(from({ HF_HUB_CACHE: "/c", HF_TOKEN: "mine", HF_HOME: `${home}/hf` }).token, "mine");
    assertEquals(from({ HF_TOKEN_PATH: `${home}/hf/token` }).token, "kept");
    assertEquals(from({ XDG_CACHE_HOME: "/x" }).cacheDir, "/x/huggingface/hub");
    const isOffline = (value: string) => from({ HF_HUB_OFFLINE: value }).offline;
    assertEquals(["1", "on", "YES", "True", "0", "no", ""].map(isOffline), [
      ...[true, true, true, true],
      ...[false, false, false],
    ]);
  });
});
