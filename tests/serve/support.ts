/** A server on this machine, a model that needs no device, and requests as no client sends them. */
import type { Answer, AnswerOptions } from "../../chat/engine.ts";
import type { Message } from "../../data/templates.ts";
import type { Answerer } from "../../serve/requests.ts";
import { Server, type ServerOptions } from "../../serve/server.ts";

/** Answers with the words of its prompt, the last first; a word is a token. */
export class EchoModel implements Answerer {
  readonly contextSize = 4096;
  readonly vocabSize = 1000;
  readonly memoryBytes = 7;
  readonly template = { name: "no" } as Answerer["template"];
  /** Times that it was asked to answer. */
  calls = 0;
  /** Answers being written now, and the most there were at once. */
  running = 0;
  mostRunning = 0;
  /** Time at which the last answer ended early. */
  cancelledAt: number | undefined;
  /** Error that the next answers end with. */
  failure: Error | undefined;
  readonly #words: string[] = [];

  /** @param tokenMs time that each word takes; 0 for none */
  constructor(public tokenMs = 0) {}

  readonly tokenizer = { encode: (text: string) => this.#encode(text) } as unknown as Answerer["tokenizer"];

  promptOf(messages: readonly Message[]): number[] {
    return this.#encode(messages.map(({ content }) => content).join(" "));
  }

  async answer(prompt: readonly number[], options: AnswerOptions = {}): Promise<Answer> {
    this.calls++;
    this.mostRunning = Math.max(this.mostRunning, ++this.running);
    try {
      const words = prompt.map((id) => this.#words[id]!).reverse().slice(0, options.maxNewTokens);
      let text = "";
      let count = 0;
      for (const word of words) {
        await new Promise((resolve) => setTimeout(resolve, this.tokenMs));
        if (this.failure) throw this.failure;
        if (options.signal?.aborted) {
          this.cancelledAt = performance.now();
          break;
        }
        const piece = count++ === 0 ? word : ` ${word}`;
        text += piece;
        options.onText?.(piece, []);
      }
      return {
        text,
        ids: [],
        finishReason: options.signal?.aborted ? "cancelled" : "stop",
        promptTokens: prompt.length,
        cachedTokens: 0,
        completionTokens: count,
        promptSeconds: 0,
        writeSeconds: 0,
      };
    } finally {
      this.running--;
    }
  }

  #encode(text: string): number[] {
    return text.split(/\s+/).filter((word) => word !== "").map((word) => {
      if (!this.#words.includes(word)) this.#words.push(word);
      return this.#words.indexOf(word);
    });
  }
}

/** A server with a model, and what it told its owner. */
export interface TestServer {
  readonly url: string;
  readonly port: number;
  readonly problems: readonly string[];
  readonly lost: readonly Error[];
}

/** Runs `use` with a server on a free port of this machine. */
export async function withServer(
  answerer: Answerer | undefined,
  use: (server: TestServer) => Promise<void>,
  options: Partial<ServerOptions> = {},
): Promise<void> {
  const [problems, lost]: [string[], Error[]] = [[], []];
  await using server = new Server({
    hostname: "127.0.0.1",
    port: 0,
    onProblem: (text) => problems.push(text),
    onLost: (error) => lost.push(error),
    ...options,
  });
  if (answerer) server.serve({ answerer, name: "echo", defaults: { maxNewTokens: 64 } });
  await use({ url: server.url, port: Number(new URL(server.url).port), problems, lost });
}

/** Sends JSON. */
export function post(url: string, body: unknown, init: RequestInit = {}): Promise<Response> {
  return fetch(url, {
    method: "POST",
    body: typeof body === "string" ? body : JSON.stringify(body),
    ...init,
    headers: { "content-type": "application/json", ...init.headers },
  });
}

/** One question as a chat request. */
export function asking(content: string, more: object = {}): object {
  return { messages: [{ role: "user", content }], ...more };
}

/** Sends bytes as they are, and reads until the other side closes, or for some time. */
export async function exchange(port: number, text: string, waitMs = 2000): Promise<string> {
  const connection = await Deno.connect({ hostname: "127.0.0.1", port });
  const timer = setTimeout(() => connection.close(), waitMs);
  let answer = "";
  try {
    await connection.write(new TextEncoder().encode(text));
    const decoder = new TextDecoder();
    const buffer = new Uint8Array(65_536);
    for (;;) {
      const count = await connection.read(buffer);
      if (count === null) break;
      answer += decoder.decode(buffer.subarray(0, count), { stream: true });
    }
  } catch (error) {
    if (
      !(error instanceof Deno.errors.Interrupted || error instanceof Deno.errors.BadResource ||
        isReset(error))
    ) {
      throw error;
    }
  } finally {
    clearTimeout(timer);
    try {
      connection.close();
    } catch {
      // The time was up.
    }
  }
  return answer;
}

function isReset(error: unknown): boolean {
  return error instanceof Deno.errors.ConnectionReset || error instanceof Deno.errors.BrokenPipe;
}

/** Sends a body until the connection is closed, or all of `most` bytes. @returns the answer, and the bytes that were taken */
export async function sendEndless(
  port: number,
  { most, host, isChunked }: { readonly most: number; readonly host: string; readonly isChunked: boolean },
): Promise<{ answer: string; sent: number }> {
  const connection = await Deno.connect({ hostname: "127.0.0.1", port });
  const encoder = new TextEncoder();
  const length = isChunked ? "Transfer-Encoding: chunked" : `Content-Length: ${most}`;
  const spaces = " ".repeat(0x10000);
  const piece = encoder.encode(isChunked ? `10000\r\n${spaces}\r\n` : spaces);
  let [sent, answer, isClosed] = [0, "", false];
  const reading = (async () => {
    const buffer = new Uint8Array(65_536);
    try {
      for (let count; (count = await connection.read(buffer)) !== null;) {
        answer += new TextDecoder().decode(buffer.subarray(0, count));
      }
    } catch {
      // It was closed.
    }
    isClosed = true;
  })();
  try {
    const lines = [
      "POST /v1/chat/completions HTTP/1.1",
      `Host: ${host}`,
      "Content-Type: application/json",
      length,
    ];
    await connection.write(encoder.encode(`${lines.join("\r\n")}\r\n\r\n`));
    while (!isClosed && sent < most) sent += await connection.write(piece);
  } catch {
    // It was closed.
  }
  try {
    connection.close();
  } catch {
    // It is.
  }
  await reading;
  return { answer, sent };
}

/** The status of an answer as it came. */
export function statusOf(answer: string): number {
  return Number(/^HTTP\/1\.[01] (\d{3})/.exec(answer)?.[1] ?? 0);
}

/** Waits until `holds` does, at most five seconds. @throws {Error} if it never does */
export async function until(holds: () => boolean | Promise<boolean>, what: string): Promise<void> {
  const end = performance.now() + 5000;
  while (!await holds()) {
    if (performance.now() > end) throw new Error(`never: ${what}`);
    await new Promise((resolve) => setTimeout(resolve, 10));
  }
}
