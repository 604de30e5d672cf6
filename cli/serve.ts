/** `serve`: a model behind OpenAI's API, and a page to talk with it. */
import { basename } from "../checkpoint/deps.ts";
import { bytes, oneOf, text, whole } from "../train_args/values.ts";
import { MOST_TOKENS, openEngine, samplingOf, withAnswerFlags } from "./answer_flags.ts";
import { type BuiltCommand, newCommand, optionalFlag, valueFlag } from "./flags.ts";
import { formatJson } from "./format.ts";
import { describeAnswer } from "./inference.ts";
import type { Io } from "./io.ts";
import { narrowFetched, narrowListening } from "./permissions.ts";
import { Interrupted, untilSignal } from "./stop_signal.ts";

/** Addresses of this machine alone, and those that mean all that it has. */
const HOSTS = ["127.0.0.1", "localhost", "::1", "0.0.0.0", "::"];

/** The command: it ends with a signal. */
export function build(summary: string, io: Io): BuiltCommand {
  return withAnswerFlags(newCommand("serve", summary, io, {
    examples: [
      "serve --base_model models/long",
      "serve --base_model org/model --peft_model output/long --port 8080",
      "serve --base_model models/long --host 0.0.0.0 --api_key A-LONG-SECRET-OF-YOURS",
    ],
  }))
    .addOption(
      valueFlag("host", "address to listen on; 0.0.0.0 and :: need a key", oneOf(HOSTS), "127.0.0.1"),
    )
    .addOption(valueFlag("port", "port to listen on; 0 takes a free one", whole(0, 65_535), 8000))
    .addOption(
      optionalFlag("api_key", "what clients must send, 16 characters or more", text("key"), "none").env(
        "LONGREACH_API_KEY",
      ),
    )
    .addOption(
      optionalFlag(
        "allowed_hosts",
        "names that clients may call it by, as behind a proxy: a.b,c.d:80",
        text("names"),
        "none",
      ),
    )
    .addOption(
      optionalFlag(
        "served_model_name",
        "the model's name for clients",
        text("name"),
        "the last part of its folder's",
      ),
    )
    .addOption(
      valueFlag("queue_size", "requests that may wait; others are told to come later", whole(0, 10_000), 8),
    )
    .addOption(valueFlag("max_messages", "most messages of a conversation", whole(1, 1e6), 100))
    .addOption(
      optionalFlag(
        "max_body",
        "longest body of a request",
        bytes(),
        "16 bytes for each token of the context, 1MiB at least",
      ),
    )
    .addOption(
      valueFlag("max_document", "longest body with a PDF", bytes(), 2 ** 25).default(2 ** 25, "32MiB"),
    )
    .action(async ({ json, ...flags }) => {
      const { Server } = await import("../serve/server.ts");
      const { promise: lost, reject: onLost } = Promise.withResolvers<never>();
      lost.catch(() => {});
      await using server = new Server({
        hostname: flags.host,
        port: flags.port,
        apiKey: flags.api_key,
        allowedHosts: namesIn(flags.allowed_hosts),
        queueSize: flags.queue_size,
        maxMessages: flags.max_messages,
        maxBodyBytes: flags.max_body,
        maxDocumentBytes: flags.max_document,
        onAnswer: (answer, seed) => io.err(describeAnswer(answer, seed)),
        onProblem: (text) => io.err(text),
        onLost,
      });
      narrowListening();
      using engine = await openEngine(io, flags);
      narrowFetched();
      const { seed, ...sampling } = samplingOf(flags);
      const name = flags.served_model_name ?? basename(flags.peft_model ?? flags.base_model);
      server.serve({
        answerer: engine,
        name,
        defaults: {
          ...sampling,
          ...(flags.seed === null ? {} : { seed }),
          maxNewTokens: flags.max_gen_len ?? MOST_TOKENS,
        },
      });
      if (json) io.out(formatJson({ url: server.url, model: name }));
      io.err(`${name} answers on ${server.url} (page) and ${server.url}/v1 (API). Ctrl-C ends it`);
      const signal = await untilSignal(io, lost);
      io.err("Ending");
      await server[Symbol.asyncDispose]();
      throw new Interrupted(signal, "answers in flight were ended", { isTold: true });
    });
}

/** Names of a list with commas. */
function namesIn(list: string | null): string[] {
  return (list ?? "").toLowerCase().split(",").map((name) => name.trim()).filter((name) => name !== "");
}
