/** Progress of a long piece of work: one line drawn again on a terminal, plain lines with the time elsewhere. */
import { formatBytes, formatCount, formatRate, formatSeconds, formatSmall } from "../text.ts";
import { formatPreview } from "./preview.ts";
import type { DataPreview } from "../data/preview.ts";
import cliProgress from "cli-progress";
import type { WorkHooks } from "../model/hooks.ts";
import type { StepMetrics, TrainHooks, TrainInfo } from "../train/hooks.ts";
import { stepsBetween } from "../train_args/schema.ts";
import { formatRecord, paint } from "./format.ts";
import type { Io } from "./io.ts";
import { visible } from "./visible.ts";

/** Longest silence where nothing can be drawn again, in milliseconds. */
const LONGEST_SILENCE_MS = 60_000;
/** Between two rows that stay on a terminal. */
const KEEP_EVERY_MS = 2_000;
/** Width of the bar itself, in characters. */
const BAR_WIDTH = 16;

/** The time now in milliseconds; tests hand in their own. */
export type Clock = () => number;

/** One line of progress; create it with {@linkcode createProgress}. */
export interface Progress {
  /**
   * `done` of the total so far; `fields` go behind the bar, the most important first. `print` shows it now, however
   * short ago the last time was.
   */
  update(done: number, fields: readonly string[], options?: { readonly print?: boolean }): void;
  /** A line above the progress line. */
  note(line: string): void;
  /** The last drawing. Must be called, or the process stays alive. */
  stop(): void;
}

/**
 * Progress over `total` units called `unit`.
 *
 * On a terminal the line is drawn again up to ten times a second. Elsewhere `update` prints a line when `print` is
 * set, and after a minute of silence the latest line is printed in any case.
 */
export function createProgress(io: Io, unit: string, total: number, clock: Clock = Date.now): Progress {
  return io.isTerminal ? new DrawnProgress(io, unit, total) : new PrintedProgress(io, unit, total, clock);
}

class DrawnProgress implements Progress {
  readonly #bar;

  constructor(readonly io: Io, readonly unit: string, readonly total: number) {
    this.#bar = new cliProgress.SingleBar({
      format: (_: unknown, params: { value: number }, payload: { fields: readonly string[] }) =>
        this.#line(params.value, payload.fields),
      terminal: terminalOf(io),
      gracefulExit: false,
    });
    this.#bar.start(total, 0, { fields: [] });
  }

  update(done: number, fields: readonly string[], { print = false } = {}): void {
    this.#bar.update(done, { fields });
    if (print) this.#bar.render();
  }

  note(line: string): void {
    this.io.draw("\r\u001b[K");
    this.io.err(line);
    this.#bar.lastDrawnString = "";
    this.#bar.render();
  }

  stop(): void {
    this.#bar.stop();
  }

  /** As many fields as the terminal's width holds: a line that wraps could not be drawn again. */
  #line(done: number, fields: readonly string[]): string {
    const share = this.total > 0 ? Math.min(1, done / this.total) : 1;
    const full = Math.round(share * BAR_WIDTH);
    const bar = "█".repeat(full) + "░".repeat(BAR_WIDTH - full);
    const room = this.io.columns() - 1;
    const line = fitting(
      `${bar} ${this.unit} ${done}/${this.total}`,
      fields.map((each) => visible(each)),
      room,
    );
    return paint(line.slice(0, Math.min(room, BAR_WIDTH)), "cyan", this.io.color) +
      line.slice(BAR_WIDTH, room);
  }
}

/** As many fields behind a line's head as fit into `room` characters. */
function fitting(head: string, fields: readonly string[], room: number): string {
  let line = head;
  for (const field of fields) {
    if (line.length + 2 + field.length > room) break;
    line += `  ${field}`;
  }
  return line;
}

