/**
 * Asks a model two questions, the second about its own answer:
 *
 *     deno run --config deno.json --allow-read --allow-write --allow-env \
 *       examples/chat.ts models/long "Who wrote it?" "And when?"
 */
import { Engine, type Message } from "@longreach/longreach";

const [baseModel, ...questions] = Deno.args;
if (!baseModel || questions.length === 0) throw new Error("Usage: chat.ts MODEL QUESTION...");

using engine = await Engine.open({ baseModel });
const messages: Message[] = [];
for (const content of questions) {
  messages.push({ role: "user", content });
  const { text, cachedTokens } = await engine.answer(engine.promptOf(messages), {
    maxNewTokens: 20,
    temperature: 0,
  });
  messages.push({ role: "assistant", content: text });
  console.log(`${content}\n${text}\n(${cachedTokens} tokens were in the cache)`);
}
