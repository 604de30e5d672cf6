/** What the hub's API may answer, and what comes of it: one clear line, another try, or the cache. */
import { hubSettings } from "../../hub/settings.ts";
import { modelFiles } from "../../hub/wanted.ts";
import { assert, assertEquals, assertThrows } from "../support/assert_close.ts";
import { HubServer } from "../support/hub_server.ts";
import { COMMIT, MODEL, type TestHub, tree, WEIGHTS, withHub } from "./support.ts";

const isTree = (path: string) => path.includes("/tree/");
const isRevision = (path: string) => path.includes("/revision/");
/** A question of a page of the listing that a server made up. */
const page = (files: unknown, next: string) =>
  Response.json(files, { headers: { link: `<${next}>; rel="next"` } });
const IMPATIENT = { requestLimit: 200, stallLimit: 100 };
const busy = (status: number, headers: HeadersInit = {}) => new Response("busy", { status, headers });

Deno.test("statuses that pass by themselves are tried five times, with growing pauses, for the API as for files", async () => {
  for (const status of [408, 429, 500, 502, 503, 504]) {
    await withHub(async ({ server, fetch, waits }) => {
      let left = 4;
      server.apiFault = (_, path) => isRevision(path) && left-- > 0 ? busy(status) : undefined;
      await fetch();
      assertEquals(waits.length, 4);
      waits.forEach((wait, i) =>
        assert(wait >= 750 * 2 ** i && wait <= 1250 * 2 ** i, `pause ${i}: ${wait}`)
      );
    });
    await withHub(async ({ server, fetch, waits }) => {
      server.apiFault = (_, path) => isTree(path) ? busy(status) : undefined;
      await assertThrows(() => fetch(), "Cannot reach the hub", "org/tiny", `answers ${status}`);
      assertEquals([waits.length, server.requests.filter(({ path }) => isTree(path)).length], [4, 5]);
      server.apiFault = undefined;
      server.requests.length = 0;
      server.fault = (_, bytes) => bytes === WEIGHTS ? busy(status) : undefined;
      await assertThrows(() => fetch(), "model.safetensors", `answers ${status}`);
      assertEquals(server.requests.filter(({ path }) => path.endsWith("model.safetensors")).length, 5);
    });
  }
});

Deno.test("Retry-After is kept to, in seconds and as a date, and a long one ends the tries", async () => {
  const dated = new Date(Date.now() + 20_000).toUTCString();
  const cases: [string, (wait: number) => boolean][] = [
    ["7", (wait) => wait === 7000],
    ["0", (wait) => wait === 0],
    [dated, (wait) => wait > 10_000 && wait <= 20_000],
    ["soon", (wait) => wait < 1300],
  ];
  for (const [header, isRight] of cases) {
    await withHub(async ({ server, fetch, waits }) => {
      let left = 1;
      server.apiFault = () => left-- > 0 ? busy(429, { "retry-after": header }) : undefined;
      await fetch();
      assert(waits.length === 1 && isRight(waits[0]!), `${header}: ${waits}`);
    });
  }
  await withHub(async ({ server, fetch, waits }) => {
    server.apiFault = () => busy(429, { "retry-after": "86400" });
    await assertThrows(() => fetch(), "answers 429 and asks to wait for 86400 s");
    assertEquals([waits.length, server.requests.length], [0, 1]);
  });
});

Deno.test("refusals are one line each, and not tried again", async () => {
  const cases: [number, string, string | undefined, ...string[]][] = [
    [401, "", undefined, "401", "set HF_TOKEN"],
    [401, "RepoNotFound", undefined, "none of this name, or it is private", "set HF_TOKEN"],
    [401, "GatedRepo", undefined, "terms must be accepted", "set HF_TOKEN"],
    [403, "GatedRepo", "mine", "terms must be accepted", "owner of the token"],
    [403, "", "mine", "may not read it"],
    [404, "RepoNotFound", undefined, "no such file, model or revision"],
    [404, "RevisionNotFound", undefined, "no such revision", "behind @"],
    [418, "", undefined, "answers 418"],
    [304, "", undefined, "answers 304"],
  ];
  for (const [status, code, token, ...parts] of cases) {
    await withHub(async ({ server, fetch, options, waits }) => {
      server.apiFault = () => new Response(null, { status, headers: code ? { "x-error-code": code } : {} });
      const message = await assertThrows(
        () => fetch({ settings: { ...options.settings, token } }),
        "Cannot download org/tiny: ",
        ...parts,
      );
      assert(!message.includes("\n") && !message.includes("mine"), message);
      assertEquals([waits.length, server.requests.length], [0, 1]);
    });
  }
});

