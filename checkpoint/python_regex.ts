/**
 * Regular expressions as Python's `re` has them, for names of modules. Files of others bring them, so matching must end:
 * a match is not searched for by trying and going back, but by following all places at once where it can have got to.
 */

/** Positions in `text` that a match may have reached; its work is counted, and stops at {@linkcode MOST_STEPS}. */
interface Run {
  readonly text: string;
  steps: number;
}

/** Part of an expression: from the places where it may begin to those where it may end. */
type Node = (run: Run, from: ReadonlySet<number>) => ReadonlySet<number>;

/** Whether a character, one UTF-16 unit, is of a set. */
type CharTest = (char: string) => boolean;

const MOST_CHARACTERS = 10_000;
const MOST_NESTED = 50;
const MOST_REPEATS = 1000;
const MOST_STEPS = 100_000;

const CLASSES: Readonly<Record<string, CharTest>> = {
  d: (char) => /\d/.test(char),
  D: (char) => /\D/.test(char),
  w: (char) => /[\p{L}\p{N}_]/u.test(char),
  W: (char) => /[^\p{L}\p{N}_]/u.test(char),
  s: (char) => /\s/.test(char),
  S: (char) => /\S/.test(char),
};

const CONTROLS: Readonly<Record<string, string>> = {
  a: "\x07",
  f: "\f",
  n: "\n",
  r: "\r",
  t: "\t",
  v: "\v",
};

/**
 * Compiles an expression to what `re.fullmatch` says of a text: whether it matches as a whole.
 * @throws {SyntaxError} with the reason, where Python would refuse the expression too, or where it needs what does not
 *   exist here: backreferences, conditions, atomic groups, possessive repeats, verbose mode. The function itself throws
 *   a RangeError where matching takes more than a hundred thousand steps
 */
export function compilePythonRegex(source: string): (text: string) => boolean {
  if (source.length > MOST_CHARACTERS) {
    throw new SyntaxError(`it is longer than ${MOST_CHARACTERS} characters`);
  }
  const node = new Parser(source).parse();
  return (text) => node({ text, steps: 0 }, new Set([0])).has(text.length);
}

class Parser {
  #at = 0;
  #depth = 0;
  #ignoreCase = false;

  constructor(readonly source: string) {}

