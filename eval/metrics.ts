/**
 * Scores of answers, each from 0 to 1, as LongBench's `metrics.py` and InfiniteBench's `compute_scores.py` define them with the
 * Python packages that they use. What differs is named where it does.
 */

/** ASCII punctuation, Python's `string.punctuation`. */
const PUNCTUATION = /[!-/:-@[-`{-~]/g;
/** Chinese and full-width punctuation besides. */
const CHINESE_PUNCTUATION =
  /[！？｡。＂＃＄％＆＇（）＊＋，－／：；＜＝＞＠［＼］＾＿｀｛｜｝～｟-､、〃《-】〔-〟〰〾〿–—‘’‛“”„‟…‧﹏]/g;

/** Articles that stand alone; an accented letter beside one is a letter, as in Python. */
const ARTICLES = /(?<![\p{L}\p{N}_])(?:an?|the)(?![\p{L}\p{N}_])/gu;

/** SQuAD's normalisation: lower case, no punctuation, no articles, single spaces. */
function normalized(text: string): string {
  return text.toLowerCase().replace(PUNCTUATION, "").replace(ARTICLES, " ").trim().replace(
    /\s+/g,
    " ",
  );
}

/** Harmonic mean of precision and recall of two bags. */
function bagF1(answer: readonly string[], truth: readonly string[]): number {
  const left = new Map<string, number>();
  for (const item of truth) left.set(item, (left.get(item) ?? 0) + 1);
  let same = 0;
  for (const item of answer) {
    const count = left.get(item) ?? 0;
    if (count === 0) continue;
    left.set(item, count - 1);
    same++;
  }
  return same === 0 ? 0 : 2 * same / (answer.length + truth.length);
}

/** F1 of the bags of words: `qa_f1_score`. */
export function tokenF1(answer: string, truth: string): number {
  const words = (text: string) => normalized(text).split(" ").filter((word) => word !== "");
  return bagF1(words(answer), words(truth));
}

/**
 * F1 of the bags of Chinese words without punctuation: `qa_f1_zh_score`. Words are those of the engine's own dictionary
 * (`Intl.Segmenter`), where LongBench asks jieba: scores differ by little.
 */
export function tokenF1Chinese(answer: string, truth: string): number {
  const words = (text: string) =>
    chineseWords(text).map((word) =>
      word.toLowerCase().replace(PUNCTUATION, "").replace(CHINESE_PUNCTUATION, "").replace(/\s/g, "")
    ).filter((word) => word !== "");
  return bagF1(words(answer), words(truth));
}

/** F1 of the bags of characters without punctuation and space: InfiniteBench's `qa_f1_score_zh`. */
export function characterF1(answer: string, truth: string): number {
  const characters = (
    text: string,
  ) => [...text.toLowerCase().replace(PUNCTUATION, "").replace(CHINESE_PUNCTUATION, "").replace(/\s/g, "")];
  return bagF1(characters(answer), characters(truth));
}

function chineseWords(text: string): string[] {
  return [...new Intl.Segmenter("zh", { granularity: "word" }).segment(text)].map(({ segment }) => segment);
}

/**
 * F of ROUGE-L by Python's `rouge` 1.0: sentences end at full stops, of the longest common subsequences of each pair of
 * sentences the different words are counted, against the different words of each text. 0 where a text has no sentence. A
 * sentence of a thousand words and more, at which the package gives up, is scored.
 */
export function rougeL(answer: string, truth: string): number {
  const sentences = (text: string) =>
    text.split(".").filter((part) => part !== "").map((part) => part.trim().split(/\s+/));
  const [ours, theirs] = [sentences(answer), sentences(truth)];
  if (ours.length === 0 || theirs.length === 0) return 0;
  const common = new Set(
    theirs.flatMap((sentence) =>
      ours.flatMap((own) => commonSubsequence(sentence, own).map(([i]) => sentence[i]!))
    ),
  );
  const precision = common.size / new Set(ours.flat()).size;
  const recall = common.size / new Set(theirs.flat()).size;
  return 2 * (precision * recall / (precision + recall + 1e-8));
}

/** {@linkcode rougeL} of Chinese words, divided as {@linkcode tokenF1Chinese} divides them: `rouge_zh_score`. */
export function rougeLChinese(answer: string, truth: string): number {
  return rougeL(chineseWords(answer).join(" "), chineseWords(truth).join(" "));
}

/**
 * F of ROUGE-L over the lines of two summaries by Python's `rouge_score` 0.1, without stemming: `rougeLsum` of `evaluate`. A
 * word of the truth counts where it is in the longest common subsequence of its line with any line of the answer, and at
 * most as often as the answer has it.
 * @see Lin 2004, ROUGE: A Package for Automatic Evaluation of Summaries, section 3.2
 */
export function rougeLSum(answer: string, truth: string): number {
  const lines = (text: string) =>
    text.split("\n").map((line) => line.toLowerCase().match(/[a-z0-9]+/g) ?? []);
  const [ours, theirs] = [lines(answer), lines(truth)];
  const [length, trueLength] = [ours.flat().length, theirs.flat().length];
  if (length === 0 || trueLength === 0) return 0;
  const left = new Map<string, number>();
  for (const word of ours.flat()) left.set(word, (left.get(word) ?? 0) + 1);
  let hits = 0;
  for (const line of theirs) {
    const places = new Set(ours.flatMap((own) => commonSubsequence(own, line).map(([, j]) => j)));
    for (const place of places) {
      const count = left.get(line[place]!)!;
      if (count === 0) continue;
      left.set(line[place]!, count - 1);
      hits++;
    }
  }
  return 2 * hits / (length + trueLength);
}

/**
 * Places in `x` and `y` of the longest common subsequence. Of several as long it is the one found from the ends where, of two
 * equally good ways back, that in `y` is gone: `rouge` so asks for (truth, answer), `rouge_score` for (answer, truth).
 */
function commonSubsequence(x: readonly string[], y: readonly string[]): [number, number][] {
  const width = y.length + 1;
  const table = new Uint32Array((x.length + 1) * width);
  for (let i = 1; i <= x.length; i++) {
    for (let j = 1; j <= y.length; j++) {
      table[i * width + j] = x[i - 1] === y[j - 1]
        ? table[(i - 1) * width + j - 1]! + 1
        : Math.max(table[(i - 1) * width + j]!, table[i * width + j - 1]!);
    }
  }
  const found: [number, number][] = [];
  for (let i = x.length, j = y.length; i > 0 && j > 0;) {
    if (x[i - 1] === y[j - 1]) {
      found.push([--i, --j]);
    } else if (table[(i - 1) * width + j]! > table[i * width + j - 1]!) i--;
    else j--;
  }
  return found.reverse();
}

/** In `b` of at least so many elements those that are more than a hundredth of them are not looked up. */
const POPULAR_FROM = 200;

/** Similarity of two texts: 2 M / T of Python's `difflib.SequenceMatcher`, which forgets popular letters of long texts. */
function sequenceRatio(first: string, second: string): number {
  const [a, b] = [[...first], [...second]];
  if (a.length + b.length === 0) return 1;
  const places = new Map<string, number[]>();
  b.forEach((letter, j) => places.get(letter)?.push(j) ?? places.set(letter, [j]));
  if (b.length >= POPULAR_FROM) {
    const most = Math.floor(b.length / 100) + 1;
    for (const [letter, at] of places) if (at.length > most) places.delete(letter);
  }
  let matches = 0;
  const spans: [number, number, number, number][] = [[0, a.length, 0, b.length]];
  for (let span = spans.pop(); span; span = spans.pop()) {
    const [aFrom, aTo, bFrom, bTo] = span;
    let [bestA, bestB, size] = [aFrom, bFrom, 0];
    let before = new Map<number, number>();
    for (let i = aFrom; i < aTo; i++) {
      const now = new Map<number, number>();
      for (const j of places.get(a[i]!) ?? []) {
        if (j < bFrom) continue;
        if (j >= bTo) break;
        const length = (before.get(j - 1) ?? 0) + 1;
        now.set(j, length);
        if (length > size) [bestA, bestB, size] = [i - length + 1, j - length + 1, length];
      }
      before = now;
    }
    while (bestA > aFrom && bestB > bFrom && a[bestA - 1] === b[bestB - 1]) {
      bestA--;
      bestB--;
      size++;
    }
    while (bestA + size < aTo && bestB + size < bTo && a[bestA + size] === b[bestB + size]) size++;
    if (size === 0) continue;
    matches += size;
    spans.push([aFrom, bestA, bFrom, bestB], [bestA + size, aTo, bestB + size, bTo]);
  }
  return 2 * matches / (a.length + b.length);
}

/** `fuzz.ratio` of `fuzzywuzzy` (which uses `difflib` where it finds no other library), as a share: hundredths. */
export function fuzzRatio(first: string, second: string): number {
  if (first === second) return 1;
  if (first === "" || second === "") return 0;
  const hundredths = 100 * sequenceRatio(first, second);
  const floor = Math.floor(hundredths);
  // Python rounds halves to the even number.
  const isUp = hundredths - floor > 0.5 || (hundredths - floor === 0.5 && floor % 2 === 1);
  return (floor + (isUp ? 1 : 0)) / 100;
}

/** Similarity of the first line that is no comment and no fence of code: `code_sim_score`. */
export function codeSimilarity(answer: string, truth: string): number {
  const line = answer.replace(/^\n+/, "").split("\n").find((line) => !/[`#]|\/\//.test(line)) ?? "";
  return fuzzRatio(line, truth);
}

/** The share of the answer's numbers that are the true one: `count_score`. */
export function countScore(answer: string, truth: string): number {
  const numbers = answer.match(/\d+/g) ?? [];
  return numbers.length === 0 ? 0 : numbers.filter((number) => number === truth).length / numbers.length;
}

/** The same for `Paragraph 12` or `段落12`: `retrieval_score`, `retrieval_zh_score`. */
export function retrievalScore(answer: string, truth: string): number {
  return countScore(answer, /(?:Paragraph |段落)(\d+)/.exec(truth)?.[1] ?? truth);
}

/**
 * 1 / k where the true class is one of k that the answer names, else 0; classes whose names are part of the true one's are
 * not counted: `classification_score`, whose guess for answers that name none is never reached.
 */
export function classificationScore(answer: string, truth: string, classes: readonly string[]): number {
  const named = classes.filter((name) => answer.includes(name) && (name === truth || !truth.includes(name)));
  return named.includes(truth) ? 1 / named.length : 0;
}
