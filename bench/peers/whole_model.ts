/** Contests of a whole LLaMA: reading a prompt, and writing tokens after it. */
import { Gpu } from "../../kernels/gpu.ts";
import { METHODS } from "../../kernels/quantisation.ts";
import { Decoder } from "../../model/decoder.ts";
import { continueAll } from "../../model/generate.ts";
import type { LanguageModel } from "../../model/language_model.ts";
import { assembleModel } from "../../model/load/assemble.ts";
import type { ModelConfig } from "../../model/model_config.ts";
import { linearsOf } from "../../model/tensors.ts";
import { randomIds } from "../inputs.ts";
import type { Contest } from "./contest.ts";
import type { Entrant } from "./entrant.ts";
import { type HostModel, hostModel, type ModelFormat } from "./host_model.ts";
import { llamaGraph } from "./llama_graph.ts";
import { bytesOf, OnnxDecoder } from "./onnxruntime.ts";

/** A model, and the tokens of a contest. */
export interface WholeModel {
  /** As the tables call it. */
  readonly name: string;
  readonly config: ModelConfig;
  /** 4 bits: our NF4 and the peer's whole numbers, of the same values. The head, which we hold in f32, is in 4 bits there too. */
  readonly format: ModelFormat;
  /** Tokens of the prompt. */
  readonly prompt: number;
}

/** Tokens that are written after the prompt. */
const WRITTEN = 16;
/** In f16 sums of other orders differ in the third digit. */
const F16_TOLERANCE = 0.02;
const GREEDY = { temperature: 0, topK: 0, topP: 1, minP: 0, repetitionPenalty: 1, seed: 0 } as const;

/** From a prompt to the logits of the token after it, on the host. */
export function prefillContest(whole: WholeModel): Contest {
  return contestOf(whole, "prefill", whole.prompt, async (host, ids) => {
    const [ours, peer] = [await ourModel(host, whole), await theirModel(host, whole)];
    const ourLogits = async () => {
      ours.decoder.truncate(0, 0);
      ours.decoder.prefill(0, ids);
      return await logitsOf(ours.decoder);
    };
    return [
      repeated(ours, ourLogits),
      repeated(peer, () => peer.decoder.logits(ids, 0)),
    ];
  });
}

/** Tokens after a prompt that is in the cache: the likeliest each time, all of which the host gets. */
export function decodeContest(whole: WholeModel): Contest {
  return contestOf(whole, "decode", WRITTEN, async (host, ids) => {
    const [last, before] = [ids.at(-1)!, ids.length - 1];
    const [ours, peer] = [await ourModel(host, whole), await theirModel(host, whole)];
    ours.decoder.prefill(0, ids);
    await peer.decoder.logits(ids, 0);
    const write = async () => {
      ours.decoder.truncate(0, before);
      ours.decoder.prefill(0, [last]);
      const [written] = await continueAll(ours.decoder, { ...GREEDY, maxNewTokens: WRITTEN, stopIds: [] });
      return Float32Array.from(written!);
    };
    const theyWrite = async () => {
      const written = [last];
      for (let i = 0; i < WRITTEN; i++) {
        written.push(likeliest(await peer.decoder.logits(written.slice(-1), before + i)));
      }
      return Float32Array.from(written.slice(1));
    };
    if (whole.format !== "f16") return [repeated(ours, write), repeated(peer, theyWrite)];
    // Of two likely tokens rounding may choose either: what is compared is the logits behind the prompt's last token.
    const ourLogits = async () => {
      ours.decoder.truncate(0, before);
      ours.decoder.prefill(0, [last]);
      return await logitsOf(ours.decoder);
    };
    return [
      repeated(ours, write, ourLogits),
      repeated(peer, theyWrite, () => peer.decoder.logits([last], before)),
    ];
  });
}

/** @param enter makes the entrants for the model's weights and a prompt */
function contestOf(
  { name, config, format, prompt }: WholeModel,
  what: "prefill" | "decode",
  tokens: number,
  enter: (host: HostModel, ids: readonly number[]) => Promise<Entrant[]>,
): Contest {
  return {
    op: `${what} ${format}`,
    shape: `${name}, ${what === "prefill" ? prompt : `after ${prompt}`}`,
    flops: flopsOf(
      config,
      what === "prefill" ? { tokens, before: 0, heads: 1 } : { tokens, before: prompt, heads: tokens },
    ),
    tokens,
    ...(format === "f16" ? { tolerance: F16_TOLERANCE } : {}),
    goals: { onnxruntime: 2 },
    enter: () => enter(hostModel(config, format), Array.from(randomIds(prompt, config.vocab_size))),
  };
}