/** The terminal as cli-progress sees it, without its cursor jumps, which go wrong once lines above have scrolled. */
function terminalOf(io: Io) {
  const nothing = () => {};
  return {
    isTTY: () => true,
    getWidth: () => io.columns(),
    write: (text: string) => io.draw(text),
    newline: () => io.draw("\n"),
    cursorTo: () => io.draw("\r"),
    clearRight: () => io.draw("\u001b[K"),
    clearLine: () => io.draw("\r\u001b[K"),
    cursor: nothing,
    cursorSave: nothing,
    cursorRestore: nothing,
    lineWrapping: nothing,
  };
}

class PrintedProgress implements Progress {
  #latest: string | null = null;
  #printedAt: number;
  readonly #timer: ReturnType<typeof setInterval>;

  constructor(readonly io: Io, readonly unit: string, readonly total: number, readonly clock: Clock) {
    this.#printedAt = clock();
    this.#timer = setInterval(() => this.#breakSilence(), 1000);
  }

  update(done: number, fields: readonly string[], { print = false } = {}): void {
    this.#latest = [`${this.unit} ${done}/${this.total}`, ...fields].join("  ");
    if (print) this.#print();
    else this.#breakSilence();
  }

  note(line: string): void {
    this.io.err(`${this.#time()} ${line}`);
  }

  stop(): void {
    clearInterval(this.#timer);
  }

  #breakSilence(): void {
    if (this.clock() - this.#printedAt >= LONGEST_SILENCE_MS) this.#print();
  }

  #print(): void {
    this.#printedAt = this.clock();
    this.io.err(`${this.#time()} ${this.#latest ?? `${this.unit} 0/${this.total}`}`);
  }

  /** UTC, as `2026-11-20T11:30:00Z`. */
  #time(): string {
    return new Date(this.clock()).toISOString().replace(/\.\d+Z$/, "Z");
  }
}

/** The hooks of a training run as progress on stderr; {@linkcode TrainHooks.shouldStop} is the caller's. */
export class TrainProgress implements Omit<TrainHooks, "shouldStop"> {
  #progress: Progress | null = null;
  #startStep = 0;
  #stepsDone = false;
  #compiles = false;
  #keptAt = -Infinity;
  #loggingSteps: number;

  /** @param loggingSteps steps between printed lines where nothing can be drawn again; below 1: a share of all steps */
  constructor(readonly io: Io, loggingSteps: number, readonly clock: Clock = Date.now) {
    this.#loggingSteps = loggingSteps;
  }

  onStart(info: TrainInfo): void {
    const { trainableParameters: trained, totalParameters: all, sequencesPerStep: sequences } = info;
    this.io.err(formatRecord({
      model: info.model,
      context: `${info.context}, ${info.attention}`,
      training: `${info.method} (${formatCount(trained)} of ${formatCount(all)} numbers, ${
        (100 * trained / all).toPrecision(3)
      } %)`,
      data: info.data,
      steps: `${formatCount(info.totalSteps)} of ${formatCount(sequences)} ` +
        `${sequences === 1 ? "sequence" : "sequences"}, up to ${formatCount(info.tokensPerStep)} tokens; ` +
        `${Number(info.totalEpochs.toFixed(2))} epochs, seed ${info.seed}` +
        (info.startStep > 0 ? `, going on from step ${formatCount(info.startStep)}` : ""),
      "learning rate": info.schedule,
      device: `${info.device}, activations in ${info.precision}`,
      memory: info.memory,
      output: info.outputDir,
    }));
    this.#progress = createProgress(this.io, "step", info.totalSteps, this.clock);
    this.#startStep = info.startStep;
    this.#loggingSteps = stepsBetween(this.#loggingSteps, info.totalSteps);
    this.#progress.update(info.startStep, []);
  }

