import { Random } from "../../data/random.ts";
import { Tokenizer } from "../../data/tokenizer.ts";
import { factDocument, recallCase, repeatDocument, WORDS } from "../../demo/corpus.ts";
import { demoConfig, demoTokenizer, demoTokenizerConfig, VOCAB_SIZE } from "../../demo/vocabulary.ts";
import { assert, assertEquals, assertThrows } from "../support/assert_close.ts";

const LENGTHS = [16, 64, 256, 1024];

function tokenizer(): Tokenizer {
  return new Tokenizer(
    demoTokenizer() as ConstructorParameters<typeof Tokenizer>[0],
    demoTokenizerConfig() as ConstructorParameters<typeof Tokenizer>[1],
  );
}

/** The document's tokens with `<s>` at position 0. */
function tokensOf(text: string): string[] {
  return ["<s>", ...text.split(" ")];
}

Deno.test("the vocabulary has every word once and the model's size matches it", () => {
  assertEquals(new Set(WORDS).size, WORDS.length);
  assertEquals(tokenizer().vocabSize, VOCAB_SIZE);
  assertEquals((demoConfig() as { vocab_size: number }).vocab_size, VOCAB_SIZE);
  assert(VOCAB_SIZE >= 700 && VOCAB_SIZE <= 1000, `${VOCAB_SIZE} tokens`);
});

for (const length of LENGTHS) {
  Deno.test(`documents are exactly ${length} known tokens and come back from them`, () => {
    const words = tokenizer();
    for (let seed = 1; seed <= 20; seed++) {
      const random = new Random(seed);
      for (const text of [factDocument(random, length).text, repeatDocument(random, length)]) {
        const ids = words.encode(text, { bos: true, eos: false });
        assertEquals(ids.length, length);
        assert(!ids.includes(words.tokenId("<unk>")!), "an unknown word");
        assertEquals(words.decode(ids, { skipSpecial: true }), text);
      }
    }
  });

  Deno.test(`every answer in a document of ${length} was told before, at the distance given`, () => {
    let queries = 0;
    for (let seed = 1; seed <= 50; seed++) {
      const document = factDocument(new Random(seed), length);
      const tokens = tokensOf(document.text);
      for (const { position, answer, distance } of document.queries) {
        queries++;
        assertEquals(tokens[position], answer);
        assertEquals(tokens.lastIndexOf(answer, position - 1), position - distance);
        const bigrams = tokens.slice(0, position - 1).map((word, i) => `${word} ${tokens[i + 1]}`);
        assert(
          bigrams.includes(`${tokens[position - 1]} ${answer}`),
          `"${answer}" was not told of ${tokens[position - 1]}`,
        );
      }
    }
    assert(length < 64 || queries > 5 * length, `only ${queries} places need a fact`);
  });
}

Deno.test("facts are needed again over all distances up to nearly the whole document", () => {
  const distances = Array.from({ length: 40 }, (_, seed) => factDocument(new Random(seed), 1024).queries)
    .flat().map((query) => query.distance);
  const least = [[1, 32, 0.3], [32, 128, 0.2], [128, 256, 0.04], [256, 512, 0.003]] as const;
  for (const [from, to, wanted] of least) {
    const share = distances.filter((distance) => distance >= from && distance < to).length / distances.length;
    assert(share > wanted, `${share} of the distances are from ${from} to ${to}`);
  }
});

Deno.test("each topic of a document has one answer, and each answer one topic", () => {
  const { queries, text } = factDocument(new Random(4), 1024);
  const tokens = tokensOf(text);
  const answers = new Map<string, string>();
  for (const { position, answer } of queries) {
    const key = tokens[position - 1]!;
    assertEquals(answers.get(key) ?? answer, answer);
    answers.set(key, answer);
  }
  assertEquals(new Set(answers.values()).size, answers.size, "answers of different topics");
});

Deno.test("repeatDocument() says half a document of random words twice", () => {
  for (let seed = 1; seed <= 50; seed++) {
    const words = repeatDocument(new Random(seed), 64).split(" ");
    assert(words.every((word, i) => i < 32 || word === words[i - 32]), words.join(" "));
    assert(new Set(words).size > 24, "hardly any different words");
  }
});

for (const [length, shortest, longest] of [[256, 150, 240], [512, 400, 480], [1024, 800, 1000]] as const) {
  Deno.test(`recallCase() states the answer once, ${shortest} to ${longest} tokens before the end`, () => {
    for (let seed = 1; seed <= 30; seed++) {
      const { prompt, answer, distance } = recallCase(new Random(seed), length, { shortest, longest });
      const tokens = tokensOf(prompt);
      assert(tokens.length < length, `${tokens.length} tokens`);
      assert(distance >= shortest && distance <= longest, `distance ${distance}`);
      assertEquals(tokens.indexOf(answer), tokens.length - distance);
      assertEquals(tokens.lastIndexOf(answer), tokens.indexOf(answer));
      assert(prompt.includes(`${tokens.at(-1)} ${answer} `), "the statement is missing");
    }
  });
}

Deno.test("the same seed gives the same documents, another seed others", () => {
  const write = (seed: number) => {
    const random = new Random(seed);
    return [
      factDocument(random, 256).text,
      repeatDocument(random, 64),
      recallCase(random, 256, { shortest: 150, longest: 240 }).prompt,
    ].join("\n");
  };
  assertEquals(write(5), write(5));
  assert(write(5) !== write(6), "two seeds give the same documents");
});

Deno.test("the generator refuses lengths that cannot hold what is asked", async () => {
  await assertThrows(() => factDocument(new Random(1), 15), "at least 16");
  await assertThrows(
    () => recallCase(new Random(1), 256, { shortest: 200, longest: 250 }),
    "Cannot recall over 200-250 tokens in 256",
  );
});