/** Products of the layers and of `heads` rows of logits, and attention. */
function flopsOf(
  config: ModelConfig,
  { tokens, before, heads }: { readonly tokens: number; readonly before: number; readonly heads: number },
): number {
  const { vocab_size, hidden_size, num_hidden_layers, num_attention_heads, head_dim } = config;
  const weights = [...linearsOf(config).values()].reduce((sum, { shape: [N, K] }) => sum + N * K, 0);
  const scores = tokens * before + tokens * (tokens + 1) / 2;
  return 2 * weights * tokens + 2 * heads * vocab_size * hidden_size +
    4 * num_hidden_layers * num_attention_heads * head_dim * scores;
}

interface Player<T> {
  readonly name: string;
  readonly decoder: T;
  free(): Promise<void>;
}

/** The model on a device of its own, which goes with it. */
async function ourModel(host: HostModel, { prompt }: WholeModel): Promise<Player<Decoder>> {
  const gpu = await Gpu.open();
  const decoder = new Decoder(await load(gpu, host), { capacity: prompt + WRITTEN });
  return {
    name: "longreach",
    decoder,
    free() {
      gpu.close();
      return Promise.resolve();
    },
  };
}

async function theirModel(host: HostModel, { prompt }: WholeModel): Promise<Player<OnnxDecoder>> {
  const capacity = prompt + WRITTEN;
  const decoder = await OnnxDecoder.open(llamaGraph(host, capacity), capacity);
  return { name: decoder.name, decoder, free: () => decoder.free() };
}

/** Uploads the weights, ternary linears as NF4. */
async function load(gpu: Gpu, { config, format, matrices, norms }: HostModel): Promise<LanguageModel> {
  const dtype = format === "f16" ? "f16" : "f32";
  const valuesOf = (name: string) => {
    const { data } = matrices.get(name)!;
    return dtype === "f32" ? data : bytesOf(Float16Array.from(data));
  };
  const matrix = (name: string) =>
    gpu.tensor(matrices.get(name)!.shape, valuesOf(name), { dtype, label: name });
  return await assembleModel(gpu, config, dtype, {
    table: (name) => Promise.resolve(matrix(name)),
    vector(name) {
      const { shape, data } = norms.get(name)!;
      return Promise.resolve(gpu.tensor(shape, data, { label: name }));
    },
    formOf: (name) => matrices.get(name)!.ternary ? "nf4" : dtype,
    matrices(wanted) {
      const rooms = wanted.map(({ name, shape }) => ({ shape, label: name }));
      if (!matrices.get(wanted[0]!.name)!.ternary) {
        const tensors = gpu.emptyTogether(rooms, dtype);
        wanted.forEach(({ name }, i) => gpu.write(tensors[i]!, valuesOf(name)));
        return Promise.resolve(tensors);
      }
      const quantisers = METHODS.nf4.quantisers(gpu, rooms);
      return Promise.resolve(wanted.map(({ name }, i) => {
        const dense = matrix(name);
        quantisers[i]!.add(dense);
        dense.free();
        return quantisers[i]!.finish();
      }));
    },
    stack: () => Promise.reject(new RangeError("no model with experts is compared")),
    isTrained: () => false,
  });
}

async function logitsOf(decoder: Decoder): Promise<Float32Array> {
  const logits = decoder.logits();
  const values = await decoder.model.gpu.read(logits);
  logits.free();
  return values.subarray(0, decoder.model.config.vocab_size);
}

/** @param values what is compared; what the work gives unless given */
function repeated(
  { name, free }: Player<unknown>,
  once: () => Promise<Float32Array>,
  values = once,
): Entrant {
  return {
    name,
    async run(times) {
      for (let i = 0; i < times; i++) await once();
    },
    values: async () => [await values()],
    free,
  };
}

function likeliest(logits: Float32Array): number {
  let best = 0;
  for (let i = 1; i < logits.length; i++) if (logits[i]! > logits[best]!) best = i;
  return best;
}
