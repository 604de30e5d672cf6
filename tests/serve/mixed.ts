/** Requests of all kinds at once, each with an answer that is known. */
import type OpenAI from "openai";

const WORDS = ["lamp", "hunter", "captain", "priest", "town", "archer", "saddler", "courier"];

/** Requests that got no answer, and answers that are another one's. */
export interface Mixture {
  readonly asked: number;
  readonly lost: readonly string[];
  readonly mixed: readonly string[];
}

/** Asks each question alone, then all kinds of requests for them together. */
export async function mixedRequests(
  client: OpenAI,
  { count, atOnce, tokens = 3 }: {
    readonly count: number;
    readonly atOnce: number;
    readonly tokens?: number;
  },
): Promise<Mixture> {
  const common = { model: "echo", temperature: 0, max_tokens: tokens, ignore_eos: true };
  const questions = WORDS.map((word) => `the old ${word}`);
  const whole = async (content: string) =>
    (await client.chat.completions.create({ ...common, messages: [{ role: "user", content }] })).choices[0]!
      .message
      .content;
  const kinds: readonly ((question: string) => Promise<string | null>)[] = [
    whole,
    async (content) => {
      const stream = await client.chat.completions.create({
        ...common,
        messages: [{ role: "user", content }],
        stream: true,
      });
      let text = "";
      for await (const { choices } of stream) text += choices[0]?.delta.content ?? "";
      return text;
    },
    async (prompt) => (await client.completions.create({ ...common, prompt })).choices[0]!.text,
    async (prompt) => {
      let text = "";
      for await (const { choices } of await client.completions.create({ ...common, prompt, stream: true })) {
        text += choices[0]?.text ?? "";
      }
      return text;
    },
  ];
  const answers: (string | null)[] = [];
  for (const question of questions) answers.push(await whole(question));
  const [lost, mixed]: [string[], string[]] = [[], []];
  let next = 0;
  let asked = 0;
  const worker = async () => {
    for (let number = next++; number < count; number = next++) {
      const index = (number * 5) % questions.length;
      try {
        const text = await kinds[number % kinds.length]!(questions[index]!);
        asked++;
        if (text !== answers[index]) mixed.push(`${number}: "${text}" for "${answers[index]}"`);
      } catch (error) {
        lost.push(`${number}: ${error}`);
      }
    }
  };
  await Promise.all(Array.from({ length: atOnce }, worker));
  return { asked, lost, mixed };
}
