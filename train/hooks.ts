import type { DataPreview } from "../data/preview.ts";
import type { Communicator } from "../distributed/communicator.ts";
import type { GpuOptions } from "../kernels/gpu.ts";
import type { WorkHooks } from "../model/hooks.ts";

/** Hooks: a training run's reports to its caller, and its questions. The library itself prints nothing. */

/** A run as it is about to start: for the summary in front of the progress line. */
export interface TrainInfo {
  /** Folder or name of the base model. */
  readonly model: string;
  /** The extension, in words: `256 -> 1,024 tokens, positions linear by 4`. */
  readonly context: string;
  /** Attention while training, in words: `S2-Attn in 4 groups of 256`. */
  readonly attention: string;
  /** Learning rate, schedule and optimiser, in words. */
  readonly schedule: string;
  /** Seed of everything random. */
  readonly seed: number;
  /** Folder of the results. */
  readonly outputDir: string;
  /** Trained parameters, in words: `LoRA rank 64 on 224 linears, embed_tokens, norms`. */
  readonly method: string;
  /** Training data, in words: `1,204 sequences of 8,192 tokens from train.jsonl`. */
  readonly data: string;
  /** The adapter's name, and its driver where known. */
  readonly device: string;
  /** Planned memory, in words: `8.66 GiB on the device at the peak (backward, layer 32)`. */
  readonly memory: string;
  /** Planned bytes on the device at the peak. */
  readonly plannedBytes: number;
  /** `f32`, `bf16` or `fp16`. */
  readonly precision: string;
  /** Numbers the optimiser changes. */
  readonly trainableParameters: number;
  /** Numbers in the whole model, adapter included. */
  readonly totalParameters: number;
  /** Sequences in one optimiser step. */
  readonly sequencesPerStep: number;
  /** Tokens in one where all sequences are as long as they may be. */
  readonly tokensPerStep: number;
  /** Optimiser steps of the whole run. */
  readonly totalSteps: number;
  /** Passes over the data of the whole run, as a fraction. */
  readonly totalEpochs: number;
  /** Step the run goes on from; 0 for a fresh run. */
  readonly startStep: number;
}

/** One optimiser step, just done. */
export interface StepMetrics {
  /** Steps done, this one included: 1 after the first. */
  readonly step: number;
  /** Optimiser steps of the whole run. */
  readonly totalSteps: number;
  /** Passes over the data done, as a fraction. */
  readonly epoch: number;
  /** Mean negative log-likelihood per target token of this step, in nats. */
  readonly loss: number;
  /** Learning rate of this step. */
  readonly learningRate: number;
  /** Global norm of the gradient before clipping. */
  readonly gradNorm: number;
  /** Tokens trained per second, over the last few steps; evaluating and saving do not count. */
  readonly tokensPerSecond: number;
  /** Bytes on the GPU now. */
  readonly memoryBytes: number;
  /** Bytes on the GPU at most so far. */
  readonly peakBytes: number;
  /** Seconds to the end of the run at the present pace. */
  readonly etaSeconds: number;
  /** Steps left out so far because loss or gradient was not finite. */
  readonly skippedSteps: number;
  /** Milliseconds since the run (or its resumption) started. */
  readonly elapsedMs: number;
}

/** Result of a run. */
export interface TrainResult {
  /** Folder that holds the final adapter or model. */
  readonly outputDir: string;
  /** Steps done, those of earlier runs that this one resumed included. */
  readonly steps: number;
  /** Steps of the whole run. */
  readonly totalSteps: number;
  /** Whether {@linkcode TrainHooks.shouldStop} ended the run before its last step. */
  readonly stopped: boolean;
  /** The lowest loss on eval_file and its step; `null` where nothing was evaluated. */
  readonly bestEvaluation: { readonly step: number; readonly loss: number } | null;
  /** The last loss on eval_file. */
  readonly evalLoss: number | null;
  /** Loss of the last step, in nats per target token; `null` when no step was done. */
  readonly loss: number | null;
  /** Mean loss over the steps of this run. */
  readonly trainLoss: number | null;
  /** Steps left out because loss or gradient was not finite. */
  readonly skippedSteps: number;
  /** Target tokens trained in this run. */
  readonly tokens: number;
  /** Milliseconds of this run. */
  readonly elapsedMs: number;
  /** Most bytes held on the device. */
  readonly peakBytes: number;
  /** The same as planned. */
  readonly plannedBytes: number;
}

/** Callbacks of a run, all optional. They are called between steps and must not throw. */
export interface TrainHooks {
  /** Called once, before {@linkcode TrainHooks.onStart}, with what of the data the model will learn. */
  onData?(preview: DataPreview): void;
  /** Called once, when model and data are loaded and the first step is about to start. */
  onStart?(info: TrainInfo): void;
  /** Called when new kernels go to the device, which compiles them first, with their number so far. */
  onCompile?(kernels: number): void;
  /** Called after every optimiser step. */
  onStep?(metrics: StepMetrics): void;
  /** Called after an evaluation with its loss in nats per target, and whether none was lower before. */
  onEvaluate?(step: number, loss: number, isBest: boolean): void;
  /** Called when a checkpoint, or the result, is safely on disk. */
  onSave?(path: string): void;
  /** Called with something the user should know: one line, without a full stop. */
  note?(line: string): void;
  /**
   * Finds, or fetches, a model or data set that the settings name. @returns its path; names are paths unless given
   */
  locate?(place: string, kind: "model" | "dataset"): Promise<string>;
  /** Called after the last call of `locate`. */
  onLocated?(): void;
  /** The user's folder for what can be made again; nothing is kept there unless given. */
  readonly cacheFolder?: string | undefined;
  /**
   * The ranks that train together, each by a call of its own; one unless given. Of them the first alone writes, and calls
   * what tells and asks the user; all call {@linkcode TrainHooks.onStart} and {@linkcode TrainHooks.shouldStop}.
   */
  readonly ranks?: Communicator;
  /** Options that the device is opened with, `max_memory` aside; its defaults unless given. */
  readonly gpuOptions?: GpuOptions;
  /**
   * Called when the last save of a run has failed for the n-th time, on a full disk for instance. Waits, and returns
   * whether to try again; it is not tried again unless given.
   */
  waitForRoom?(failures: number): Promise<boolean>;
  /** Called between steps: true makes the run save and end; it goes on to its last step unless given. */
  shouldStop?(): boolean;
}

/** Callbacks of work in several parts (the demo): progress of each part, and lines between them. */
export interface StageHooks {
  note(line: string): void;
  /** Runs `run` with the hooks of a training run; `loggingSteps` are the steps between printed lines. */
  training<T>(loggingSteps: number, run: (hooks: TrainHooks) => Promise<T>): Promise<T>;
  /** Runs `run` with hooks that count `unit`s. */
  counting<T>(unit: string, run: (hooks: WorkHooks) => Promise<T>): Promise<T>;
  /** Asked after a training: throws if the user stopped it, so that no further part begins; `whatNow` says how to go on. */
  endIfStopped(whatNow: string): void;
}
