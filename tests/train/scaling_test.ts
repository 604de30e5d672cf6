import { allReduceSeconds, predictScaling } from "../../train/plan/scaling.ts";
import { assertClose, assertEquals } from "../support/assert_close.ts";

const NETWORK = { bytesPerSecond: 1e9, latencySeconds: 1e-3, hostBytesPerSecond: 1e10 };

Deno.test("A sum over ranks sends what each must, in as few messages as the faster way needs", () => {
  assertEquals(allReduceSeconds(1e9, 1, NETWORK), 0);
  const seconds = [2, 3, 8, 512].map((ranks) => allReduceSeconds(1e9, ranks, NETWORK));
  assertClose("seconds", seconds, [1.002, 4 / 3 + 0.004, 1.75 + 0.006, 2 * 511 / 512 + 0.018], {
    rtol: 1e-12,
    atol: 0,
  });
});

Deno.test("Efficiency compares tokens a second of a rank with those of one alone", () => {
  const traffic = { exchanges: 0, exchangedBytes: 0 };
  const part = { attention: 0, projections: 1, ffn: 0, head: 0, lora: 0 };
  const flops = { forward: part, recompute: part, backward: { ...part, projections: 2 } };
  const cost = { tokens: 1000, trainable: 25e6, traffic, passes: 1, flops };
  const network = { ...NETWORK, latencySeconds: 0 };
  const data = predictScaling(
    { cost, seconds: 2 },
    { seconds: 2 },
    { ranks: 4, sequenceParallel: 1 },
    network,
  );
  // 100 MB of gradients: 150 MB on the wire, and to the host and back.
  assertClose(
    "reduce, step, share, efficiency",
    [data.reduceSeconds, data.stepSeconds!, data.communicationShare!, data.efficiency!],
    [0.17, 2.17, 0.17 / 2.17, 2 / 2.17],
    { rtol: 1e-12, atol: 0 },
  );
  assertEquals([data.tokens, data.exchangeSeconds], [4000, 0]);
  // A rank of two has somewhat more than half of the work, and waits for one of four messages each way.
  const share = (exchangedBytes: number) =>
    predictScaling(
      { cost: { ...cost, traffic: { exchanges: 8, exchangedBytes } }, seconds: 1.1 },
      { seconds: 2 },
      { ranks: 2, sequenceParallel: 2 },
      network,
    );
  const shared = share(1e8);
  assertClose(
    "exchange, step, efficiency",
    [shared.exchangeSeconds, shared.stepSeconds!, shared.efficiency!],
    [0.14 / 4, 1.1 + 0.035 + 0.12, 1 / 1.255],
    { rtol: 1e-12, atol: 0 },
  );
  // Messages that take longer than the layers hold all of them up: a quarter of the work is in the forward pass.
  const slow = share(1e9).exchangeSeconds;
  assertClose("slow", [slow], [0.7 - 1.1 / 4 + Math.max(0.7 / 4, 0.7 - 1.1 * 3 / 4)], {
    rtol: 1e-12,
    atol: 0,
  });
  assertEquals(shared.tokens, 1000);
  const unknown = predictScaling({ cost, seconds: null }, { seconds: null }, {
    ranks: 2,
    sequenceParallel: 1,
  }, network);
  assertEquals([unknown.stepSeconds, unknown.efficiency, unknown.communicationShare], [null, null, null]);
});
