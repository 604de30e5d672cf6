/** Evaluations on several ranks give the figures of one. */
import { longBenchSource, measureLongBench } from "../../eval/longbench.ts";
import { evaluatePerplexity } from "../../eval/perplexity.ts";
import { evaluateStrided } from "../../eval/strided.ts";
import { type GridTask, runGrid } from "../../eval/trials.ts";
import { assertEquals, assertThrows } from "../support/assert_close.ts";
import { GOLDEN, withFolder } from "../support/files.ts";
import { playRanks } from "../support/ranks.ts";
import { Reader } from "../support/reader.ts";

/** What does not tell the time. */
const untimed = <T extends { readonly seconds: number }>({ seconds: _, ...rest }: T) => rest;

Deno.test("ranks share a grid's trials, go on with those that are there, and rank 0 keeps them", async () => {
  await withFolder(async (folder) => {
    const made: string[] = [];
    const grid = (rank: number): GridTask => ({
      task: "t",
      settings: {},
      lengths: [30, 10],
      depths: [0, 50],
      trials: 2,
      run: ({ length, depth }, trial) => {
        made.push(`${rank}: ${length} ${depth} ${trial}`);
        const found = { prompt_tokens: length, depth_found: depth!, target: "NaN", prediction: "NaN" };
        return Promise.resolve({ ...found, score: trial, similarity: 0.5 });
      },
    });
    const one = await runGrid(grid(0), { outputDir: `${folder}/1` });
    made.length = 0;
    const outputDir = `${folder}/3`;
    const results = await playRanks(3, (ranks) => runGrid(grid(ranks.rank), { outputDir, ranks }));
    for (const { rows, cells, accuracy } of results) {
      assertEquals(rows.map(untimed), one.rows.map(untimed));
      assertEquals([cells, accuracy], [one.cells, one.accuracy]);
    }
    assertEquals(made.toSorted(), [
      ...["0: 10 0 0", "0: 10 50 1", "0: 30 50 0"],
      ...["1: 10 0 1", "1: 30 0 0", "1: 30 50 1"],
      ...["2: 10 50 0", "2: 30 0 1"],
    ]);
    const lines = Deno.readTextFileSync(`${outputDir}/results.jsonl`).trim().split("\n");
    Deno.writeTextFileSync(`${outputDir}/results.jsonl`, `${lines.slice(0, 7).join("\n")}\n`);
    made.length = 0;
    const again = await playRanks(2, (ranks) => runGrid(grid(ranks.rank), { outputDir, ranks }));
    assertEquals(made.toSorted(), ["0: 30 50 0", "1: 30 50 1"]);
    assertEquals(again[1]!.rows.map(untimed), one.rows.map(untimed));
    await assertThrows(
      () => playRanks(2, (ranks) => runGrid({ ...grid(0), trials: 1 + ranks.rank }, { outputDir, ranks })),
      "the settings is",
    );
  });
});

Deno.test("ranks share questions, and score as one", async () => {
  await withFolder(async (folder) => {
    const rows = ["Ann", "Ben", "Cleo", "Dan", "Eve"].map((name) => ({
      input: "Who?",
      context: `${name} left.`,
      answers: [name],
      length: 2,
      all_classes: null,
    }));
    await Deno.writeTextFile(
      `${folder}/qasper.jsonl`,
      rows.map((row) => `${JSON.stringify(row)}\n`).join(""),
    );
    const asked = { evalData: folder, tasks: ["qasper"], prompts: {}, newlineAsEos: true };
    const measure = async (outputDir: string, ranks?: Parameters<Parameters<typeof playRanks>[1]>[0]) => {
      const engine = await Reader.of(`${GOLDEN}/mha`, (prompt) => /(\w+) left/.exec(prompt)![1]!);
      const result = await measureLongBench(engine, await longBenchSource(asked), {
        ...asked,
        task: "longbench",
        settings: {},
        cut: { maxLength: null, most: 31_500, truncateFromMiddle: true },
        outputDir,
        ranks,
      });
      return { ...result, asked: engine.asked.length };
    };
    const one = await measure(`${folder}/1`);
    const all = await playRanks(2, (ranks) => measure(`${folder}/2`, ranks));
    assertEquals(all.map(({ asked }) => asked), [3, 2]);
    for (const { scores, answers } of all) {
      assertEquals(scores, one.scores);
      assertEquals(answers.map(untimed), one.answers.map(untimed));
    }
  });
});

Deno.test("ranks share windows, and measure the perplexity of one", async () => {
  await withFolder(async (folder) => {
    const windows = {
      baseModel: `${GOLDEN}/mha`,
      dataPath: `${GOLDEN}/data.bin`,
      seqLen: 128,
      slidingWindow: 100,
      batchSize: 2,
      dropLastWindow: false,
    };
    const { protocol: _, model: __, peakBytes: ___, seconds: ____, ...one } = await evaluatePerplexity(
      windows,
    );
    for (const result of await playRanks(2, (ranks) => evaluatePerplexity({ ...windows, ranks }))) {
      const { byPosition, ...scores } = one;
      assertEquals(
        Object.fromEntries(Object.keys(scores).map((key) => [key, result[key as keyof typeof scores]])),
        scores,
      );
      for (const [i, { perplexity }] of byPosition.entries()) {
        assertEquals(result.byPosition[i]!.perplexity.toFixed(9), perplexity.toFixed(9));
      }
    }
    const dataPath = `${folder}/d.jsonl`;
    const texts = ["a".repeat(40), "b".repeat(50), "c".repeat(61)];
    await Deno.writeTextFile(dataPath, texts.map((text) => `${JSON.stringify({ text })}\n`).join(""));
    const strided = { baseModel: `${GOLDEN}/mha`, dataPath, maxLength: 32, stride: 16 };
    const alone = await evaluateStrided(strided);
    const [first, second] = await playRanks(2, (ranks) => evaluateStrided({ ...strided, ranks }));
    for (const { loss, tokenPerplexity, numTokens } of [first!, second!]) {
      assertEquals([loss, tokenPerplexity, numTokens], [alone.loss, alone.tokenPerplexity, alone.numTokens]);
    }
  });
});
