/** What a server may answer to a question for a range, and that a wrong file never has a final name. */
import { modelFiles } from "../../hub/wanted.ts";
import { assert, assertEquals, assertThrows } from "../support/assert_close.ts";
import { serve } from "../support/hub_server.ts";
import { COMMIT, MODEL, type TestHub, tree, WEIGHTS, withHub } from "./support.ts";

type Bytes = Uint8Array<ArrayBuffer>;
const SIZE = WEIGHTS.length;

/** Answers the first question with the beginning, and each one after it as `answers` say in turn, then rightly. */
function after(...answers: ((from: number, request: Request) => Response)[]): TestHub["server"]["fault"] {
  let asked = 0;
  return (request, bytes) => {
    if (bytes !== WEIGHTS) return undefined;
    const from = Number(/\d+/.exec(request.headers.get("range") ?? "0")![0]);
    const index = asked++;
    if (index === 0) return new Response(WEIGHTS.slice(0, 20_000), { headers: { etag: '"one"' } });
    return answers[index - 1]?.(from, request) ?? serve(request, bytes);
  };
}

function part(bytes: Bytes, range: string, headers: Record<string, string> = {}): Response {
  return new Response(bytes, { status: 206, headers: { "content-range": range, ...headers } });
}

Deno.test("answers to a range: what is another range, file or status is never taken for the rest", async () => {
  const other = WEIGHTS.slice();
  other[30_000]! ^= 1;
  const rest = (from: number) => `bytes ${from}-${SIZE - 1}/${SIZE}`;
  const cases: [string, (from: number, request: Request) => Response][] = [
    ["the whole file", () => new Response(WEIGHTS)],
    ["another range", (from) => part(WEIGHTS.slice(from - 5), rest(from - 5))],
    ["no range", (from) => part(WEIGHTS.slice(from), "")],
    ["a range of another size", (from) => part(WEIGHTS.slice(from), `bytes ${from}-${SIZE - 1}/${SIZE + 1}`)],
    ["an end past the file", (from) => part(WEIGHTS.slice(from), `bytes ${from}-${SIZE}/${SIZE}`)],
    ["words", (from) => part(WEIGHTS.slice(from), "bytes all")],
    ["another file", (from) => part(other.slice(from), rest(from), { etag: '"two"' })],
    ["another file without its mark", (from) => part(other.slice(from), rest(from))],
    ["another file whole", () => new Response(other, { headers: { etag: '"two"' } })],
    ["past the end", () => new Response(null, { status: 416 })],
    ["no content", () => new Response(null, { status: 204 })],
    ["cut at once", (from) => part(new Uint8Array(), rest(from))],
  ];
  for (const [name, answer] of cases) {
    await withHub(async ({ server, fetch }) => {
      server.fault = after(answer);
      assertEquals(await Deno.readFile(`${await fetch()}/model.safetensors`), WEIGHTS, name);
      const asked = server.requests.filter(({ path }) => path.endsWith("model.safetensors"));
      assert(asked.length <= 4, `${name}: ${asked.length} questions`);
    });
  }
});

Deno.test("an answer that stays wrong ends, with one line and no file of the final name", async () => {
  const flipped = WEIGHTS.slice();
  flipped[0]! ^= 128;
  const cases: [string, (request: Request) => Response, number][] = [
    ["416", () => new Response(null, { status: 416 }), 5],
    ["206", () => part(WEIGHTS, `bytes 0-${SIZE - 1}/${SIZE}`), 5],
    ["its sha256 is not what the hub lists", (request) => serve(request, flipped), 2],
    ["sends more than", () => new Response(new Uint8Array(SIZE + 1)), 2],
    // Nearly all of it, and less the next time: no progress beyond what there was.
    [
      "ended after",
      (() => {
        let times = 0;
        return () => new Response(WEIGHTS.slice(0, ++times % 2 ? 40_000 : 3000));
      })(),
      6,
    ],
  ];
  for (const [words, answer, most] of cases) {
    await withHub(async ({ server, fetch, cache }) => {
      server.fault = (request, bytes) => bytes === WEIGHTS ? answer(request) : undefined;
      const message = await assertThrows(
        () => fetch(),
        "Cannot download org/tiny/model.safetensors: ",
        words,
      );
      assert(!message.includes("\n"), message);
      const asked = server.requests.filter(({ path }) => path.endsWith("model.safetensors")).length;
      assert(asked <= most, `${words}: ${asked} questions`);
      const names = tree(`${cache}/models--org--tiny`);
      assert(!names.includes(`snapshots/${COMMIT}/model.safetensors`), names.join());
      assertEquals(names.filter((name) => /blobs\/[0-9a-f]{64}$/.test(name)), []);
    });
  }
});

