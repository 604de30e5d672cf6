/** A model's own chat template: `@huggingface/jinja` renders it and is used nowhere else. */
import { Template } from "@huggingface/jinja";
import { UserError } from "../errors.ts";
import type { ChatTemplate, Message, Segment, SpecialTokens } from "./templates.ts";

/**
 * A Jinja chat template as `tokenizer_config.json` holds it. What is learnt of an answer is found by rendering the
 * conversation up to it, with the cue to answer, and through it: no markers are searched for, so text that looks like
 * one changes nothing.
 *
 * @throws {UserError} if the template cannot be parsed
 */
export function jinjaTemplate(source: string, { bos, eos, named }: SpecialTokens): ChatTemplate {
  let template: Template;
  try {
    template = new Template(source);
  } catch (cause) {
    throw new UserError(`Cannot use the model's chat template: ${(cause as Error).message}`, { cause });
  }
  const render = (messages: readonly Message[], add_generation_prompt: boolean): string => {
    try {
      return template.render({ messages, add_generation_prompt, ...named, bos_token: bos, eos_token: eos });
    } catch (cause) {
      throw new UserError(`Cannot render the model's chat template: ${(cause as Error).message}`, { cause });
    }
  };
  // transformers tokenizes what a template writes as it is: a template writes bos_token itself, or means none.
  return { name: "model", bos: false, render: (messages) => segmentsOf(messages, render) };
}

function segmentsOf(
  messages: readonly Message[],
  render: (messages: readonly Message[], cue: boolean) => string,
): Segment[] {
  const whole = render(messages, false);
  const segments: Segment[] = [];
  let at = 0;
  for (const [i, { role }] of messages.entries()) {
    if (role !== "assistant") continue;
    const start = commonPrefix(render(messages.slice(0, i), true), whole);
    const end = commonPrefix(render(messages.slice(0, i + 1), false), whole);
    if (start < at || end <= start) {
      throw new UserError(
        "Cannot find the answers in what the model's chat template writes: it changes earlier turns when later ones " +
          "follow. Set chat_template to one of the built-in templates",
      );
    }
    segments.push({ text: whole.slice(at, start), isTarget: false });
    segments.push({ text: whole.slice(start, end), isTarget: true });
    at = end;
  }
  if (at < whole.length) segments.push({ text: whole.slice(at), isTarget: false });
  return segments.filter(({ text }) => text !== "");
}

function commonPrefix(a: string, b: string): number {
  let length = 0;
  while (length < a.length && a[length] === b[length]) length++;
  return length;
}
