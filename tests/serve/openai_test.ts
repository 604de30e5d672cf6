/** The official client of OpenAI's API on the demo's model: what programs written for that API get here. */
import OpenAI, { APIError } from "openai";
import { Engine } from "../../chat/engine.ts";
import { assert, assertClose, assertEquals } from "../support/assert_close.ts";
import { mixedRequests } from "./mixed.ts";
import { type TestServer, until, withServer } from "./support.ts";

const MODEL = new URL("../../demo/model", import.meta.url).pathname;
const GREEDY = { model: "echo", temperature: 0, ignore_eos: true } as const;
/** Words that the model knows. */
const QUESTION = "the old lamp";

type Chat = OpenAI.ChatCompletionCreateParamsNonStreaming;

function chat(content: string, more: object = {}): Chat {
  return { ...GREEDY, messages: [{ role: "user", content }], max_tokens: 8, ...more };
}

/** One engine and one server for all steps: opening a device takes longer than any of them. */
async function withClient(
  use: (client: OpenAI, server: TestServer, engine: Engine) => Promise<void>,
): Promise<void> {
  using engine = await Engine.open({ baseModel: MODEL });
  await withServer(engine, async (server) => {
    const client = new OpenAI({ baseURL: `${server.url}/v1`, apiKey: "none", maxRetries: 0 });
    await use(client, server, engine);
  }, { queueSize: 30 });
}

async function refusal(run: () => Promise<unknown>): Promise<APIError> {
  try {
    await run();
  } catch (error) {
    if (error instanceof APIError) return error;
    throw error;
  }
  throw new Error("it was not refused");
}

