import { hubHasFile, uploadFiles, type UploadOptions } from "../../hub/upload.ts";
import { PATIENCE } from "../../hub/request.ts";
import { assert, assertEquals, assertThrows } from "../support/assert_close.ts";
import { withFolder } from "../support/files.ts";
import { HubServer } from "../support/hub_server.ts";
import { HubUploads, serveUploads } from "../support/hub_uploads.ts";
import { integers } from "../support/random.ts";

/** Runs with a hub that takes uploads, a storage of its own, and an empty folder. */
async function withHub(
  run: (hub: HubUploads, options: UploadOptions, folder: string) => Promise<void>,
): Promise<void> {
  const uploads = new HubUploads();
  await using server = new HubServer([]);
  await using _storage = serveUploads(uploads, server);
  server.token = "mirror-secret";
  await withFolder((folder) => {
    const settings = { endpoint: server.url, token: "mirror-secret", cacheDir: folder, offline: false };
    return run(uploads, { settings, isPrivate: true, title: "a title" }, folder);
  });
}

const bytes = (text: string) => new TextEncoder().encode(text);

Deno.test("uploadFiles() makes the repository and commits small and large files, the token going to the hub alone", async () => {
  await withHub(async (hub, options, folder) => {
    // More than is hashed in one piece.
    const large = Uint8Array.from(integers(3, 11_000_000, 256));
    const weights = Uint8Array.from(integers(4, 5000, 256));
    await Deno.writeFile(`${folder}/large file.bin`, large);
    await Deno.writeFile(`${folder}/adapter_model.safetensors`, weights);
    await Deno.writeTextFile(`${folder}/config.json`, "{}");
    const told: string[] = [];
    const url = await uploadFiles("me/mine", [
      { name: "large file.bin", content: `${folder}/large file.bin` },
      { name: "adapter_model.safetensors", content: `${folder}/adapter_model.safetensors` },
      { name: "config.json", content: `${folder}/config.json` },
      { name: "README.md", content: bytes("# mine") },
    ], { ...options, onProgress: (what, file) => told.push(`${what} ${file ?? ""}`.trim()) });
    assertEquals(url, `https://hub/me/mine/commit/${"f".repeat(40)}`);
    assertEquals([...hub.repositories], [["me/mine", "private"]]);
    const [commit] = hub.commits;
    assertEquals([hub.commits.length, commit!.summary], [1, "a title"]);
    assertEquals(Object.keys(commit!.files).sort(), [
      "README.md",
      "adapter_model.safetensors",
      "config.json",
      "large file.bin",
    ]);
    assertEquals(new TextDecoder().decode(commit!.files["README.md"]), "# mine");
    assertEquals([...commit!.files["adapter_model.safetensors"]!], [...weights]);
    const arrived = commit!.files["large file.bin"]!;
    assert(
      arrived.length === large.length && arrived.every((byte, i) => byte === large[i]),
      "the large file",
    );
    assertEquals(hub.leakedTokens, []);
    assert(told.includes("uploading large file.bin") && told.at(-1) === "committing", told.join());

    // Again: the repository is there, and so is the large file.
    const stored = hub.stored.size;
    await uploadFiles("me/mine", [{ name: "a.bin", content: `${folder}/large file.bin` }], options);
    assertEquals([hub.commits.length, hub.stored.size], [2, stored]);
    await uploadFiles("me/open", [{ name: "a.json", content: bytes("{}") }], {
      ...options,
      isPrivate: false,
    });
    assertEquals(hub.repositories.get("me/open"), "public");
    assertEquals(await hubHasFile("me/mine", "README.md", options.settings), true);
    assertEquals(await hubHasFile("me/other", "README.md", options.settings), false);
  });
});

Deno.test("uploadFiles() says what is missing: token, rights, network, a file; nothing is committed then", async () => {
  await withHub(async (hub, options, folder) => {
    const file = { name: "a.json", content: bytes("{}") };
    const upload = (name: string, changes: Partial<UploadOptions["settings"]>, files = [file]) => () =>
      uploadFiles(name, files, { ...options, settings: { ...options.settings, ...changes } });
    await assertThrows(upload("me/mine", { token: undefined }), "there is no token", "HF_TOKEN");
    await assertThrows(upload("me/mine", { offline: true }), "HF_HUB_OFFLINE");
    await assertThrows(upload("me/mine", { token: "wrong" }), "answers 401", "write");
    await assertThrows(upload("others/mine", {}), "answers 403", "a name of your own");
    await assertThrows(
      upload("me/mine", { endpoint: "http://127.0.0.1:9" }),
      "Cannot upload to me/mine",
      "network",
    );
    const missing = { name: "b.json", content: `${folder}/none` };
    await assertThrows(() => uploadFiles("me/mine", [missing], options), "Cannot upload to me/mine");
    hub.storage = "http://127.0.0.1:9";
    await Deno.writeFile(`${folder}/model.safetensors`, new Uint8Array(10));
    const large = { name: "model.safetensors", content: `${folder}/model.safetensors` };
    await assertThrows(() => uploadFiles("me/mine", [large], options), "Cannot upload to me/mine");
    assertEquals(hub.commits, []);
  });
});

Deno.test("uploadFiles() asks a busy hub again, five times", async () => {
  await withHub(async (hub, options) => {
    const answer = hub.answer.bind(hub);
    let [asked, busy] = [0, 4];
    hub.answer = (request) => {
      asked++;
      return busy-- > 0 ? Promise.resolve(new Response("busy", { status: 503 })) : answer(request);
    };
    const waits: number[] = [];
    const patience = { ...PATIENCE, wait: (pause: number) => Promise.resolve(void waits.push(pause)) };
    const upload = () =>
      uploadFiles("me/mine", [{ name: "a.json", content: bytes("{}") }], { ...options, patience });
    await upload();
    assertEquals([waits.length, hub.commits.length], [4, 1]);
    [asked, busy] = [0, Infinity];
    await assertThrows(upload, "Cannot upload to me/mine", "answers 503");
    assertEquals([asked, hub.commits.length], [5, 1]);
  });
});