  /**
   * Shown until the first step is done: what comes later is a kernel or two, and seldom. One line where nothing can be
   * drawn again.
   */
  onCompile(kernels: number): void {
    if (this.#stepsDone || !this.#progress) return;
    const print = this.io.isTerminal || !this.#compiles;
    this.#compiles = true;
    const what = this.io.isTerminal ? `compiling kernels (${kernels})` : "compiling kernels";
    this.#progress.update(this.#startStep, [what], { print });
  }

  onStep(metrics: StepMetrics): void {
    this.#stepsDone = true;
    const { step, totalSteps } = metrics;
    const print = step % this.#loggingSteps === 0 || step === totalSteps;
    this.#progress?.update(step, stepFields(metrics), { print });
    if (print) this.#keep(metrics);
  }

  /** Leaves a row on a terminal, whose line is drawn over: the first and last step, and others as time goes by. */
  #keep({ step, totalSteps, ...metrics }: StepMetrics): void {
    const now = this.clock();
    const isDue = now - this.#keptAt >= KEEP_EVERY_MS || step === totalSteps;
    if (!this.io.isTerminal || !isDue) return;
    this.#keptAt = now;
    const width = String(totalSteps).length;
    const fields = [
      `loss ${metrics.loss.toFixed(4)}`,
      `lr ${formatSmall(metrics.learningRate)}`,
      `norm ${metrics.gradNorm.toPrecision(3)}`,
      `${formatRate(metrics.tokensPerSecond)} tok/s`,
      formatSeconds(metrics.elapsedMs / 1000),
    ];
    const head = `step ${String(step).padStart(width)}/${totalSteps}`;
    this.note(fitting(head, fields, this.io.columns() - 1));
  }

  onData(preview: DataPreview): void {
    this.io.err(formatPreview(preview, this.io.color));
  }

  onEvaluate(step: number, loss: number, isBest: boolean): void {
    const when = step === 0 ? "before the first step" : `after step ${formatCount(step)}`;
    const perplexity = Math.exp(loss).toPrecision(4);
    this.note(
      `eval_loss ${loss.toFixed(4)} ${when}, perplexity ${perplexity}${
        isBest && step > 0 ? ", the best so far" : ""
      }`,
    );
  }

  onSave(path: string): void {
    this.note(`saved ${path}`);
  }

  note(line: string): void {
    if (this.#progress) this.#progress.note(line);
    else this.io.err(line);
  }

  /** Ends the line; safe to call twice. */
  stop(): void {
    this.#progress?.stop();
    this.#progress = null;
  }
}

/** The most important first: a narrow terminal shows only as many as fit. */
function stepFields(m: StepMetrics): string[] {
  return [
    `loss ${m.loss.toFixed(4)}`,
    timeLeft(m.etaSeconds, m.elapsedMs / 1000, m.step === m.totalSteps),
    `${formatRate(m.tokensPerSecond)} tok/s`,
    `peak ${formatBytes(m.peakBytes)}`,
    `lr ${formatSmall(m.learningRate)}`,
    `norm ${m.gradNorm.toPrecision(3)}`,
    `epoch ${m.epoch.toFixed(2)}`,
    ...(m.skippedSteps > 0 ? [`skipped ${m.skippedSteps}`] : []),
  ];
}

/** Seconds to the end, or at the end those that it took. */
function timeLeft(left: number, taken: number, isDone: boolean): string {
  return isDone ? `took ${formatSeconds(taken)}` : `eta ${formatSeconds(left)}`;
}

/** Hooks of work that counts units, as evaluating windows or merging tensors. */
export class CountProgress implements WorkHooks {
  #progress: Progress | null = null;
  #startedAt = 0;
  #total = 0;

  constructor(readonly io: Io, readonly unit: string, readonly clock: Clock = Date.now) {}

  /** `done` of `total` units; `detail` is shown beside them. */
  onProgress = (done: number, total: number, detail?: string): void => {
    if (this.#progress === null || total !== this.#total) {
      this.stop();
      this.#progress = createProgress(this.io, this.unit, total, this.clock);
      this.#startedAt = this.clock();
      this.#total = total;
    }
    const taken = (this.clock() - this.#startedAt) / 1000;
    const left = done > 0 ? taken / done * (total - done) : NaN;
    const fields = [...(detail ? [detail] : []), timeLeft(left, taken, done === total)];
    this.#progress.update(done, fields, { print: done === total });
  };

  note = (line: string): void => {
    if (this.#progress) this.#progress.note(line);
    else this.io.err(line);
  };

  /** Ends the line; safe to call twice. */
  stop(): void {
    this.#progress?.stop();
    this.#progress = null;
  }
}