Deno.test("a hub that does not answer, or answers without end, is given up after its limit", async () => {
  const faults: [string, () => Response | Promise<Response>, string][] = [
    [
      "nothing at all",
      () => new Promise<Response>((resolve) => setTimeout(resolve, 250, busy(200))),
      "no data for 0.1 s",
    ],
    ["a body without data", () => new Response(new ReadableStream()), "no data for 0.1 s"],
    ["one byte at a time", () => new Response(drip()), "no whole answer in 0.2 s"],
  ];
  for (const [name, answer, part] of faults) {
    await withHub(async ({ server, fetch, waits }) => {
      server.apiFault = answer;
      // On a busy machine the other limit could be reached first.
      const limits = part.includes("whole") ? { requestLimit: 200 } : { stallLimit: 100 };
      await assertThrows(() => fetch(limits), "Cannot reach the hub", part);
      assertEquals(waits.length, 4, name);
    });
  }
});

/** Spaces for ever, which JSON may begin with. */
function drip(): ReadableStream<Uint8Array> {
  let timer: ReturnType<typeof setInterval>;
  return new ReadableStream({
    start(controller) {
      timer = setInterval(() => controller.enqueue(Uint8Array.of(32)), 50);
    },
    cancel: () => clearInterval(timer),
  });
}

Deno.test("answers that no hub gives are refused by name, and nothing is written for them", async () => {
  const file = { type: "file", path: "config.json", size: 2, oid: "a".repeat(40) };
  const commits: [unknown, string][] = [
    [{ sha: "../../../../escaped" }, '"../../../../escaped"'],
    [{ sha: COMMIT.toUpperCase() }, "not with 40 hexadecimal digits"],
    [{ sha: COMMIT.slice(1) }, "not with 40 hexadecimal digits"],
    [{ sha: `${COMMIT}\n` }, "not with 40 hexadecimal digits"],
    [{ sha: null }, "null"],
    [{ sha: 7 }, '"7"'],
    [{ sha: [COMMIT] }, "not with 40 hexadecimal digits"],
    [{}, "with the commit nothing"],
    [null, "with the commit nothing"],
    [[], "with the commit nothing"],
    ["", "with the commit nothing"],
  ];
  const listings: [unknown, string][] = [
    [{}, "no list of files"],
    [null, "no list of files"],
    [[{ ...file, path: null }], "whose name is"],
    [[{ ...file, path: 3 }], "whose name is"],
    [[{ ...file, size: "2" }], "the size"],
    [[{ ...file, size: -1 }], "the size"],
    [[{ ...file, size: 2 ** 53 }], "the size"],
    [[{ ...file, size: 1.5 }], "the size"],
    [[{ ...file, oid: "../../x" }], "no hash"],
    [[{ ...file, oid: "a".repeat(64) }], "no hash"],
    [[{ ...file, oid: 4 }], "no hash"],
    [[{ ...file, lfs: { oid: "sha256:../x", size: 2 } }], "no hash"],
    [[{ ...file, lfs: { oid: "a".repeat(64) } }], "the size nothing"],
    [[{ ...file, lfs: "x" }], "the size nothing"],
    [[file, file], "twice"],
    [Array.from({ length: 10_001 }, (_, i) => ({ ...file, path: `${i}.json` })), "more than 10000 files"],
    [[null, 3, "x", { type: "directory", path: "a" }], "none of its 0 files"],
  ];
  const bodies: [string, string][] = [
    ["<!DOCTYPE html><html>", "a web page in place of JSON"],
    ["", "nothing in place of JSON"],
    ['{"sha": ', "something else in place of JSON"],
    ["\ufeff\0", "something else in place of JSON"],
  ];
  await withHub(async ({ server, fetch, outside, waits }) => {
    const refused = async (part: string) => {
      const message = await assertThrows(() => fetch(), "Cannot use org/tiny of the hub: ", part);
      assert(!message.includes("\n") && message.length < 500, message);
    };
    for (const [answer, part] of commits) {
      server.apiFault = (_, path) => isRevision(path) ? Response.json(answer) : undefined;
      await refused(part);
    }
    for (const [answer, part] of listings) {
      server.apiFault = (_, path) => isTree(path) ? Response.json(answer) : undefined;
      await refused(part);
    }
    for (const [body, part] of bodies) {
      server.apiFault = () => new Response(body);
      await refused(part);
    }
    assertEquals([waits, tree(outside)], [[], []]);
  });
});

Deno.test("pages of a listing are followed to their end, and one without an end is refused", async () => {
  await withHub(async ({ server, fetch }) => {
    let asked = 0;
    const first = { type: "file", path: "LICENSE", size: 2, oid: "a".repeat(40) };
    // The second page has the other files.
    server.apiFault = (request, path) =>
      isTree(path) && !request.url.includes("cursor") ? page([first], `${request.url}&cursor=1`) : undefined;
    let listed: readonly string[] = [];
    await fetch({ wanted: (names) => modelFiles(listed = names) });
    assertEquals([...listed], ["LICENSE", ...Object.keys(MODEL.files)]);
    for (const next of [() => "?same", () => `?cursor=${asked++}`, () => "http://["]) {
      server.apiFault = (_, path) => isTree(path) ? page([], next()) : undefined;
      await assertThrows(
        () => fetch(),
        "Cannot use org/tiny of the hub",
        next() === "http://[" ? "the rest" : "does not end",
      );
    }
    assert(asked <= 103, `${asked} pages were asked for`);
  });
});

