/** Steps over which the pace is measured. */
const STEPS = 8;

/** A step's end. */
interface Mark {
  readonly time: number;
  /** Milliseconds of training alone, and tokens trained, since the run began. */
  readonly training: number;
  readonly tokens: number;
}

/** The speed of a run over its last few steps. */
export class Pace {
  /** The time at which the run began, as `performance.now()` has it. */
  readonly started = performance.now();
  /** The run's beginning or a step before the last few, and the ends of those. */
  readonly #marks: Mark[] = [{ time: this.started, training: 0, tokens: 0 }];

  /** Adds a step that has just ended: its tokens, and the milliseconds that it took. */
  add(tokens: number, milliseconds: number): void {
    const last = this.#last;
    this.#marks.push({
      time: performance.now(),
      training: last.training + milliseconds,
      tokens: last.tokens + tokens,
    });
    if (this.#marks.length > STEPS + 1) this.#marks.shift();
  }

  get #first(): Mark {
    return this.#marks[0]!;
  }

  get #last(): Mark {
    return this.#marks.at(-1)!;
  }

  /** Tokens trained since the run began. */
  get tokens(): number {
    return this.#last.tokens;
  }

  /** Milliseconds since the run began. */
  get elapsedMs(): number {
    return performance.now() - this.started;
  }

  /** Tokens per second of training alone. */
  get tokensPerSecond(): number {
    return 1000 * (this.#last.tokens - this.#first.tokens) / (this.#last.training - this.#first.training);
  }

  /** Seconds from step to step, with all that was done in between. */
  get secondsPerStep(): number {
    return (this.#last.time - this.#first.time) / 1000 / (this.#marks.length - 1);
  }
}
