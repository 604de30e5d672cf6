import { type Contest, hold, type Timing } from "../../bench/peers/contest.ts";
import type { Entrant } from "../../bench/peers/entrant.ts";
import { hostModel } from "../../bench/peers/host_model.ts";
import { llamaGraph } from "../../bench/peers/llama_graph.ts";
import { ELEMENT, writeModel } from "../../bench/peers/onnx_model.ts";
import { Gpu } from "../../kernels/gpu.ts";
import { quantiseNf4 } from "../../kernels/nf4/nf4.ts";
import { parseConfig } from "../../model/config.ts";
import { assert, assertEquals } from "../support/assert_close.ts";

/** A clock that entrants move by what their work takes. */
function scriptedTiming(): Timing & { ms: number } {
  const timing = { ms: 0, now: () => timing.ms, waitMs: 1, rounds: 3, contestMs: 0, sampleMs: 20 };
  return timing;
}

function entrant(
  timing: { ms: number },
  name: string,
  { ms, values = [1, 2], expected }: { ms: number; values?: number[]; expected?: number[] },
): Entrant & { calls: number[]; freed: boolean } {
  const calls: number[] = [];
  const self = {
    name,
    calls,
    freed: false,
    run(times: number) {
      calls.push(times);
      timing.ms += 1 + times * ms;
      return Promise.resolve();
    },
    values: () => Promise.resolve([Float32Array.from(values)]),
    ...(expected ? { expected: () => Promise.resolve([Float32Array.from(expected)]) } : {}),
    free() {
      self.freed = true;
      return Promise.resolve();
    },
  };
  return self;
}

function contestOf(entrants: Entrant[]): Contest {
  return { op: "o", shape: "s", flops: 1e9, goals: { peer: 3 }, enter: () => Promise.resolve(entrants) };
}

Deno.test("a contest gives the ratio of best times, without what waiting takes", async () => {
  const timing = scriptedTiming();
  const ours = entrant(timing, "longreach", { ms: 2 });
  const peer = entrant(timing, "peer 1.0", { ms: 7 });
  const { scores } = await hold(contestOf([ours, peer]), timing);
  assertEquals(scores.map(({ bestMs }) => bestMs), [2, 7]);
  assertEquals(scores.map(({ ratio }) => ratio), [1, 3.5]);
  assertEquals(scores.map(({ goal }) => goal), [null, 3]);
  assertEquals(scores[0]!.gflops, 500);
  assert(!("tokensPerSecond" in scores[0]!), "no tokens, no rate of them");
  // Compiling, guessing, then three samples of about 20 ms each.
  assertEquals(ours.calls, [1, 1, 10, 10, 10]);
  assertEquals(peer.calls, [1, 1, 3, 3, 3]);
  assert(ours.freed && peer.freed, "both give back what they hold");
});

Deno.test("a model's contest tells tokens a second", async () => {
  const timing = scriptedTiming();
  const entrants = [entrant(timing, "longreach", { ms: 2 }), entrant(timing, "peer", { ms: 8 })];
  const { scores } = await hold({ ...contestOf(entrants), tokens: 16 }, timing);
  assertEquals(scores.map(({ tokensPerSecond }) => tokensPerSecond), [8000, 2000]);
});

Deno.test("short work is timed in more rounds, until the contest has taken long enough", async () => {
  const timing = { ...scriptedTiming(), contestMs: 100, now: () => timing.ms };
  const ours = entrant(timing, "longreach", { ms: 2 });
  await hold(contestOf([ours]), timing);
  // A sample of ten runs takes 21 ms: the fifth begins at 84, a sixth would at 105.
  assertEquals(ours.calls, [1, 1, 10, 10, 10, 10, 10]);
});

