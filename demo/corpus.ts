/**
 * The demo's documents: small stories in which facts are told early and asked for later, so that a model predicts
 * them well only if it uses its context. Every token is one whole word of {@linkcode WORDS}, separated by spaces.
 *
 * What a reader of a document can learn from its earlier part, and only from there:
 * - who is in it (a cast of names), and per name a code word, a home and a pet: the facts;
 * - which adjective each character of the background always carries and where it always goes.
 */
import type { Random } from "../data/random.ts";
import { ADJECTIVES, ANIMALS, CODE_WORDS, GLUE, MOVES, NAMES, ROLES, SPOTS, TIMES, TOWNS } from "./words.ts";

/** All words, in the order of their token ids (special tokens come before them). */
export const WORDS: readonly string[] = [
  ...GLUE,
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

/** A place in a document where an earlier fact is asked for. Positions count tokens; `<s>` is token 0. */
export interface Query {
  /** Position of the answer's token: a model that read everything before it should predict it. */
  readonly position: number;
  readonly answer: string;
  /** Tokens back to the last place where the same answer stands: the statement or an earlier answer. */
  readonly distance: number;
}

/** A document and the questions in it. */
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

interface Fact {
  readonly statement: readonly string[];
  readonly question: readonly string[];
  readonly answer: string;
  /** Position of the latest token that gives the answer away. */
  lastSeen: number;
}

interface Character {
  readonly adjective: string;
  readonly role: string;
  readonly spot: string;
}

/** Nearest distance at which a fact is asked for again, in tokens. */
const SHORTEST_DISTANCE = 8;

/** How many facts a document has told after `position` tokens: about 3 at 64, 8 at 256 and 24 at 1024. */
function factsDue(position: number): number {
  return 1 + 3 * Math.pow(position / 64, 0.75);
}

/** One document being written. */
class Story {
  /** `<s>` and the words so far. */
  readonly tokens: string[] = ["<s>"];
  readonly queries: Query[] = [];
  readonly told: Fact[] = [];
  readonly untold: Fact[];
  readonly #characters: readonly Character[];

  constructor(readonly random: Random, lengthTokens: number) {
    const people = 3 + Math.floor(lengthTokens / 80);
    this.untold = random.shuffled(castFacts(random, people));
    const count = 3 + Math.floor(lengthTokens / 160);
    const roles = random.shuffled(ROLES).slice(0, count);
    const adjectives = random.shuffled(ADJECTIVES);
    const spots = random.shuffled(SPOTS);
    this.#characters = roles.map((role, i) => ({ role, adjective: adjectives[i]!, spot: spots[i]! }));
  }

  get length(): number {
    return this.tokens.length;
  }

  /** Writes one more sentence: a due fact, else a question or a piece of background. */
  tell(): void {
    const untold = this.untold;
    if (untold.length > 0 && this.told.length < Math.floor(factsDue(this.length))) this.state(untold.pop()!);
    else if (this.random.uniform() < 0.55) this.ask(this.#factToAsk());
    else this.fill();
  }

  /** States a fact for the first time. */
  state(fact: Fact): void {
    this.tokens.push(...fact.statement);
    fact.lastSeen = this.length - 1 - (fact.statement.length - 1 - fact.statement.indexOf(fact.answer));
    this.told.push(fact);
  }

  /** Asks for a fact told before and answers. */
  ask(fact: Fact): void {
    this.tokens.push(...fact.question, fact.answer, ".");
    const position = this.length - 2;
    this.queries.push({ position, answer: fact.answer, distance: position - fact.lastSeen });
    fact.lastSeen = position;
  }

  /** A sentence about one of the background characters. */
  fill(): void {
    const { adjective, role, spot } = this.random.pick(this.#characters);
    const start = this.random.uniform() < 0.4 ? [this.random.pick(TIMES)] : [];
    this.tokens.push(...start, "the", adjective, role, this.random.pick(MOVES), "to", "the", spot, ".");
  }

  /** The fact whose last mention is closest to a random distance: short, middling and long ones all occur. */
  #factToAsk(): Fact {
    const { random } = this;
    const longest = Math.max(this.length, SHORTEST_DISTANCE + 1);
    const wanted = random.uniform() < 0.7
      ? SHORTEST_DISTANCE * Math.pow(longest / SHORTEST_DISTANCE, random.uniform())
      : random.uniform() * longest;
    const miss = (fact: Fact) => Math.abs(this.length - fact.lastSeen - wanted);
    return this.told.reduce((best, fact) => miss(fact) < miss(best) ? fact : best);
  }
}

/** The facts of `people` different names; no answer serves twice. */
function castFacts(random: Random, people: number): Fact[] {
  const names = random.shuffled(NAMES).slice(0, people);
  const codes = random.shuffled(CODE_WORDS);
  const towns = random.shuffled(TOWNS);
  const animals = random.shuffled(ANIMALS);
  return names.flatMap((name, i) => [
    codeFact(name, codes[i]!),
    fact(`${name} lives in ${towns[i]} .`, `home of ${name} ?`, towns[i]!),
    fact(`${name} keeps ${article(animals[i]!)} ${animals[i]} .`, `pet of ${name} ?`, animals[i]!),
  ]);
}

function article(noun: string): string {
  return "aeiou".includes(noun[0]!) ? "an" : "a";
}

function codeFact(name: string, code: string): Fact {
  return fact(`the code word of ${name} is ${code} .`, `code word of ${name} ?`, code);
}

function fact(statement: string, question: string, answer: string): Fact {
  return { statement: statement.split(" "), question: question.split(" "), answer, lastSeen: -1 };
}

/**
 * A document of exactly `lengthTokens` tokens, `<s>` included: facts, questions about them at distances from a few
 * tokens to nearly the whole document, and background.
 *
 * @throws {RangeError} if `lengthTokens` is below 16: no fact and question fit
 */
export function factDocument(random: Random, lengthTokens: number): FactDocument {
  if (lengthTokens < 16) {
    throw new RangeError(`Cannot write a fact document of ${lengthTokens} tokens: at least 16`);
  }
  const story = new Story(random, lengthTokens);
  while (story.length < lengthTokens) story.tell();
  return {
    text: story.tokens.slice(1, lengthTokens).join(" "),
    queries: story.queries.filter((query) => query.position < lengthTokens),
  };
}

/**
 * A random sequence of words, repeated to `lengthTokens` tokens with `<s>`. Nothing but copying predicts it, which is
 * what makes attention learn to copy.
 */
export function repeatDocument(random: Random, lengthTokens: number): string {
  const period = 8 + random.below(Math.max(1, Math.floor(lengthTokens / 2) - 8));
  const sequence = Array.from({ length: period }, () => random.pick(WORDS));
  return Array.from({ length: lengthTokens - 1 }, (_, i) => sequence[i % period]).join(" ");
}

/**
 * A document that states one code word once, `distance` tokens before it asks for it; everything else goes on as
 * in {@linkcode factDocument}. The prompt is at most `lengthTokens - 1` tokens with `<s>`.
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
  const story = new Story(random, lengthTokens);
  const target = story.untold.find((fact) => fact.statement.includes("code"))!;
  story.untold.splice(story.untold.indexOf(target), 1);
  const end = lengthTokens - 1 - target.question.length;
  while (story.length < end - distance) story.tell();
  story.state(target);
  story.told.pop();
  while (story.length + LONGEST_SENTENCE <= end) story.tell();
  story.tokens.push(...target.question);
  return {
    prompt: story.tokens.slice(1).join(" "),
    answer: target.answer,
    distance: story.length - target.lastSeen,
  };
}

/** Words of the longest sentence {@linkcode Story.tell} writes. */
const LONGEST_SENTENCE = 9;
