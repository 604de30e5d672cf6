/** Logprobs of an answer's tokens, told with the text that they belong to. */
import type { TokenLogprob } from "../model/logprobs.ts";
import { type TextStream, UNFINISHED } from "./text_stream.ts";

/** A token as text, and the natural logarithm of its probability. */
export interface TextLogprob {
  /** The text that it adds; U+FFFD where it is a part of a character. */
  readonly text: string;
  /** At most 0; minus infinity for a token that cannot come. */
  readonly logprob: number;
}

/** A token of an answer, and the likeliest at its place. */
export interface AnswerLogprob extends TextLogprob {
  /** The likeliest first. */
  readonly top: readonly TextLogprob[];
}

/** Holds logprobs back for as long as the text of their tokens is. */
export class LogprobQueue {
  readonly #waiting: { readonly logprob: AnswerLogprob; readonly start: number; readonly end: number }[] = [];
  #length = 0;

  /** Takes the logprobs of the token that `stream` is given next. */
  add({ id, logprob, top }: TokenLogprob, stream: TextStream): void {
    const start = this.#length;
    const added = stream.peek(id, { skipSpecial: true });
    if (!added.endsWith(UNFINISHED)) this.#length += added.length;
    this.#waiting.push({
      logprob: {
        text: stream.peek(id),
        logprob,
        top: top.map((other) => ({ text: stream.peek(other.id), logprob: other.logprob })),
      },
      start,
      end: this.#length,
    });
  }

  /** Those whose tokens are among the first `shown` characters; with `isLast` also one that is there in part. */
  take(shown: number, isLast: boolean): AnswerLogprob[] {
    const from = this.#waiting.findIndex(({ start, end }) =>
      isLast ? start >= shown && end > shown : end > shown
    );
    return this.#waiting.splice(0, from < 0 ? this.#waiting.length : from).map(({ logprob }) => logprob);
  }
}
