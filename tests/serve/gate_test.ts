/** Nobody but programs and pages of this machine, or who has the key, gets an answer. */
import { Gate } from "../../serve/gate.ts";
import { Server } from "../../serve/server.ts";
import { assert, assertEquals, assertThrows } from "../support/assert_close.ts";
import { asking, EchoModel, exchange, post, statusOf, type TestServer, withServer } from "./support.ts";

const BODY = JSON.stringify(asking("tell me everything"));

/** A request as bytes; `lines` are its headers. */
function request(lines: readonly string[], path = "/v1/chat/completions", method = "POST"): string {
  const body = method === "POST" ? BODY : "";
  return [
    `${method} ${path} HTTP/1.1`,
    ...lines,
    ...body === "" ? [] : ["Content-Type: application/json", `Content-Length: ${body.length}`],
    "Connection: close",
    "",
    body,
  ].join("\r\n");
}

/** Headers of requests that come from elsewhere; P is the port. */
const FOREIGN: readonly (readonly string[])[] = [
  ["Host: evil.example"],
  ["Host: evil.example:P"],
  ["Host: 127.0.0.1.nip.io:P"],
  ["Host: localhost.evil.example:P"],
  ["Host: rebound.evil.example:P", "Origin: http://rebound.evil.example:P"],
  ["Host: 127.0.0.1"],
  ["Host: 127.0.0.1:1"],
  ["Host: localhost:80"],
  ["Host: 127.0.0.1:P@evil.example"],
  ["Host: evil.example@127.0.0.1:P"],
  ["Host: 127.0.0.1:P, evil.example"],
  ["Host: 0x7f.1:P"],
  ["Host: 2130706433:P"],
  ["Host: 127.1:P"],
  ["Host: 127.0.0.2:P"],
  ["Host: 192.168.1.2:P"],
  ["Host: [::ffff:127.0.0.1]:P"],
  ["Host: [::1]evil:P"],
  ["Host: localhost.:P"],
  ["Host: 127.0.0.1:P/x"],
  ["Host: "],
  ["Host:"],
  [],
  ["Host: 127.0.0.1:P", "Host: evil.example"],
  ["Host: evil.example", "Host: 127.0.0.1:P"],
  ["Host: 127.0.0.1:P", "Origin: null"],
  ["Host: 127.0.0.1:P", "Origin: "],
  ["Host: 127.0.0.1:P", "Origin: http://evil.example"],
  ["Host: 127.0.0.1:P", "Origin: http://evil.example:P"],
  ["Host: 127.0.0.1:P", "Origin: http://127.0.0.1"],
  ["Host: 127.0.0.1:P", "Origin: http://127.0.0.1:1"],
  ["Host: 127.0.0.1:P", "Origin: http://localhost:P"],
  ["Host: 127.0.0.1:P", "Origin: http://127.0.0.1:P.evil.example"],
  ["Host: 127.0.0.1:P", "Origin: http://127.0.0.1:P/"],
  ["Host: 127.0.0.1:P", "Origin: file://"],
  ["Host: 127.0.0.1:P", "Origin: chrome-extension://abc"],
  ["Host: 127.0.0.1:P", "Origin: http://127.0.0.1:P", "Origin: http://evil.example"],
  ["Host: 127.0.0.1:P", "Sec-Fetch-Site: cross-site"],
  ["Host: 127.0.0.1:P", "Sec-Fetch-Site: same-site", "Sec-Fetch-Mode: no-cors"],
];

const withPort = (lines: readonly string[], { port }: TestServer) =>
  lines.map((line) => line.replace(/:P\b/, `:${port}`));

Deno.test("requests with another Host or Origin get 403 on every path, and make no token", async () => {
  const model = new EchoModel();
  await withServer(model, async (server) => {
    assert(FOREIGN.length >= 30, "requests");
    await Promise.all(FOREIGN.map(async (lines) => {
      const answer = await exchange(server.port, request(withPort(lines, server)));
      // Two hosts are no HTTP: Deno says so itself.
      const isTwice = lines.filter((line) => line.startsWith("Host")).length > 1;
      assertEquals(statusOf(answer), isTwice ? 400 : 403, lines.join(", "));
      assert(!/access-control/i.test(answer), `${lines.join()}: ${answer}`);
    }));
    const foreign = withPort(["Host: evil.example:P"], server);
    for (const path of ["/", "/app.js", "/health", "/metrics", "/props", "/v1/models", "/none"]) {
      assertEquals(statusOf(await exchange(server.port, request(foreign, path, "GET"))), 403, path);
    }
    const absolute = request(
      [`Host: 127.0.0.1:${server.port}`],
      `http://evil.example:${server.port}/v1/chat/completions`,
    );
    assertEquals(statusOf(await exchange(server.port, absolute)), 403, "a whole address in the request line");
    assertEquals(model.calls, 0, "answers");
    assertEquals(server.problems, []);
  });
});

Deno.test("programs and the page of this machine are let in, by each of its names", async () => {
  await withServer(new EchoModel(), async (server) => {
    for (
      const lines of [
        ["Host: 127.0.0.1:P"],
        ["Host: localhost:P", "Origin: http://localhost:P", "Sec-Fetch-Site: same-origin"],
        ["Host: LOCALHOST:P"],
        ["Host: [::1]:P"],
        ["Host: 127.0.0.1:P", "Origin: http://127.0.0.1:P"],
      ]
    ) {
      const answer = await exchange(server.port, request(withPort(lines, server)));
      assertEquals(statusOf(answer), 200, `${lines}: ${answer}`);
      assert(!/access-control/i.test(answer), answer);
    }
    const link = ["Host: 127.0.0.1:P", "Sec-Fetch-Site: cross-site", "Sec-Fetch-Mode: navigate"];
    assertEquals(
      statusOf(await exchange(server.port, request(withPort(link, server), "/", "GET"))),
      200,
      "a link to the page",
    );
  });
});

