/**
 * The demo's documents: reports in which things are named early and needed again later, so that a model predicts them well
 * only if it uses its context. Every token is one whole word of {@linkcode WORDS}, separated by spaces.
 *
 * Facts that a reader of a document can learn from its earlier part, and only from there: its password, its town, its captain
 * and so on. Each stands behind its own word ("password lantern"), is drawn anew for every document, and stays what it is
 * until the end.
 */
import type { Random } from "../data/random.ts";
import { ADJECTIVES, ANIMALS, CODE_WORDS, GLUE, MOVES, NAMES, ROLES, SPOTS, TIMES, TOWNS } from "./words.ts";

/** Topics of facts, with their possible values. No value serves two of them. */
const TOPICS: Readonly<Record<string, readonly string[]>> = {
  ...parts(["agent", "leader", "witness", "courier"], NAMES),
  ...parts(["password", "signal", "cargo", "token", "motto"], CODE_WORDS),
  ...parts(["town", "haven"], TOWNS),
  ...parts(["beast", "crest", "pet"], ANIMALS),
  ...parts(["landmark", "shelter"], SPOTS),
};

/** Deals a list out to several topics in turn. */
function parts(topics: readonly string[], values: readonly string[]): Record<string, string[]> {
  return Object.fromEntries(
    topics.map((topic, at) => [topic, values.filter((_, i) => i % topics.length === at)]),
  );
}

/** All words, in the order of their token ids (special tokens come before them). */
export const WORDS: readonly string[] = [
  ...GLUE,
  ...Object.keys(TOPICS),
  ...TIMES,
  ...MOVES,
  ...SPOTS,
  ...ADJECTIVES,
  ...ROLES,
  ...ANIMALS,
  ...TOWNS,
  ...CODE_WORDS,
  ...NAMES,
];

/** A place in a document where a fact told earlier is needed. Positions count tokens; `<s>` is token 0. */
export interface Query {
  /** Position of the answer's token: a model that read everything before it should predict it. */
  readonly position: number;
  readonly answer: string;
  /** Tokens back to the last place where the same answer stands. */
  readonly distance: number;
}

/** A document and the places where it needs what it told before. */
export interface FactDocument {
  /** `lengthTokens - 1` words: with `<s>` in front the document is exactly `lengthTokens` tokens. */
  readonly text: string;
  readonly queries: readonly Query[];
}

/** A prompt that ends right before the word to be recalled. */
export interface RecallCase {
  readonly prompt: string;
  readonly answer: string;
  /** Tokens from the only statement of the answer to the place where it is asked for. */
  readonly distance: number;
}

/** A fact of a document. */
interface Fact {
  /** Word before the answer whenever it is named: `password`. */
  readonly topic: string;
  readonly answer: string;
  /** Position of the answer where it was last named; -1 before. */
  lastSeen: number;
}

/** Nearest distance at which a fact is named again, in tokens. */
const SHORTEST_DISTANCE = 8;

/** Number of facts told after `position` tokens: 4 at 64, 7 at 256 and 13 at 1024. */
function factsDue(position: number): number {
  return 1 + 3 * Math.pow(position / 64, 0.5);
}

/** One document being written. */
class Story {
  /** `<s>` and the words so far. */
  readonly tokens: string[] = ["<s>"];
  readonly queries: Query[] = [];
  readonly told: Fact[] = [];
  readonly untold: Fact[];

  constructor(readonly random: Random) {
    const facts = Object.entries(TOPICS).map(([topic, values]) => ({
      topic,
      answer: random.pick(values),
      lastSeen: -1,
    }));
    this.untold = random.shuffled(facts);
  }

  get length(): number {
    return this.tokens.length;
  }