  parse(): Node {
    // Python takes flags for the whole expression at its start only.
    const flags = /^\(\?([a-zA-Z]+)\)/.exec(this.source);
    if (flags) {
      this.#at = flags[0].length;
      this.#ignoreCase = this.#flags(flags[1]!).has("i");
    }
    const node = this.#alternatives();
    if (this.#at < this.source.length) this.#fail("it has a ) too many");
    return node;
  }

  #alternatives(): Node {
    if (++this.#depth > MOST_NESTED) this.#fail(`its groups are nested deeper than ${MOST_NESTED}`);
    const nodes = [this.#sequence()];
    while (this.#take("|")) nodes.push(this.#sequence());
    this.#depth--;
    return nodes.length === 1 ? nodes[0]! : (run, from) => union(nodes.map((node) => node(run, from)));
  }

  #sequence(): Node {
    const nodes: Node[] = [];
    while (this.#at < this.source.length && !this.#sees("|") && !this.#sees(")")) {
      nodes.push(this.#repeated());
    }
    return (run, from) =>
      nodes.reduce((places, node) => places.size === 0 ? places : node(run, places), from);
  }

  #repeated(): Node {
    if (this.#quantifier()) this.#fail("it has nothing to repeat");
    const node = this.#atom();
    const range = this.#quantifier();
    if (!range) return node;
    this.#take("?"); // Lazy or greedy: what can match is the same.
    if (this.#sees("+")) this.#fail("it has a possessive repeat");
    if (/[*?]/.test(this.#next) || this.#quantifier()) this.#fail("it repeats a repeat");
    return repeat(node, ...range);
  }

  /** Reads a quantifier: how often the part before is to occur. */
  #quantifier(): [number, number] | undefined {
    if (this.#take("*")) return [0, Infinity];
    if (this.#take("+")) return [1, Infinity];
    if (this.#take("?")) return [0, 1];
    const counts = /^\{(\d*)(,?)(\d*)\}/.exec(this.source.slice(this.#at));
    // Braces with nothing in them are themselves.
    if (!counts || (counts[1] === "" && counts[2] === "")) return undefined;
    this.#at += counts[0].length;
    const least = Number(counts[1]);
    const most = counts[2] === "" ? least : counts[3] === "" ? Infinity : Number(counts[3]);
    if (least > most) this.#fail(`its ${counts[0]} has the larger number first`);
    if (least > MOST_REPEATS || (most > MOST_REPEATS && most !== Infinity)) {
      this.#fail(`its ${counts[0]} is more than ${MOST_REPEATS} repeats`);
    }
    return [least, most];
  }

  #atom(): Node {
    const char = this.source[this.#at++]!;
    if (char === "(") return this.#group();
    if (char === "[") return this.#step(this.#set());
    if (char === ".") return this.#step((c) => c !== "\n");
    if (char === "^") return atPlace((_, at) => at === 0);
    // A name holds no line break, before which Python's $ matches too.
    if (char === "$") return atPlace(({ text }, at) => at === text.length);
    if (char === "\\") return this.#escape();
    return this.#step(this.#literal(char));
  }

  #group(): Node {
    const ignoreCase = this.#ignoreCase;
    const node = this.#groupKind();
    if (!this.#take(")")) this.#fail("it lacks a )");
    this.#ignoreCase = ignoreCase;
    return node;
  }

  #groupKind(): Node {
    if (!this.#take("?") || this.#take(":")) return this.#alternatives();
    const isLook = /^(<?)([=!])/.exec(this.source.slice(this.#at));
    if (isLook) {
      this.#at += isLook[0].length;
      const node = this.#alternatives();
      const isWanted = isLook[2] === "=";
      return atPlace((run, at) =>
        (isLook[1] === "<" ? endsAt(node, run, at) : node(run, new Set([at])).size > 0) === isWanted
      );
    }
    if (this.#take("#")) {
      while (this.#at < this.source.length && !this.#sees(")")) this.#at++;
      return (_, from) => from;
    }
    const name = /^P<[A-Za-z_]\w*>/.exec(this.source.slice(this.#at));
    if (name) {
      this.#at += name[0].length;
      return this.#alternatives();
    }
    const flags = /^([a-zA-Z]*)(-[a-zA-Z]+)?:/.exec(this.source.slice(this.#at));
    if (flags) {
      this.#at += flags[0].length;
      if (this.#flags(flags[1]!).has("i")) this.#ignoreCase = true;
      if (this.#flags(flags[2]?.slice(1) ?? "").has("i")) this.#ignoreCase = false;
      return this.#alternatives();
    }
    const kinds: readonly [string, string][] = [[">", "an atomic group"], ["(", "a condition"], [
      "P=",
      "a backreference",
    ]];
    const kind = kinds.find(([start]) => this.source.startsWith(start, this.#at));
    return this.#fail(kind ? `it has ${kind[1]}` : `it has (?${this.#next}, which starts no group here`);
  }

  #flags(letters: string): ReadonlySet<string> {
    // Without line breaks m and s mean nothing, nor do a and u in names of ASCII.
    const wrong = [...letters].find((letter) => !"aimsu".includes(letter));
    if (wrong !== undefined) this.#fail(`it has the flag ${wrong}`);
    return new Set(letters);
  }

  #escape(): Node {
    const char = this.#next;
    if (/[1-9]/.test(char)) this.#fail(`it has the backreference \\${char}`);
    const place = PLACES[char];
    if (place) {
      this.#at++;
      return atPlace(place);
    }
    return this.#step(this.#escapedTest());
  }

  /** Reads what follows a backslash: a class of characters, or one. */
  #escapedTest(): CharTest {
    const test = CLASSES[this.#next];
    if (!test) return this.#literal(this.#escapedChar());
    this.#at++;
    return test;
  }

  #escapedChar(): string {
    const char = this.#next;
    if (char === "") this.#fail("it ends in a backslash");
    this.#at++;
    const digits: Readonly<Record<string, number>> = { x: 2, u: 4 };
    if (digits[char]) {
      const code = this.source.slice(this.#at, this.#at += digits[char]);
      if (!/^[\da-fA-F]+$/.test(code) || code.length < digits[char]) this.#fail(`its \\${char} lacks digits`);
      return String.fromCharCode(parseInt(code, 16));
    }
    if (char === "0") {
      const octal = /^[0-7]{0,2}/.exec(this.source.slice(this.#at))![0];
      this.#at += octal.length;
      return String.fromCharCode(parseInt(`0${octal}`, 8));
    }
    if (CONTROLS[char]) return CONTROLS[char];
    if (/[A-Za-z\d]/.test(char)) this.#fail(`it has the escape \\${char}`);
    return char;
  }

  /** The characters between brackets. */
  #set(): CharTest {
    const isNegated = this.#take("^");
    const tests: CharTest[] = [];
    // A bracket that comes first is one of the set.
    for (let first = true; first || !this.#sees("]"); first = false) {
      if (this.#at >= this.source.length) this.#fail("it lacks a ]");
      const start = this.#setItem();
      const isRange = this.#sees("-") && this.source[this.#at + 1] !== "]" &&
        this.#at + 1 < this.source.length;
      if (!isRange) {
        tests.push(typeof start === "string" ? this.#literal(start) : start);
        continue;
      }
      this.#at++;
      const end = this.#setItem();
      if (typeof start !== "string" || typeof end !== "string" || start > end) {
        this.#fail("it has a range that is none");
      }
      tests.push(this.#cased((char) => char >= (start as string) && char <= (end as string)));
    }
    this.#at++;
    return (char) => tests.some((test) => test(char)) !== isNegated;
  }

  #setItem(): string | CharTest {
    const char = this.source[this.#at++]!;
    if (char !== "\\") return char;
    if (this.#take("b")) return "\b";
    return CLASSES[this.#next] ? this.#escapedTest() : this.#escapedChar();
  }

  #literal(wanted: string): CharTest {
    return this.#cased((char) => char === wanted);
  }

  #cased(test: CharTest): CharTest {
    return this.#ignoreCase ? (char) => test(char.toLowerCase()) || test(char.toUpperCase()) : test;
  }

  #step(test: CharTest): Node {
    return (run, from) => {
      count(run, from.size);
      const places = new Set<number>();
      for (const at of from) if (at < run.text.length && test(run.text[at]!)) places.add(at + 1);
      return places;
    };
  }

  get #next(): string {
    return this.source[this.#at] ?? "";
  }

  #sees(char: string): boolean {
    return this.#next === char;
  }

  #take(char: string): boolean {
    const found = this.#sees(char);
    if (found) this.#at++;
    return found;
  }

  #fail(reason: string): never {
    throw new SyntaxError(reason);
  }
}

const isWord = (run: Run, at: number): boolean =>
  at >= 0 && at < run.text.length && CLASSES.w!(run.text[at]!);

/** Escapes that match between characters. */
const PLACES: Readonly<Record<string, (run: Run, at: number) => boolean>> = {
  A: (_, at) => at === 0,
  Z: ({ text }, at) => at === text.length,
  b: (run, at) => isWord(run, at - 1) !== isWord(run, at),
  B: (run, at) => isWord(run, at - 1) === isWord(run, at),
};

/** Matches nothing, at the places that a test allows. */
function atPlace(test: (run: Run, at: number) => boolean): Node {
  return (run, from) => {
    count(run, from.size);
    return new Set([...from].filter((at) => test(run, at)));
  };
}

/** Whether a match from anywhere before ends at a place. */
function endsAt(node: Node, run: Run, at: number): boolean {
  return node(run, new Set(Array.from({ length: at + 1 }, (_, start) => start))).has(at);
}

function repeat(node: Node, least: number, most: number): Node {
  return (run, from) => {
    let places = from;
    for (let i = 0; i < least && places.size > 0; i++) places = node(run, places);
    const all = new Set(places);
    // Only from new places on: a part that matches nothing cannot go round for ever.
    for (let i = least; i < most && places.size > 0; i++) {
      count(run, 1);
      places = new Set([...node(run, places)].filter((at) => !all.has(at)));
      places.forEach((at) => all.add(at));
    }
    return all;
  };
}

function union(sets: readonly ReadonlySet<number>[]): ReadonlySet<number> {
  const all = new Set<number>();
  for (const set of sets) set.forEach((at) => all.add(at));
  return all;
}

function count(run: Run, steps: number): void {
  run.steps += steps + 1;
  if (run.steps > MOST_STEPS) throw new RangeError(`it takes more than ${MOST_STEPS} steps`);
}
