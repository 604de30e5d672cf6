/** Parameters that are served; the rest is refused by name, and nothing is silently left out. */
import fc from "fast-check";
import { ApiError } from "../../serve/errors.ts";
import { countTokens, readChat, readCompletion } from "../../serve/requests.ts";
import { assert, assertEquals } from "../support/assert_close.ts";
import { assertIncludes } from "../support/text.ts";
import { asking, EchoModel, post, withServer } from "./support.ts";

const user = (content: unknown) => ({ role: "user", content });
const assistant = (content: string) => ({ role: "assistant", content });
const system = (content: string) => ({ role: "system", content });

/** Bodies that are refused, with the status, the parameter and the code that the answer names. */
const REFUSED:
  readonly (readonly [body: unknown, status: number, param: string | null, code: string | null])[] = [
    ["", 400, null, null],
    ["{", 400, null, null],
    ["[]", 400, null, null],
    ["null", 400, null, null],
    ['"text"', 400, null, null],
    ["[".repeat(100_000), 400, null, null],
    [{}, 400, "messages", "missing_required_parameter"],
    [{ messages: null }, 400, "messages", "missing_required_parameter"],
    [{ messages: [] }, 400, "messages", "invalid_value"],
    [{ messages: ["hello"] }, 400, "messages.0", "invalid_value"],
    [{ messages: [{ content: "a" }] }, 400, "messages.0.role", "missing_required_parameter"],
    [{ messages: [{ role: "robot", content: "a" }] }, 400, "messages.0.role", "invalid_value"],
    [
      { messages: [{ role: "tool", content: "a", tool_call_id: "b" }] },
      400,
      "messages.0.role",
      "invalid_value",
    ],
    [{ messages: [user(7)] }, 400, "messages", null],
    [{ messages: [user([{ type: "image_url", image_url: { url: "a" } }])] }, 400, "messages", null],
    [{ messages: [user("")] }, 400, "messages", "invalid_value"],
    [{ messages: [assistant("a")] }, 400, "messages.0.role", "invalid_value"],
    [{ messages: [system("a")] }, 400, "messages.0.role", "invalid_value"],
    [{ messages: [user("a"), user("b")] }, 400, "messages.1.role", "invalid_value"],
    [{ messages: [user("a"), system("b"), user("c")] }, 400, "messages.1.role", "invalid_value"],
    [{ messages: [user("a"), assistant("b")] }, 400, "messages.1.role", "invalid_value"],
    [
      { messages: [user("a"), assistant("b"), assistant("c"), user("d")] },
      400,
      "messages.2.role",
      "invalid_value",
    ],
    [
      {
        messages: [user("a"), {
          ...assistant("b"),
          tool_calls: [{ function: { name: "f", arguments: "{}" } }],
        }, user("c")],
      },
      400,
      "messages.1.tool_calls",
      "invalid_value",
    ],
    [
      { messages: Array.from({ length: 101 }, (_, i) => i % 2 ? assistant("a") : user("b")) },
      400,
      "messages",
      "invalid_value",
    ],
    [asking("a", { model: "gpt-4o" }), 404, "model", "model_not_found"],
    [asking("a", { model: 7 }), 400, "model", "invalid_value"],
    [asking("a", { temperature: -1 }), 400, "temperature", "invalid_value"],
    [asking("a", { temperature: 2.1 }), 400, "temperature", "invalid_value"],
    [asking("a", { temperature: 0.001 }), 400, "temperature", "invalid_value"],
    [asking("a", { temperature: "hot" }), 400, "temperature", "invalid_value"],
    ['{"messages":[{"role":"user","content":"a"}],"temperature":1e999}', 400, "temperature", "invalid_value"],
    [asking("a", { top_p: 1.5 }), 400, "top_p", "invalid_value"],
    [asking("a", { seed: 1.5 }), 400, "seed", "invalid_value"],
    [asking("a", { seed: 2 ** 40 }), 400, "seed", "invalid_value"],
    [asking("a", { max_tokens: 0 }), 400, "max_tokens", "invalid_value"],
    [asking("a", { max_tokens: 1e9 }), 400, "max_tokens", "context_length_exceeded"],
    [asking("a", { max_tokens: 2, max_completion_tokens: 3 }), 400, "max_tokens", "invalid_value"],
    [asking("a ".repeat(4096)), 400, "messages", "context_length_exceeded"],
    [asking("a", { stop: "" }), 400, "stop", "invalid_value"],
    [asking("a", { stop: Array.from({ length: 17 }, String) }), 400, "stop", "invalid_value"],
    [asking("a", { stream: "yes" }), 400, "stream", "invalid_value"],
    [asking("a", { stream_options: { include_usage: true } }), 400, "stream_options", "invalid_value"],
    [
      asking("a", { stream: true, stream_options: { usage: true } }),
      400,
      "stream_options.usage",
      "unknown_parameter",
    ],
    [asking("a", { top_logprobs: 3 }), 400, "top_logprobs", "invalid_value"],
    [asking("a", { logprobs: true, top_logprobs: 21 }), 400, "top_logprobs", "invalid_value"],
    [asking("a", { logprobs: 3 }), 400, "logprobs", "invalid_value"],
    [asking("a", { max_new_tokens: 3 }), 400, "max_new_tokens", "unknown_parameter"],
    [
      '{"messages":[{"role":"user","content":"a"}],"__proto__":{"n":2}}',
      400,
      "__proto__",
      "unknown_parameter",
    ],
    [asking("a", { ["x".repeat(100_000)]: 1 }), 400, "x".repeat(100), "unknown_parameter"],
    [
      `{"messages":[{"role":"user","content":"a"}],"n":${"[".repeat(50_000)}${"]".repeat(50_000)}}`,
      400,
      "n",
      "unsupported_parameter",
    ],
    [
      `{"messages":[{"role":"user","content":${"[".repeat(50_000)}${"]".repeat(50_000)}}]}`,
      400,
      "messages",
      null,
    ],
    [asking("a", { n: 2 }), 400, "n", "unsupported_parameter"],
    [asking("a", { frequency_penalty: 0.5 }), 400, "frequency_penalty", "unsupported_parameter"],
    [asking("a", { presence_penalty: -0.5 }), 400, "presence_penalty", "unsupported_parameter"],
    [asking("a", { logit_bias: { 5: 1 } }), 400, "logit_bias", "unsupported_parameter"],
    [asking("a", { tools: [{ type: "function" }] }), 400, "tools", "unsupported_parameter"],
    [asking("a", { tool_choice: "required" }), 400, "tool_choice", "unsupported_parameter"],
    [
      asking("a", { response_format: { type: "json_object" } }),
      400,
      "response_format",
      "unsupported_parameter",
    ],
    [asking("a", { store: true }), 400, "store", "unsupported_parameter"],
  ];

