import { saveAtomic } from "../../checkpoint/store.ts";
import { locate } from "../../cli/hub.ts";
import { runCli } from "../../cli/main.ts";
import { dataAmong, readRows } from "../../data/rows.ts";
import { withEnvironment } from "../support/environment.ts";
import { GOLDEN, namesIn, withFolder } from "../support/files.ts";
import { type HubRepository, HubServer } from "../support/hub_server.ts";
import { assertEquals, assertThrows } from "../support/assert_close.ts";
import { MemoryIo } from "./memory_io.ts";

const COMMIT = "0123456789abcdef0123456789abcdef01234567";

/** Runs with a hub of this repository, as the variables of Python's client name it, and an empty folder. */
async function withHub(
  repository: HubRepository,
  run: (server: HubServer, folder: string) => Promise<void>,
): Promise<void> {
  await withFolder(async (folder) => {
    await using server = new HubServer([repository]);
    const environment = { HF_ENDPOINT: server.url, HF_HUB_CACHE: `${folder}/cache` };
    await withEnvironment(environment, () => run(server, folder));
  });
}

Deno.test("locate() takes what is here, then what the hub has, by the variables of Python's client", async () => {
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
  await withHub(model, async (server, folder) => {
    const io = new MemoryIo();
    assertEquals(await locate(io, folder, "model"), folder);
    assertEquals(server.requests.length, 0);
    const path = await locate(io, "org/tiny", "model");
    assertEquals(namesIn(path), ["config.json", "model.safetensors"]);
    assertEquals(io.stderr.includes("fetching org/tiny/model.safetensors: 1 B of 1 B"), true, io.stderr);
    await assertThrows(
      () => locate(io, `${folder}/none/at/all`, "model"),
      `no such folder "none" in "${folder}"`,
    );
    await assertThrows(() => locate(io, "hf://datasets/org/tiny", "model"), "a model is wanted");
    Deno.env.set("HF_HUB_OFFLINE", "1");
    assertEquals(await locate(io, "org/tiny", "model"), path);
    await assertThrows(() => locate(io, "org/other", "model"), "org/other", "HF_HUB_OFFLINE");
  });
});

Deno.test("a wrong path is answered as one: where it was looked for, what is there, and the hub is not asked", async () => {
  const none: HubRepository = { kind: "model", name: "org/other", commit: COMMIT, files: {} };
  await withHub(none, async (server, folder) => {
    const io = new MemoryIo();
    await Deno.mkdir(`${folder}/data`);
    await Deno.mkdir(`${folder}/models/tiny`, { recursive: true });
    await Deno.writeTextFile(`${folder}/data/long.jsonl`, "{}");
    const before = Deno.cwd();
    Deno.chdir(folder);
    try {
      const cases = [
        [
          "data/lnog.jsonl",
          "dataset",
          'no such file or folder "lnog.jsonl" in "data"; data/long.jsonl is there',
        ],
        [
          "data/nope.bin",
          "dataset",
          'no such file or folder "nope.bin" in "data". A data set of the hub is hf://datasets/',
        ],
        ["org/books", "dataset", 'no such folder "org" in the current folder, '],
        ["models/tinny", "model", 'no such file or folder "tinny" in "models"; models/tiny is there'],
        ["./models/tinny", "model", "models/tiny is there"],
        ["modles/tiny/x", "model", 'no such folder "modles" in the current folder'],
        ["long.jsonl", "dataset", 'no such file or folder "long.jsonl"'],
      ] as const;
      for (const [place, kind, words] of cases) {
        await assertThrows(() => locate(io, place, kind, { where: "my.yaml:3:5" }), "my.yaml:3:5: ", words);
      }
      assertEquals(server.requests.length, 0);
      await assertThrows(
        () => locate(io, "org/none", "model"),
        "the hub has no such",
        'no folder "org/none" in the',
      );
    } finally {
      Deno.chdir(before);
    }
  });
});