Deno.test("every answer says that nothing from elsewhere belongs to it", async () => {
  await withServer(new EchoModel(), async ({ url }) => {
    for (const path of ["/", "/app.js", "/style.css", "/health", "/none", "/v1/models"]) {
      const { headers, body } = await fetch(url + path);
      await body?.cancel();
      assertEquals(
        headers.get("content-security-policy"),
        "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; base-uri 'none'; " +
          "form-action 'none'; frame-ancestors 'none'",
        path,
      );
      const others = {
        "x-content-type-options": "nosniff",
        "x-frame-options": "DENY",
        "referrer-policy": "no-referrer",
        "cross-origin-resource-policy": "same-origin",
        "cross-origin-opener-policy": "same-origin",
        "cache-control": "no-store",
      };
      for (const [name, value] of Object.entries(others)) assertEquals(headers.get(name), value, path);
    }
  });
});

Deno.test("bodies that are not JSON by their type are refused: other sites can send those unasked", async () => {
  const model = new EchoModel();
  await withServer(model, async ({ url }) => {
    for (
      const type of [
        "text/plain",
        "application/x-www-form-urlencoded",
        "multipart/form-data",
        "",
        "application/jsonp",
      ]
    ) {
      const response = await fetch(`${url}/v1/chat/completions`, {
        method: "POST",
        body: BODY,
        headers: { "content-type": type },
      });
      assertEquals(
        [response.status, (await response.json()).error.type],
        [415, "invalid_request_error"],
        type,
      );
    }
    const options = await fetch(`${url}/v1/chat/completions`, {
      method: "OPTIONS",
      headers: { "access-control-request-method": "POST" },
    });
    assertEquals([options.status, options.headers.get("allow")], [405, "POST"]);
    await options.body?.cancel();
    assertEquals(model.calls, 0);
    const response = await post(`${url}/v1/chat/completions`, BODY, {
      headers: { "content-type": "Application/JSON; charset=utf-8" },
    });
    assertEquals((await response.json()).choices[0].message.content, "everything me tell");
  });
});

Deno.test("with a key, only the page's files and /health are for everybody", async () => {
  const model = new EchoModel();
  const apiKey = "0123456789abcdef";
  await withServer(model, async ({ url }) => {
    for (
      const authorization of [
        "",
        "Bearer",
        "Bearer wrong",
        `Basic ${apiKey}`,
        apiKey,
        `Bearer ${apiKey}0`,
        "Bearer 0123456789abcdeg",
      ]
    ) {
      const response = await post(`${url}/v1/chat/completions`, BODY, { headers: { authorization } });
      assertEquals(
        [response.status, (await response.json()).error.code],
        [401, "invalid_api_key"],
        authorization,
      );
    }
    const statuses = await Promise.all(
      ["/", "/app.js", "/style.css", "/health", "/props", "/metrics", "/v1/models"].map(async (path) => {
        const { status, body } = await fetch(url + path);
        await body?.cancel();
        return status;
      }),
    );
    assertEquals(statuses, [200, 200, 200, 200, 401, 401, 401]);
    assertEquals(model.calls, 0);
    const response = await post(`${url}/v1/chat/completions`, BODY, {
      headers: { authorization: `Bearer ${apiKey}` },
    });
    assertEquals((await response.json()).choices[0].message.content, "everything me tell");
  }, { apiKey });
});

Deno.test("names that are allowed are served, as behind a proxy; no others are", async () => {
  await withServer(new EchoModel(), async (server) => {
    const statusFor = async (...lines: string[]) =>
      statusOf(await exchange(server.port, request(withPort(lines, server))));
    assertEquals(await statusFor("Host: chat.example"), 200);
    assertEquals(await statusFor("Host: chat.example", "Origin: https://chat.example"), 200);
    assertEquals(await statusFor("Host: other.example:8443"), 200);
    assertEquals(await statusFor("Host: other.example"), 403);
    assertEquals(await statusFor("Host: chat.example", "Origin: https://evil.example"), 403);
    assertEquals(await statusFor("Host: chat.example.evil"), 403);
  }, { allowedHosts: ["chat.example", "other.example:8443"] });
});

Deno.test("an address that others reach needs a key, and is then served by any of its addresses", async () => {
  const hooks = { onProblem() {}, onLost() {} };
  await assertThrows(() => new Server({ hostname: "0.0.0.0", port: 0, ...hooks }), "0.0.0.0", "--api_key");
  await assertThrows(
    () => new Server({ hostname: "127.0.0.1", port: 0, apiKey: "short", ...hooks }),
    "16 characters",
  );
  await withServer(new EchoModel(), async (server) => {
    await assertThrows(
      () => new Server({ hostname: "127.0.0.1", port: server.port, ...hooks }),
      `127.0.0.1:${server.port}`,
      "another program listens",
      "--port",
    );
  });
  const gate = new Gate({ hostname: "0.0.0.0", port: 8000, allowedHosts: [], apiKey: "0123456789abcdef" });
  const send = (host: string) => gate.checkSender(new Request(`http://${host}/`, { headers: { host } }));
  for (const host of ["192.168.1.2:8000", "[fe80::1]:8000", "localhost:8000"]) send(host);
  for (const host of ["evil.example:8000", "192.168.1.2:8001"]) {
    await assertThrows(() => send(host), "This Host is not served here");
  }
});