Deno.test("a server that refuses every range sends the whole file in the end", async () => {
  const refusals: [string, (from: number) => Response][] = [
    ["past the end", () => new Response(null, { status: 416 })],
    ["other ranges", (from) => part(WEIGHTS.slice(from - 1), `bytes ${from - 1}-${SIZE - 1}/${SIZE}`)],
  ];
  for (const [name, refuse] of refusals) {
    await withHub(async ({ server, fetch }) => {
      let asked = 0;
      server.fault = (request, bytes) => {
        if (bytes !== WEIGHTS) return undefined;
        const range = request.headers.get("range");
        if (range !== null) return refuse(Number(/\d+/.exec(range)![0]));
        return asked++ === 0 ? new Response(WEIGHTS.slice(0, 100)) : undefined;
      };
      assertEquals(await Deno.readFile(`${await fetch()}/model.safetensors`), WEIGHTS, name);
      assertEquals(server.requests.filter(({ path }) => path.endsWith("model.safetensors")).length, 3, name);
    });
  }
});

Deno.test("the rest is asked for under the condition that the file is the same, and bytes as they are kept", async () => {
  // A weak mark says nothing of the bytes.
  for (const [etag, condition] of [['"one"', '"one"'], ['W/"one"', null]] as const) {
    await withHub(async ({ server, fetch }) => {
      const seen: (string | null)[][] = [];
      server.fault = (request, bytes) => {
        if (bytes !== WEIGHTS) return undefined;
        seen.push(["range", "if-range", "accept-encoding"].map((name) => request.headers.get(name)));
        if (seen.length > 1) return undefined;
        return new Response(WEIGHTS.slice(0, 20_000), { headers: { etag } });
      };
      await fetch();
      assertEquals(seen, [[null, null, "identity"], ["bytes=20000-", condition, "identity"]]);
    });
  }
});

Deno.test("empty files are files", async () => {
  await withHub(async ({ fetch }) => {
    const folder = await fetch({ wanted: () => ["empty.txt"] });
    assertEquals((await Deno.stat(`${folder}/empty.txt`)).size, 0);
  }, [{ ...MODEL, files: { ...MODEL.files, "empty.txt": new Uint8Array() } }]);
});

Deno.test("a connection that breaks more often than there are tries, but brings something each time, comes to its end", async () => {
  await withHub(async ({ server, fetch }) => {
    let asked = 0;
    const pieces = 9;
    server.fault = (request, bytes) => {
      if (bytes !== WEIGHTS) return undefined;
      asked++;
      const from = Number(/\d+/.exec(request.headers.get("range") ?? "0")![0]);
      const end = Math.min(SIZE, from + Math.ceil(SIZE / pieces));
      const rest = WEIGHTS.slice(from, end);
      return from === 0
        ? new Response(rest, { headers: { etag: '"one"' } })
        : part(rest, `bytes ${from}-${SIZE - 1}/${SIZE}`, { etag: '"one"' });
    };
    assertEquals(await Deno.readFile(`${await fetch()}/model.safetensors`), WEIGHTS);
    assertEquals(asked, pieces);
  });
});

Deno.test("modelFiles() takes nothing where there are no weights, and of two formats safetensors", () => {
  assertEquals(modelFiles(["config.json", "tokenizer.json", "README.md"]), []);
  assertEquals(
    modelFiles(["config.json", "pytorch_model.bin", "model.safetensors", "train.py"]),
    ["config.json", "model.safetensors"],
  );
  assertEquals(modelFiles(["config.json", "pytorch_model.bin"]), ["config.json", "pytorch_model.bin"]);
  const model = [
    ...["config", "generation_config", "tokenizer", "tokenizer_config"].map((name) => `${name}.json`),
    ...["special_tokens_map", "added_tokens", "chat_template"].map((name) => `${name}.json`),
    ...["preprocessor_config.json", "processor_config.json"],
    "chat_template.jinja",
    "additional_chat_templates/tool-use.jinja",
    "model-00001-of-00001.safetensors",
    "model.safetensors.index.json",
  ];
  assertEquals(modelFiles([...model, "model.safetensors.md", "onnx/config.json"]), model);
  const adapter = [
    "adapter_config.json",
    "train_args.yaml",
    "trainable_params.bin",
    "trainable_params.safetensors",
    "adapter_model.bin",
  ];
  assertEquals(modelFiles([...adapter, "optimizer.bin"]), adapter);
});
