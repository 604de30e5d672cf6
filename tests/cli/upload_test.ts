/** `upload` as a command line, against a hub on this machine. */
import { saveAtomic } from "../../checkpoint/store.ts";
import { runCli } from "../../cli/main.ts";
import { assert, assertEquals } from "../support/assert_close.ts";
import { withEnvironment } from "../support/environment.ts";
import { GOLDEN, withFolder } from "../support/files.ts";
import { HubServer } from "../support/hub_server.ts";
import { HubUploads, serveUploads } from "../support/hub_uploads.ts";
import { assertIncludes } from "../support/text.ts";
import { MemoryIo } from "./memory_io.ts";

Deno.test("upload sends an adapter with its card once, and leaves a card on the hub alone", async () => {
  await withFolder(async (root) => {
    for (const name of ["adapter_config.json", "adapter_model.safetensors"]) {
      await Deno.copyFile(`${GOLDEN}/adapter/${name}`, `${root}/${name}`);
    }
    const hub = new HubUploads();
    await using server = new HubServer([]);
    await using _storage = serveUploads(hub, server);
    const environment = {
      HF_ENDPOINT: server.url,
      HF_HUB_CACHE: `${root}/cache`,
      HF_TOKEN_PATH: `${root}/none`,
    };
    const words = ["upload", "--path", root, "--name", "me/mine", "--base_model", "org/tiny", "--json"];
    await withEnvironment({ ...environment, HF_TOKEN: "secret" }, async () => {
      const io = new MemoryIo();
      assertEquals([await runCli([...words, "--private"], io), io.stderr.includes("secret")], [0, false]);
      const result = JSON.parse(io.stdout);
      assertEquals(result.files, ["README.md", "adapter_config.json", "adapter_model.safetensors"]);
      assertEquals([...hub.repositories], [["me/mine", "private"]]);
      assertIncludes(new TextDecoder().decode(hub.commits[0]!.files["README.md"]), "base_model: org/tiny");
      const again = new MemoryIo();
      assertEquals(await runCli(words, again), 0);
      assertEquals(Object.keys(hub.commits[1]!.files).includes("README.md"), false);
    });
    await withEnvironment(environment, async () => {
      const io = new MemoryIo();
      assertEquals([await runCli(words, io), JSON.parse(io.stdout).error.exit_code], [2, 2]);
      assertIncludes(io.stderr, "HF_TOKEN");
      const wrong = new MemoryIo();
      assertEquals(await runCli(["upload", "--path", root, "--name", "mine"], wrong), 2);
      assertIncludes(wrong.stderr, "org/name");
      const missing = new MemoryIo();
      assertEquals(await runCli(["upload", "--path", `${root}/none`, "--name", "me/mine"], missing), 1);
      assertEquals(
        missing.stderr,
        `Cannot upload "${root}/none": no such file or folder. Check --path\n`,
      );
    });
    assert(hub.commits.length === 2, "two commits");
  });
});

Deno.test("upload takes the newest checkpoint of a run that was stopped, and the run's settings", async () => {
  await withFolder(async (root) => {
    await saveAtomic(root, "checkpoint-3", async (folder) => {
      for (const name of ["adapter_config.json", "adapter_model.safetensors"]) {
        await Deno.copyFile(`${GOLDEN}/adapter/${name}`, `${folder}/${name}`);
      }
    });
    await Deno.writeTextFile(`${root}/train_args.yaml`, "model_max_length: 128\nmodel_name_or_path: a/b/c\n");
    const hub = new HubUploads();
    await using server = new HubServer([]);
    await using _storage = serveUploads(hub, server);
    const environment = { HF_ENDPOINT: server.url, HF_HUB_CACHE: `${root}/cache`, HF_TOKEN: "secret" };
    await withEnvironment(environment, async () => {
      const io = new MemoryIo();
      const words = ["upload", "--path", root, "--name", "me/mine", "--base_model", "org/tiny"];
      assertEquals(await runCli(words, io), 0, io.stderr);
      assertIncludes(io.stderr, "taking its newest checkpoint, checkpoint-3");
    });
    const { files } = hub.commits[0]!;
    assertIncludes(new TextDecoder().decode(files["train_args.yaml"]), "model_max_length: 128");
  });
});