Deno.test("the official OpenAI client", async (t) => {
  await withClient(async (client, server, engine) => {
    const step = async (name: string, run: () => Promise<void>) => void await t.step(name, run);

    await step("models", async () => {
      const { data } = await client.models.list();
      assertEquals(data.map(({ id, object }) => [id, object]), [["echo", "model"]]);
      assertEquals((await client.models.retrieve("echo")).id, "echo");
      assertEquals((await refusal(() => client.models.retrieve("gpt"))).status, 404);
    });

    const whole = await client.chat.completions.create(chat(QUESTION));
    const text = whole.choices[0]!.message.content!;

    await step("an answer is the engine's, with its tokens counted", async () => {
      const answer = await engine.answer(engine.promptOf([{ role: "user", content: QUESTION }]), {
        temperature: 0,
        ignoreEnd: true,
        maxNewTokens: 8,
      });
      assertEquals([text, whole.choices[0]!.finish_reason], [answer.text, "length"]);
      assertEquals(whole.usage, {
        prompt_tokens: 4,
        completion_tokens: 8,
        total_tokens: 12,
        prompt_tokens_details: { cached_tokens: 0 },
      });
      const again = await client.chat.completions.create(chat(QUESTION));
      assertEquals(again.usage!.prompt_tokens_details!.cached_tokens, 3);
    });

    await step("a stream has the same text, and usage where it is asked for", async () => {
      const chunks = await Array.fromAsync(
        await client.chat.completions.create({
          ...chat(QUESTION),
          stream: true,
          stream_options: { include_usage: true },
        }),
      );
      assertEquals(chunks[0]!.choices[0]!.delta.role, "assistant");
      assertEquals(chunks.map(({ choices }) => choices[0]?.delta.content ?? "").join(""), text);
      assertEquals(chunks.at(-2)!.choices[0]!.finish_reason, "length");
      assertEquals([chunks.at(-1)!.choices, chunks.at(-1)!.usage!.completion_tokens], [[], 8]);
      const plain = await Array.fromAsync(
        await client.chat.completions.create({ ...chat(QUESTION), stream: true }),
      );
      assertEquals(plain.filter(({ usage }) => usage).length, 0);
      assertEquals(new Set(chunks.map(({ id }) => id)).size, 1);
    });

    await step("stop texts end an answer and are no part of it", async () => {
      const words = text.split(" ");
      const stop = ` ${words[3]}`;
      const stopped = await client.chat.completions.create(chat(QUESTION, { stop }));
      assertEquals([stopped.choices[0]!.message.content, stopped.choices[0]!.finish_reason], [
        text.slice(0, text.indexOf(stop)),
        "stop",
      ]);
      assertEquals(stopped.usage!.completion_tokens, 4, "tokens up to the one that ends it");
      const chunks = await Array.fromAsync(
        await client.chat.completions.create({ ...chat(QUESTION, { stop: [stop, "zzz"] }), stream: true }),
      );
      assertEquals(
        chunks.map(({ choices }) => choices[0]?.delta.content ?? "").join(""),
        stopped.choices[0]!.message.content,
      );
    });

    await step("a seed gives the same again, another one something else", async () => {
      const drawn = async (seed: number) =>
        (await client.chat.completions.create(chat(QUESTION, { seed, temperature: 2, max_tokens: 12 })))
          .choices[0]!
          .message.content;
      const first = await drawn(1);
      assertEquals([await drawn(1), first === await drawn(2)], [first, false]);
    });

    await step("logprobs are those of a softmax, in both forms, whole and streamed", async () => {
      const asked = chat(QUESTION, { logprobs: true, top_logprobs: 5, max_tokens: 4 });
      const { choices: [choice] } = await client.chat.completions.create(asked);
      const content = choice!.logprobs!.content!;
      assertEquals(content.map(({ token }) => token).join(""), choice!.message.content!);
      const { logprobs } = await engine.answer(engine.promptOf([{ role: "user", content: QUESTION }]), {
        temperature: 0,
        ignoreEnd: true,
        maxNewTokens: 4,
        topLogprobs: 5,
      });
      assertClose(
        "the engine's logprobs",
        content.flatMap(({ top_logprobs }) => top_logprobs.map(({ logprob }) => logprob)),
        logprobs!.flatMap(({ top }) => top.map(({ logprob }) => logprob)),
        { rtol: 1e-4, atol: 1e-5 },
      );
      for (const { token, logprob, bytes, top_logprobs } of content) {
        assertEquals([top_logprobs.length, top_logprobs[0]!.token, top_logprobs[0]!.logprob], [
          5,
          token,
          logprob,
        ]);
        assert(
          top_logprobs.every((other, i) => i === 0 || other.logprob <= top_logprobs[i - 1]!.logprob),
          "in order",
        );
        assert(top_logprobs.reduce((sum, other) => sum + Math.exp(other.logprob), 0) <= 1, "probabilities");
        assertEquals(new TextDecoder().decode(Uint8Array.from(bytes!)), token);
      }
      const chunks = await Array.fromAsync(await client.chat.completions.create({ ...asked, stream: true }));
      const streamed = chunks.flatMap(({ choices }) => choices[0]?.logprobs?.content ?? []);
      assertEquals(streamed.map(({ token }) => token), content.map(({ token }) => token));
      const plain = await client.completions.create({
        ...GREEDY,
        prompt: QUESTION,
        max_tokens: 4,
        logprobs: 2,
      });
      const { tokens, token_logprobs, text_offset, top_logprobs } = plain.choices[0]!.logprobs!;
      assertEquals(tokens, content.map(({ token }) => token));
      assertClose("logprobs", token_logprobs!, content.map(({ logprob }) => logprob), {
        rtol: 1e-4,
        atol: 1e-5,
      });
      assertEquals(text_offset, tokens!.map((_, i) => tokens!.slice(0, i).join("").length));
      assertEquals(top_logprobs!.map((top) => Object.keys(top).length), [2, 2, 2, 2]);
    });

    await step("completions go on from text and from token ids", async () => {
      const prompts = [QUESTION, [QUESTION], engine.tokenizer.encode(QUESTION), [
        engine.tokenizer.encode(QUESTION),
      ]];
      for (const prompt of prompts) {
        const { choices, usage } = await client.completions.create({ ...GREEDY, prompt, max_tokens: 8 });
        assertEquals([choices[0]!.text, usage!.prompt_tokens], [text, 4]);
      }
      const chunks = await Array.fromAsync(
        await client.completions.create({ ...GREEDY, prompt: QUESTION, max_tokens: 8, stream: true }),
      );
      assertEquals(chunks.map(({ choices }) => choices[0]?.text ?? "").join(""), text);
    });

    await step("a document and its question are two parts of a turn", async () => {
      const parts = [{ type: "text", text: "the idle hunter" }, { type: "text", text: QUESTION }] as const;
      const inParts = await client.chat.completions.create({
        ...chat(""),
        messages: [{ role: "user", content: [...parts] }],
      });
      const inOne = await client.chat.completions.create(chat(`the idle hunter\n${QUESTION}`));
      assertEquals(inParts.choices[0]!.message.content, inOne.choices[0]!.message.content);
    });

    await step("a client that breaks a stream off ends the answer", async () => {
      const stream = await client.chat.completions.create({
        ...chat(QUESTION, { max_tokens: 250 }),
        stream: true,
      });
      for await (const { choices } of stream) if (choices[0]?.delta.content) break;
      await until(async () => {
        const metrics = await (await fetch(`${server.url}/metrics`)).text();
        return metrics.includes('longreach_answers_total{finish_reason="cancelled"} 1') &&
          metrics.includes("longreach_requests_running 0\n");
      }, "the answer is cancelled");
      assertEquals((await client.chat.completions.create(chat(QUESTION))).choices[0]!.message.content, text);
    });

    await step("errors name what is wrong, and the server lives on", async () => {
      const tooLong = await refusal(() => client.chat.completions.create(chat("lamp ".repeat(300))));
      assertEquals([tooLong.status, tooLong.code, tooLong.param], [
        400,
        "context_length_exceeded",
        "messages",
      ]);
      const tooMany = await refusal(() =>
        client.chat.completions.create(chat(QUESTION, { max_tokens: 300 }))
      );
      assertEquals([tooMany.status, tooMany.code, tooMany.param], [
        400,
        "context_length_exceeded",
        "max_tokens",
      ]);
      const other = await refusal(() => client.chat.completions.create(chat(QUESTION, { model: "gpt-4o" })));
      assertEquals([other.status, other.code, other.param], [404, "model_not_found", "model"]);
      assertEquals((await client.chat.completions.create(chat(QUESTION))).choices[0]!.message.content, text);
    });

    await step("two hundred requests, twenty at once, get their own answers, every one", async () => {
      const { lost, mixed, asked } = await mixedRequests(client, { count: 200, atOnce: 20, tokens: 2 });
      assertEquals([asked, lost, mixed], [200, [], []]);
    });

    assertEquals(server.problems, []);
  });
});