/** Parameters that ask for nothing. */
const NEUTRAL = {
  model: "echo",
  n: 1,
  frequency_penalty: 0,
  presence_penalty: 0,
  logit_bias: {},
  tools: [],
  tool_choice: "none",
  response_format: { type: "text" },
  store: false,
  user: "me",
  metadata: { a: "b" },
  seed: null,
  stop: null,
  temperature: null,
  stream_options: null,
};

Deno.test("requests that cannot be served as they are get one error that names the parameter", async () => {
  const model = new EchoModel();
  await withServer(model, async ({ url, problems }) => {
    for (const [body, status, param, code] of REFUSED) {
      const response = await post(`${url}/v1/chat/completions`, body);
      const what = JSON.stringify(body).slice(0, 120);
      const { error } = await response.json();
      assertEquals(
        [response.status, error.param, error.code],
        [status, param, code],
        `${what}: ${error.message}`,
      );
      assert(typeof error.message === "string" && error.message.length < 300, what);
      assertEquals(error.type, status === 404 ? "not_found_error" : "invalid_request_error", what);
      assert(!/\.ts|file:|at \w+ \(/.test(error.message), error.message);
    }
    assertEquals([model.calls, problems], [0, []]);
    const response = await post(`${url}/v1/chat/completions`, asking("a b", NEUTRAL));
    assertEquals((await response.json()).choices[0].message.content, "b a");
  });
});

Deno.test("a conversation in order is taken: system and developer first, then turns", async () => {
  await withServer(new EchoModel(), async ({ url }) => {
    for (
      const messages of [
        [system("s"), user("a")],
        [system("s"), { role: "developer", content: "d" }, user("a")],
        [user("a"), assistant("b"), user([{ type: "text", text: "c" }, { type: "text", text: "d" }])],
        [{ ...user("a"), name: "me" }, { ...assistant("b"), refusal: null, tool_calls: null }, user("c")],
      ]
    ) {
      const response = await post(`${url}/v1/chat/completions`, { messages });
      const { choices } = await response.json();
      const words = JSON.stringify(messages).match(/(?<="(?:content|text)":")\w(?=")/g)!;
      assertEquals(choices?.[0].message.content, words.reverse().join(" "), JSON.stringify(messages));
    }
  });
});

Deno.test("prompts of completions: one text, or token ids of the vocabulary", async () => {
  await withServer(new EchoModel(), async ({ url }) => {
    const ask = async (body: object) => {
      const response = await post(`${url}/v1/completions`, body);
      const { error, choices } = await response.json();
      return error ? [response.status, error.param] : choices[0].text;
    };
    for (
      const prompt of [undefined, null, 7, {}, [], "", ["a", "b"], [1, 1000], [1, -1], [1, 0.5], [[1], [2]], [
        1,
        "a",
      ]]
    ) {
      assertEquals(await ask({ prompt }), [400, "prompt"], JSON.stringify(prompt));
    }
    assertEquals(await ask({ prompt: "a", suffix: "b" }), [400, "suffix"]);
    assertEquals(await ask({ prompt: "a", echo: true }), [400, "echo"]);
    assertEquals(await ask({ prompt: "a", best_of: 2 }), [400, "best_of"]);
    assertEquals(await ask({ prompt: "a", messages: [] }), [400, "messages"]);
    assertEquals(await ask({ prompt: "a b" }), "b a");
    assertEquals(await ask({ prompt: [1, 0] }), "a b");
  });
});

Deno.test("paths and methods that there are not are told; what the page asks for is there", async () => {
  await withServer(new EchoModel(), async ({ url }) => {
    for (
      const [method, path, status] of [
        ["GET", "/v1/none", 404],
        ["GET", "/../deno.json", 404],
        ["GET", "/%2e%2e/%2e%2e/etc/passwd", 404],
        ["GET", "/page/app.js", 404],
        ["GET", "/v1/chat/completions", 405],
        ["DELETE", "/v1/models", 405],
        ["PUT", "/", 405],
        ["HEAD", "/", 200],
      ] as const
    ) {
      const response = await fetch(url + path, { method });
      assertEquals(response.status, status, `${method} ${path}`);
      if (status !== 200) assert(typeof (await response.json()).error.message === "string", path);
    }
    const props = await (await fetch(`${url}/props`)).json();
    assertEquals(props, {
      model: "echo",
      context_size: 4096,
      chat_template: "no",
      max_tokens: 64,
      max_messages: 100,
      max_body_bytes: 2 ** 20,
      max_document_bytes: 2 ** 25,
    });
    const count = async (body: object) => (await (await post(`${url}/tokenize`, body)).json()).count;
    assertEquals(await count({ content: "a b c" }), 3);
    assertEquals(await count({ messages: [user("a b")] }), 2);
    assertEquals(
      (await post(`${url}/tokenize`, {}).then((response) => response.json())).error.param,
      "content",
    );
    await (await post(`${url}/v1/chat/completions`, asking("a b c"))).body?.cancel();
    const metrics = await (await fetch(`${url}/metrics`)).text();
    for (
      const line of [
        'longreach_requests_total{path="/v1/chat/completions",status="200"} 1',
        'longreach_requests_total{path="other",status="404"} 4',
        'longreach_answers_total{finish_reason="stop"} 1',
        "longreach_prompt_tokens_total 3",
        "longreach_completion_tokens_total 3",
        "longreach_device_bytes 7",
        "# TYPE longreach_requests_waiting gauge",
      ]
    ) assertIncludes(metrics, `${line}\n`);
  });
});

Deno.test("whatever JSON comes, it is read or refused", () => {
  const rules = { answerer: new EchoModel(), modelName: "echo", defaults: {}, maxMessages: 5 };
  const turn = fc.record(
    {
      role: fc.constantFrom("system", "user", "assistant", "tool", 1),
      content: fc.oneof(fc.string(), fc.jsonValue()),
    },
    { requiredKeys: [] },
  );
  const names = [
    "model",
    "stream",
    "stream_options",
    "max_tokens",
    "temperature",
    "seed",
    "stop",
    "logprobs",
    "n",
    "tools",
  ];
  const bodies = fc.record(
    {
      messages: fc.oneof(fc.array(fc.oneof(turn, fc.jsonValue())), fc.jsonValue()),
      prompt: fc.oneof(fc.string(), fc.array(fc.integer()), fc.jsonValue()),
      content: fc.jsonValue(),
      ...Object.fromEntries(names.map((name) => [name, fc.jsonValue()])),
    },
    { requiredKeys: [] },
  );
  const read = { readChat, readCompletion, countTokens };
  fc.assert(
    fc.property(bodies, fc.constantFrom(...Object.values(read)), (body, read) => {
      try {
        read(body as Record<string, unknown>, rules);
      } catch (error) {
        assert(error instanceof ApiError && error.status >= 400 && error.status < 500, String(error));
      }
    }),
    { numRuns: 2000, seed: 1 },
  );
});