Deno.test("a peer that computes something else has no ratio", async () => {
  const timing = scriptedTiming();
  const wrongs = [[1, 2.1], [1], [NaN, 2], [2, 1]];
  const peers = wrongs.map((values) => entrant(timing, "peer", { ms: 1, values }));
  const { scores } = await hold(contestOf([entrant(timing, "longreach", { ms: 1 }), ...peers]), timing);
  assertEquals(scores.slice(1).map(({ ratio }) => ratio), [null, null, null, null]);
});

Deno.test("a contest in f16 bears what rounding makes", async () => {
  const timing = scriptedTiming();
  const entrants = [1, 1.01, 1.03].map((first) => entrant(timing, "peer", { ms: 1, values: [first, 2] }));
  const { scores } = await hold({ ...contestOf(entrants), tolerance: 0.01 }, timing);
  assertEquals(scores.map(({ ratio }) => ratio), [1, 1, null]);
});

Deno.test("a peer with numbers of its own is held to those", async () => {
  const timing = scriptedTiming();
  const right = entrant(timing, "peer", { ms: 1, values: [5, 6], expected: [5, 6] });
  const wrong = entrant(timing, "peer", { ms: 1, values: [1, 2], expected: [5, 6] });
  const { scores } = await hold(contestOf([entrant(timing, "longreach", { ms: 1 }), right, wrong]), timing);
  assertEquals(scores.map(({ ratio }) => ratio), [1, 1, null]);
});

Deno.test("ONNX models are the bytes that protobuf asks for", () => {
  const model = writeModel({
    nodes: [{ op: "Neg", inputs: ["x"], outputs: ["y"], attributes: { a: 300 }, floats: { b: 0.5 } }],
    inputs: [{ name: "x", type: ELEMENT.float, shape: [2] }],
    outputs: [{ name: "y", type: ELEMENT.float, shape: ["T"] }],
  });
  const hex = model.toHex();
  assertEquals(hex.slice(0, 4), "0808", "IR version 8");
  // Node: input "x", output "y", operator "Neg", attribute "a" of type INT with 300 as a two-byte number.
  assert(hex.includes("0a0178" + "120179" + "22034e6567" + "2a09" + "0a0161" + "18ac02" + "a00102"), hex);
  // "x" is a tensor of f32 with one axis of 2.
  assert(hex.includes("0a0178" + "120a" + "0a08" + "0801" + "1204" + "0a02" + "0802"), hex);
  // Attribute "b" of type FLOAT with the four bytes of 0.5; "y" has an axis named T.
  assert(hex.includes("2a0b" + "0a0162" + "150000003f" + "a00101"), hex);
  assert(hex.includes("0a0179" + "120b" + "0a09" + "0801" + "1205" + "0a03" + "120154"), hex);
});

Deno.test("a ternary model computes the same in NF4 and in whole numbers of 4 bits", async () => {
  const config = parseConfig({
    model_type: "llama",
    vocab_size: 75,
    hidden_size: 64,
    intermediate_size: 128,
    num_hidden_layers: 1,
    num_attention_heads: 2,
    max_position_embeddings: 64,
  }, "tests");
  const model = hostModel(config, "4-bit");
  const name = "model.layers.0.mlp.down_proj.weight";
  const { shape, data } = model.matrices.get(name)!;
  assertEquals(shape, [64, 128]);
  assert(new Set(data.map(Math.sign)).size === 3, "-1, 0 and 1");

  using gpu = await Gpu.open();
  const weight = quantiseNf4(gpu, gpu.tensor(shape, data), { doubleQuant: false });
  assertEquals(await gpu.read(weight.dequantise(gpu)), data);

  const { initializers = [] } = llamaGraph(model, 16);
  const bytes = (part: string) =>
    initializers.find((each) => each.name === `model.layers.0.down.${part}`)!.bytes;
  const scales = new Float32Array(bytes("scales").slice().buffer);
  const codes = Array.from(bytes("codes"), (byte) => [byte & 15, byte >> 4]).flat();
  assertEquals(
    Float32Array.from(codes, (code, i) => (code - 8) * scales[Math.floor(i / 32)]! + 0),
    data.map((x) => x + 0),
  );
});
