/** Bodies that are too long or too slow, clients that leave, lines that are full: the server lives on. */
import { DeviceLostError, GpuMemoryError } from "../../kernels/errors.ts";
import { assert, assertEquals } from "../support/assert_close.ts";
import { asking, EchoModel, exchange, post, sendEndless, statusOf, until, withServer } from "./support.ts";

const CHAT = "/v1/chat/completions";

Deno.test("a body without an end is refused when it passes the limit, and not taken, whatever it says of its length", async () => {
  const model = new EchoModel();
  await withServer(model, async ({ port, url }) => {
    const most = 64 * 2 ** 20;
    for (const isChunked of [true, false]) {
      for (const [host, status] of [[`127.0.0.1:${port}`, 413], ["evil.example", 403]] as const) {
        const { answer, sent } = await sendEndless(port, { most, host, isChunked });
        // A connection that is closed may take the answer with it.
        assert([status, 0].includes(statusOf(answer)), answer);
        // What lies in the system's buffers was sent too. Deno itself drops the rest of a body whose length was told.
        assert(!isChunked || sent < most / 2, `${host}, ${isChunked}: ${sent} bytes were taken`);
      }
    }
    const fits = await post(url + CHAT, asking("a ".repeat(500_000)));
    assertEquals([fits.status, (await fits.json()).error.code], [400, "context_length_exceeded"]);
    const tooLong = await post(url + CHAT, asking("a ".repeat(530_000)));
    assertEquals([tooLong.status, (await tooLong.json()).error.code], [413, "request_too_large"]);
    assertEquals(model.calls, 0);
  });
});

Deno.test("a hundred slow connections keep nobody waiting, and their bodies have ten seconds", async () => {
  await withServer(new EchoModel(), async ({ port, url }) => {
    const lines = `POST ${CHAT} HTTP/1.1\r\nHost: 127.0.0.1:${port}\r\nContent-Type: application/json\r\n`;
    const slow = Array.from(
      { length: 100 },
      (_, i) => exchange(port, i % 2 === 0 ? `${lines}Content-Length: 100\r\n\r\n{` : "POST /v1/ch", 1500),
    );
    await new Promise((resolve) => setTimeout(resolve, 100));
    const start = performance.now();
    const response = await post(url + CHAT, asking("one two"));
    assertEquals((await response.json()).choices[0].message.content, "two one");
    assert(performance.now() - start < 1000, `${performance.now() - start} ms`);
    const answers = await Promise.all(slow);
    assertEquals(answers.filter((answer) => statusOf(answer) === 408).length, 50, answers[0]);
  }, { readTimeoutMs: 500 });
});

Deno.test("a client that leaves ends its answer, streamed or not, and its place in the line", async () => {
  const model = new EchoModel(10);
  await withServer(model, async ({ url }) => {
    const waits = async (count: 0 | 1) => {
      const text = await (await fetch(`${url}/metrics`)).text();
      return text.includes(`longreach_requests_waiting ${count}\n`);
    };
    for (const stream of [true, false]) {
      const leaving = new AbortController();
      const words = asking("word ".repeat(2000), { stream, max_tokens: 2000 });
      const answered = post(url + CHAT, words, { signal: leaving.signal }).then((response) =>
        response.text()
      );
      answered.catch(() => {});
      await until(() => model.running === 1, "the answer begins");
      const impatient = new AbortController();
      const waiting = post(url + CHAT, words, { signal: impatient.signal }).then((response) =>
        response.text()
      );
      waiting.catch(() => {});
      await until(() => waits(1), "another waits");
      const calls = model.calls;
      impatient.abort();
      await until(() => waits(0), "none waits");
      const left = performance.now();
      leaving.abort();
      await until(() => model.running === 0, "the answer ends");
      assert(model.cancelledAt! - left < 1000, `${model.cancelledAt! - left} ms`);
      assertEquals(model.calls, calls, "the one that waited began");
    }
    model.tokenMs = 0;
    assertEquals((await (await post(url + CHAT, asking("a b"))).json()).choices[0].message.content, "b a");
  });
});

Deno.test("a line that is full answers 503 and when to come again; those in it are answered in turn", async () => {
  const model = new EchoModel(20);
  await withServer(model, async ({ url }) => {
    const asked = Array.from({ length: 5 }, async (_, i) => {
      const response = await post(url + CHAT, asking(`a${i} b${i} c${i}`, { stream: i % 2 === 0 }));
      return {
        status: response.status,
        later: response.headers.get("retry-after"),
        text: await response.text(),
      };
    });
    const answers = await Promise.all(asked);
    const full = answers.filter(({ status }) => status === 503);
    assertEquals([full.length, model.mostRunning, model.calls], [2, 1, 3]);
    for (const { later, text } of full) {
      assert(Number(later) >= 1, `retry after ${later}`);
      assertEquals(JSON.parse(text).error.code, "queue_full");
    }
  }, { queueSize: 2 });
});

Deno.test("what fails in the device is one error, without a stack or a path, and the next is answered", async () => {
  const model = new EchoModel();
  await withServer(model, async ({ url, problems, lost }) => {
    for (const stream of [false, true]) {
      model.failure = new Error("in /home/me/kernels/matmul.ts at line 3");
      const response = await post(url + CHAT, asking("a b", { stream }));
      const text = await response.text();
      assertEquals(response.status, stream ? 200 : 500);
      assert(/"type":"server_error"/.test(text) && !/home|matmul|\.ts/.test(text), text);
      assert(problems.at(-1)!.includes("matmul"), "the owner is told");
    }
    model.failure = new GpuMemoryError("9 GiB");
    assertEquals((await (await post(url + CHAT, asking("a b"))).json()).error.code, "out_of_memory");
    model.failure = undefined;
    assertEquals((await (await post(url + CHAT, asking("a b"))).json()).choices[0].message.content, "b a");
    model.failure = new DeviceLostError("gone");
    assertEquals((await (await post(url + CHAT, asking("a b"))).json()).error.code, "device_lost");
    assertEquals([lost.length, (await (await fetch(`${url}/health`)).json()).status], [1, "device lost"]);
  });
});

Deno.test("before the model is there, requests are told to come again, and /health that it is loading", async () => {
  await withServer(undefined, async ({ url }) => {
    const response = await post(url + CHAT, asking("a"));
    assertEquals([response.status, response.headers.get("retry-after"), (await response.json()).error.code], [
      503,
      "5",
      "loading",
    ]);
    const health = await fetch(`${url}/health`);
    assertEquals([health.status, (await health.json()).status], [503, "loading the model"]);
    assertEquals((await (await fetch(url)).text()).startsWith("<!DOCTYPE html>"), true, "the page is there");
  });
});

Deno.test("stopping ends what is answered, and says so", async () => {
  const model = new EchoModel(10);
  let streaming: Promise<string> | undefined;
  let whole: Promise<Response> | undefined;
  await withServer(model, async ({ url }) => {
    const words = "word ".repeat(2000);
    streaming = post(url + CHAT, asking(words, { stream: true, max_tokens: 2000 })).then((response) =>
      response.text()
    );
    await until(() => model.running === 1, "the answer begins");
    whole = post(url + CHAT, asking(words));
    await new Promise((resolve) => setTimeout(resolve, 50));
  });
  assert((await streaming!).includes('"code":"stopping"'), "the stream says why it ends");
  assertEquals([(await whole!).status, (await (await whole!).json()).error.code], [503, "stopping"]);
});
