import type { Dice } from "./dice.ts";

/** One reader of files, as it is fuzzed: by everyday tests with few inputs and by `deno task campaign fuzz` with many. */
export interface Reader {
  /** Inputs of an everyday run. */
  readonly everyday: number;
  /** Known faults that the everyday tests wait for; the campaign does not. */
  readonly waits?: string;
  /**
   * Least and most share of inputs that are accepted: inputs of which all are refused, or none, prove nothing.
   */
  readonly accepted: readonly [least: number, most: number];
  /** Lines that a refusal may have; one unless given. */
  readonly lines?: number;
  /** Makes an input: a right one, most often damaged. */
  make(dice: Dice): Uint8Array | Promise<Uint8Array>;
  /**
   * Reads an input whole and checks what came out. Nothing but a UserError refuses an input; any other error is a fault.
   * @param folder where files may be written, empty or with those of the input before
   */
  read(input: Uint8Array, folder: string): unknown;
  /** Says whether an input is right, in another way than the reader does. */
  isRight?(input: Uint8Array): boolean;
}