Deno.test("redirects of the API are followed, without the token to another host, and not for ever", async () => {
  await using other = new HubServer([MODEL]);
  await withHub(async ({ server, fetch, options }) => {
    const settings = { ...options.settings, token: "secret" };
    server.apiFault = (request) => Response.redirect(other.url + new URL(request.url).pathname);
    await fetch({ settings });
    assert(server.requests.every(({ token }) => token === "Bearer secret"), "the hub wants the token");
    assertEquals([...new Set(other.requests.map(({ token }) => token))], [null]);
    server.apiFault = (request) => Response.redirect(request.url);
    await assertThrows(() => fetch(), "redirects more than 10 times");
    server.apiFault = () => new Response(null, { status: 302, headers: { location: "http://[" } });
    await assertThrows(() => fetch(), "redirects to an address that is none");
  });
});

Deno.test("a hub that is down or busy leaves what is in the cache, with a note; what is not whole there is said", async () => {
  const down: [string, (hub: TestHub) => void][] = [
    ["429", ({ server }) => server.apiFault = () => busy(429)],
    [
      "503 for the listing",
      ({ server }) => server.apiFault = (_, path) => isTree(path) ? busy(503) : undefined,
    ],
    ["no answer", ({ server }) => server.apiFault = () => new Response(new ReadableStream())],
  ];
  for (const [name, break_] of down) {
    await withHub(async (hub) => {
      const folder = await hub.fetch();
      break_(hub);
      assertEquals(await hub.fetch(IMPATIENT), folder, name);
      assert(hub.notes.length === 1 && hub.notes[0]!.includes("as it was fetched before"), hub.notes.join());
      const offline = { ...hub.options.settings, offline: true };
      await Deno.writeTextFile(await Deno.realPath(`${folder}/config.json`), "{}");
      await assertThrows(() => hub.fetch(IMPATIENT), "config.json has 2 bytes, not 23", "cannot be reached");
      await assertThrows(() => hub.fetch({ settings: offline }), "config.json has 2 bytes", "HF_HUB_OFFLINE");
      await Deno.remove(`${folder}/config.json`);
      await assertThrows(() => hub.fetch({ settings: offline }), "config.json is missing");
    });
  }
});

Deno.test("without its listing, as Python's client fills it, a cache is checked by the names of its blobs", async () => {
  await withHub(async ({ fetch, cache, options }) => {
    const folder = await fetch();
    await Deno.remove(`${cache}/models--org--tiny/listings`, { recursive: true });
    const settings = { ...options.settings, offline: true };
    assertEquals(await fetch({ settings }), folder);
    const config = await Deno.realPath(`${folder}/config.json`);
    await Deno.writeTextFile(config, '{"model_type": "llamb"}');
    await assertThrows(() => fetch({ settings }), "config.json is damaged: its git-sha1 is another");
    await Deno.remove(config);
    await assertThrows(() => fetch({ settings }), "config.json is missing");
    // Where links are not possible, the files themselves are there.
    await Deno.remove(`${folder}/config.json`);
    await Deno.writeTextFile(`${folder}/config.json`, "{}");
    assertEquals(await fetch({ settings }), folder);
  });
});

Deno.test("where a file system has no links, the files themselves are in the snapshot", async () => {
  await withHub(async ({ fetch, options }) => {
    const { symlink } = Deno;
    Deno.symlink = () =>
      Promise.reject(Object.assign(new Error("Operation not permitted"), { code: "EPERM" }));
    try {
      const folder = await fetch();
      for (const changes of [{}, { thorough: true }, { settings: { ...options.settings, offline: true } }]) {
        assertEquals(await fetch(changes), folder);
        assertEquals(await Deno.readFile(`${folder}/model.safetensors`), WEIGHTS);
      }
    } finally {
      Deno.symlink = symlink;
    }
  });
});

Deno.test("variables of the environment that cannot be used are named, and a token is not shown", async () => {
  const from = (variables: Record<string, string>) => () => hubSettings((name) => variables[name]);
  await assertThrows(from({}), "HOME is not set", "HF_HOME");
  await assertThrows(from({ HOME: "" }), "HOME is not set");
  await assertThrows(from({ HF_HOME: "~/hf" }), "HOME is not set");
  assertEquals(from({ HOME: "/home/me", HF_HOME: "~/hf" })().cacheDir, "/home/me/hf/hub");
  assertEquals(from({ HF_HOME: "/hf", HF_HUB_CACHE: "" })().cacheDir, "/hf/hub");
  for (const endpoint of ["hub", "ftp://hub", "file:///x", "http://", "https://me@hub", "https://hub/?a=b"]) {
    await assertThrows(
      from({ HF_HOME: "/hf", HF_ENDPOINT: endpoint }),
      "HF_ENDPOINT: must be an address",
      endpoint,
    );
  }
  for (const token of ["a b", "a\nb", "hf_\u00e9"]) {
    const message = await assertThrows(
      from({ HF_HOME: "/hf", HF_TOKEN: token }),
      "HF_TOKEN: must be one word",
    );
    assert(!message.includes(token), message);
  }
});
