import { locate } from "../../cli/hub.ts";
import { namesIn, withFolder } from "../support/files.ts";
import { type HubRepository, HubServer } from "../support/hub_server.ts";
import { assertEquals, assertThrows } from "../support/assert_close.ts";
import { MemoryIo } from "./memory_io.ts";

const COMMIT = "0123456789abcdef0123456789abcdef01234567";

Deno.test("locate() takes what is here, then what the hub has, by the variables of Python's client", async () => {
  await withFolder(async (folder) => {
    const model: HubRepository = {
      kind: "model",
      name: "org/tiny",
      commit: COMMIT,
      files: {
        "config.json": Uint8Array.of(1),
        "model.safetensors": Uint8Array.of(2),
        "train.md": Uint8Array.of(3),
      },
    };
    await using server = new HubServer([model]);
    const before = Deno.env.toObject();
    try {
      Deno.env.set("HF_ENDPOINT", server.url);
      Deno.env.set("HF_HUB_CACHE", `${folder}/cache`);
      const io = new MemoryIo();
      assertEquals(await locate(io, folder, "model"), folder);
      assertEquals(server.requests.length, 0);
      const path = await locate(io, "org/tiny", "model");
      assertEquals(namesIn(path), ["config.json", "model.safetensors"]);
      assertEquals(io.stderr.includes("fetching org/tiny/model.safetensors: 1 B of 1 B"), true, io.stderr);
      // What can be no name on the hub stays a path, for the reader to say what is wrong with it.
      assertEquals(await locate(io, `${folder}/none/at/all`, "model"), `${folder}/none/at/all`);
      await assertThrows(() => locate(io, "hf://datasets/org/tiny", "model"), "a model is wanted");
      Deno.env.set("HF_HUB_OFFLINE", "1");
      assertEquals(await locate(io, "org/tiny", "model"), path);
      await assertThrows(() => locate(io, "org/other", "model"), "org/other", "HF_HUB_OFFLINE");
    } finally {
      for (const name of ["HF_ENDPOINT", "HF_HUB_CACHE", "HF_HUB_OFFLINE"]) {
        if (before[name] === undefined) Deno.env.delete(name);
        else Deno.env.set(name, before[name]);
      }
    }
  });
});