Deno.test("a run's folder that holds only checkpoints is its newest whole one", async () => {
  await withFolder(async (folder) => {
    for (const step of [2, 10]) {
      await saveAtomic(folder, `checkpoint-${step}`, async (staged) => {
        await Deno.writeTextFile(`${staged}/adapter_config.json`, `{"step": ${step}}`);
      });
    }
    const io = new MemoryIo();
    assertEquals(await locate(io, folder, "model"), `${folder}/checkpoint-10`);
    assertEquals(io.stderr.includes("taking its newest checkpoint, checkpoint-10"), true, io.stderr);
    await Deno.writeTextFile(`${folder}/checkpoint-10/adapter_config.json`, "damaged");
    assertEquals(await locate(io, folder, "model"), `${folder}/checkpoint-2`);
    await Deno.writeTextFile(`${folder}/adapter_config.json`, "{}");
    assertEquals(await locate(io, folder, "model"), folder);
  });
});

Deno.test("a data set of the hub is read from the cache: its training split, in the folders it has", async () => {
  const parquet = await Deno.readFile(`${GOLDEN}/parquet/conversations.parquet`);
  const row = (text: string) => new TextEncoder().encode(JSON.stringify({ text }) + "\n");
  const data: HubRepository = {
    kind: "dataset",
    name: "org/books",
    commit: COMMIT,
    files: {
      "README.md": row("about"),
      "dataset_infos.json": row("about"),
      "data/train-00000-of-00001.parquet": parquet,
      "data/extra/train.jsonl": row("in a folder"),
      "data/test-00000-of-00001.parquet": parquet,
      "data/validation.jsonl": row("held out"),
    },
  };
  await withHub(data, async (server) => {
    const read = async (place: string) => {
      const rows = await Array.fromAsync(readRows(await locate(new MemoryIo(), place, "dataset")));
      return rows.map(({ row }) => row.kind === "text" ? row.text : row.kind);
    };
    const train = ["in a folder", "chat", "chat", "chat"];
    assertEquals(await read("hf://datasets/org/books"), train);
    const fetched = server.requests.filter(({ path }) => path.includes("/resolve/")).length;
    assertEquals(fetched, 2);
    assertEquals(await read("hf://datasets/org/books/data/validation.jsonl"), ["held out"]);
    assertEquals(await read("hf://datasets/org/books"), train, "what was fetched since is not read");
    assertEquals(await read("hf://datasets/org/books/data/extra"), ["in a folder"]);
  });
});

Deno.test("dataAmong() leaves out what is held out where there is a training split, and what is about the data", () => {
  const cases: [string[], string[]][] = [
    [["train.jsonl", "test.jsonl", "more.txt"], ["train.jsonl", "more.txt"]],
    [["test.jsonl", "dev.jsonl"], ["test.jsonl", "dev.jsonl"]],
    [["data/train-1.parquet", "data/validation-1.parquet"], ["data/train-1.parquet"]],
    [["a/train/x.json.gz", "a/test/x.json.gz"], ["a/train/x.json.gz"]],
    [["training.txt", "testing.txt", "latest.md"], ["training.txt", "testing.txt", "latest.md"]],
    [["README.md", "x/LICENSE.txt", "dataset_info.json", "a.bin", "b.md"], ["b.md"]],
  ];
  for (const [names, data] of cases) assertEquals(dataAmong(names), data, names.join());
});

Deno.test("a plan for a model of the hub fetches what it is, not its weights", async () => {
  const model: HubRepository = {
    kind: "model",
    name: "org/tiny",
    commit: COMMIT,
    files: {
      "config.json": await Deno.readFile(`${GOLDEN}/mha/config.json`),
      "tokenizer.json": await Deno.readFile(`${GOLDEN}/mha/tokenizer.json`),
      "model.safetensors": Uint8Array.of(2),
    },
  };
  await withHub(model, async (server) => {
    const io = new MemoryIo();
    const words = "plan --model_name_or_path org/tiny --max_seq_length 64 --max_binding 1GiB".split(" ");
    assertEquals(await runCli(words, io), 0, io.stderr);
    const fetched = server.requests.filter(({ path }) => path.includes("/resolve/")).map(({ path }) =>
      path.split("/").at(-1)
    );
    assertEquals(fetched.sort(), ["config.json", "tokenizer.json"]);
  });
});
