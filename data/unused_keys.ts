/** Counts what rows hold and nothing reads, so that it is said once for all of them. */

/** Names that are told apart, and that are shown. */
const MOST_COUNTED = 1000;
const MOST_SHOWN = 12;

export class UnusedKeys {
  readonly #counts = new Map<string, number>();

  add(key: string): void {
    const isNew = !this.#counts.has(key);
    const name = isNew && this.#counts.size >= MOST_COUNTED ? "others" : key;
    this.#counts.set(name, (this.#counts.get(name) ?? 0) + 1);
  }

  /** The counts, so that they can be kept: {@linkcode UnusedKeys.addAll} adds them again. */
  toJSON(): [key: string, rows: number][] {
    return [...this.#counts];
  }

  addAll(counts: ReturnType<UnusedKeys["toJSON"]>): void {
    for (const [key, rows] of counts) this.#counts.set(key, (this.#counts.get(key) ?? 0) + rows);
  }

  /** One line about a file's rows, or undefined where all is used. */
  describe(path: string): string | undefined {
    const { size } = this.#counts;
    if (size === 0) return undefined;
    const sorted = [...this.#counts].sort(([, a], [, b]) => b - a);
    const shown = sorted.slice(0, MOST_SHOWN).map(([key, rows]) =>
      `${key} (${rows} ${rows === 1 ? "row" : "rows"})`
    );
    const more = size > MOST_SHOWN ? ` and ${size - MOST_SHOWN} more` : "";
    return `${size} ${size === 1 ? "key" : "keys"} of ${path} ${size === 1 ? "is" : "are"} not used: ${
      shown.join(", ")
    }${more}`;
  }
}