  /** Writes one more sentence, at most {@linkcode LONGEST_SENTENCE} words. */
  tell(): void {
    const { random } = this;
    if (random.uniform() < 0.2) this.tokens.push(random.pick(TIMES));
    const subject = random.uniform() < 0.3 ? undefined : this.#factToName();
    if (subject) this.name(subject);
    else this.tokens.push("the", random.pick(ADJECTIVES), random.pick(ROLES));
    this.tokens.push(random.pick(MOVES));
    if (this.told.length > 1 && random.uniform() < 0.7) {
      this.tokens.push("to");
      this.name(this.#factToName(subject));
    }
    this.tokens.push(".");
  }

  /** Names a fact: for the first time, or again. */
  name(fact: Fact): void {
    this.tokens.push(fact.topic, fact.answer);
    const position = this.length - 1;
    if (fact.lastSeen < 0) this.told.push(fact);
    else this.queries.push({ position, answer: fact.answer, distance: position - fact.lastSeen });
    fact.lastSeen = position;
  }

  /**
   * A new fact where one is due, else one named about a random distance ago. Where none has rested long enough it is the
   * latest one, so that others grow old: distances of all lengths occur.
   */
  #factToName(except?: Fact): Fact {
    const { random, untold } = this;
    if (untold.length > 0 && this.told.length < Math.floor(factsDue(this.length))) return untold.pop()!;
    const longest = Math.max(this.length, SHORTEST_DISTANCE + 1);
    const wanted = SHORTEST_DISTANCE * Math.pow(longest / SHORTEST_DISTANCE, random.uniform());
    const told = this.told.filter((fact) => fact !== except);
    const rested = told.filter(({ lastSeen }) => 1.5 * (this.length - lastSeen) >= wanted);
    const from = rested.length > 0 ? rested : told;
    return from.reduce((latest, fact) => fact.lastSeen > latest.lastSeen ? fact : latest);
  }
}

/**
 * A document of exactly `lengthTokens` tokens, `<s>` included: facts, named again at distances from a few tokens to
 * nearly the whole document, and background.
 *
 * @throws {RangeError} if `lengthTokens` is below 16: no fact and question fit
 */
export function factDocument(random: Random, lengthTokens: number): FactDocument {
  if (lengthTokens < 16) {
    throw new RangeError(`Cannot write a fact document of ${lengthTokens} tokens: at least 16`);
  }
  const story = new Story(random);
  while (story.length < lengthTokens) story.tell();
  return {
    text: story.tokens.slice(1, lengthTokens).join(" "),
    queries: story.queries.filter((query) => query.position < lengthTokens),
  };
}

/**
 * A random sequence of words, half as long as the document, and then the same again. Nothing but copying predicts it,
 * which is what makes attention learn to copy.
 */
export function repeatDocument(random: Random, lengthTokens: number): string {
  const period = lengthTokens / 2;
  const sequence = Array.from({ length: period }, () => random.pick(WORDS));
  return Array.from({ length: lengthTokens - 1 }, (_, i) => sequence[i % period]).join(" ");
}

/**
 * A document that names one of its facts once, and ends `distance` tokens later where it is needed again;
 * everything else goes on as in {@linkcode factDocument}. The prompt is at most `lengthTokens - 1` tokens with `<s>`.
 *
 * @throws {RangeError} if the distances do not fit into the length
 */
export function recallCase(
  random: Random,
  lengthTokens: number,
  { shortest, longest }: { readonly shortest: number; readonly longest: number },
): RecallCase {
  if (!(shortest <= longest && longest + 16 <= lengthTokens)) {
    throw new RangeError(`Cannot recall over ${shortest}-${longest} tokens in ${lengthTokens}`);
  }
  for (;;) {
    const found = tryRecallCase(random, lengthTokens, shortest + random.below(longest - shortest + 1));
    if (found.distance >= shortest && found.distance <= longest) return found;
  }
}

/** One attempt: sentences end where they end, so the distance comes out near the one wanted. */
function tryRecallCase(random: Random, lengthTokens: number, distance: number): RecallCase {
  const story = new Story(random);
  const target = story.untold.shift()!;
  const end = lengthTokens - 2;
  while (story.length < end - distance) story.tell();
  story.name(target);
  story.told.pop();
  story.tokens.push(random.pick(MOVES), ".");
  while (story.length + LONGEST_SENTENCE <= end) story.tell();
  story.tokens.push(target.topic);
  return {
    prompt: story.tokens.slice(1).join(" "),
    answer: target.answer,
    distance: story.length - target.lastSeen,
  };
}

/** Words of the longest sentence {@linkcode Story.tell} writes. */
const LONGEST_SENTENCE = 9;
