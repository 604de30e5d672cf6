import type { Io, Lines } from "../../cli/io.ts";

/** What `exit` throws, since a test must not end. */
class Exited extends Error {
  constructor(readonly code: number) {
    super(`exit ${code}`);
  }
}

/** An {@linkcode Io} that keeps what is written. */
export class MemoryIo implements Io {
  stdout = "";
  stderr = "";
  readonly isTerminal: boolean;
  readonly color: boolean;
  readonly #columns: number;

  readonly #input: readonly string[];

  /** @param options.input lines that are typed */
  constructor({ isTerminal = false, color = false, columns = 100, input = [] as readonly string[] } = {}) {
    this.isTerminal = isTerminal;
    this.color = color;
    this.#columns = columns;
    this.#input = input;
  }
  out(text: string): void {
    this.stdout += `${text}\n`;
  }
  print(text: string): void {
    this.stdout += text;
  }
  err(text: string): void {
    this.stderr += `${text}\n`;
  }
  draw(text: string): void {
    this.stderr += text;
  }
  columns(): number {
    return this.#columns;
  }
  lines(): Lines {
    const left = [...this.#input];
    return {
      ask: () => {},
      close: () => left.splice(0),
      async *[Symbol.asyncIterator]() {
        while (left.length > 0) yield left.shift()!;
      },
    };
  }
  exit(code: number): never {
    throw new Exited(code);
  }
}
