/** Writing one token after another: the device's time for one, by the length of what stands before it. */
import type { CacheFormat } from "../kernels/cache_attention/cache_rows.ts";
import type { Gpu } from "../kernels/gpu.ts";
import { Decoder } from "../model/decoder.ts";
import { generate } from "../model/generate.ts";
import { kvCacheBytes } from "../model/kv_cache.ts";
import type { LanguageModel } from "../model/language_model.ts";
import { randomModel } from "../model/load/random.ts";
import { randomIds } from "./inputs.ts";
import { baseConfig } from "./step.ts";
import type { Case } from "./suites/case.ts";

/** Tokens before the one that is written. */
const CONTEXTS = { demo: [256, 1024], real: [1024, 4096, 16384] } as const;
/** Room for the tokens that are written while measuring. */
const ROOM = 4096;
/** Tokens written in a whole answer, and of the prompt before it. */
const ANSWER = { prompt: 32, tokens: 64 } as const;
const SAMPLING = { temperature: 1, topK: 0, topP: 1, minP: 0, repetitionPenalty: 1, seed: 1 } as const;

/** A model of random weights in NF4 to write with. @param shape a name of model/shapes.ts, or `demo` */
export async function decodeModel(gpu: Gpu, shape: string): Promise<LanguageModel> {
  return await randomModel(gpu, await baseConfig(shape), {
    format: shape === "demo" ? "f32" : "bf16",
    quantisation: "nf4-double",
  });
}

/**
 * The step that draws a token and runs it through the layers, with a cache in the activations' format and one in 8 bits; it can
 * be no faster than reading the weights and the cache.
 */
export function decodeCases(model: LanguageModel, shape: string): Case[] {
  const lengths = CONTEXTS[shape === "demo" ? "demo" : "real"];
  const cacheFormats: readonly CacheFormat[] = [model.parts.format, "q8"];
  return lengths.flatMap((length) =>
    cacheFormats.map((cacheFormat) => decodeCase(model, shape, length, cacheFormat))
  );
}

function decodeCase(model: LanguageModel, shape: string, length: number, cacheFormat: CacheFormat): Case {
  const capacity = length + ROOM;
  const work = (): Decoder => new Decoder(model, { capacity, cacheFormat });
  return {
    suite: "decode",
    op: "one token",
    shape: `${shape}, after ${length}`,
    format: `nf4, x ${model.parts.format}, cache ${cacheFormat}`,
    flops: 0,
    bytes: bytesOf(work, length),
    memory: kvCacheBytes(model.config, { sequences: 1, capacity, format: cacheFormat }),
    prepare(gpu) {
      const decoder = work();
      decoder.fillRandomly(length);
      const drawn = gpu.empty([1], "u32", "drawn token");
      return {
        run() {
          decoder.sample(SAMPLING, drawn, 0);
          decoder.advance();
        },
        free() {
          decoder.free();
          drawn.free();
        },
      };
    },
  };
}

function bytesOf(work: () => Decoder, length: number): number {
  const decoder = work();
  decoder.fillRandomly(length);
  const bytes = decoder.stepBytes();
  decoder.free();
  return bytes;
}

/** Tokens per second of a whole answer on the clock, reading them included; the second of two answers. */
export async function answerRate(model: LanguageModel): Promise<number> {
  const prompt = randomIds(ANSWER.prompt, model.config.vocab_size);
  let rate = 0;
  for (let i = 0; i < 2; i++) {
    const start = performance.now();
    await generate(model, prompt, { maxNewTokens: ANSWER.tokens, stopIds: [], seed: i });
    rate = 1000 * ANSWER.tokens / (performance.now() - start);
  }
  return rate;
}
