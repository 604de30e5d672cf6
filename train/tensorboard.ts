/**
 * TensorBoard's event files, which hold scalars over steps: `Event` messages of protocol buffers in TFRecord framing.
 * Fields by number: TensorFlow's `event.proto` and `summary.proto`; framing: TensorFlow's `record_writer.cc`.
 */
import { elsewhere, fileError } from "../checkpoint/files.ts";
import { AppendFile } from "./append_file.ts";

/** `Event`: when, at which step, and one of version, values, or the mark of a start. */
const EVENT = { wallTime: 1, step: 2, fileVersion: 3, summary: 5, sessionLog: 7 };
/** `Summary.Value` within `Summary.value`, the first field. */
const VALUE = { tag: 1, simpleValue: 2 };
/** `SessionLog.status`, and its START: readers drop what they have from that step on. */
const SESSION_START = [tag(1, 0), 1];

/** Writes the events of one start of a run; each start has a file of its own in the folder. */
export class EventFile {
  readonly #folder: string;
  readonly #file: AppendFile;
  readonly #now: () => number;

  /**
   * @param now milliseconds since 1970
   * @param onProblem told when events cannot be written for the time being
   */
  constructor(folder: string, now: () => number = Date.now, onProblem: (problem: string) => void = () => {}) {
    const started = now();
    const part = String(started % 1000).padStart(3, "0");
    this.#folder = folder;
    const path = `${folder}/events.out.tfevents.${Math.floor(started / 1000)}.longreach.${part}`;
    this.#file = new AppendFile(path, onProblem);
    this.#now = now;
  }

  /**
   * Begins the file.
   * @param step the first that may come: what earlier files hold from there on is void. At 0 those files are removed
   * @throws {UserError} if it cannot be written
   */
  async open(step: number): Promise<void> {
    try {
      await Deno.mkdir(this.#folder, { recursive: true });
      if (step === 0) await removeEvents(this.#folder);
    } catch (error) {
      const { path } = this.#file;
      throw fileError(error, `Cannot write "${path}"`, elsewhere("choose another output_dir"));
    }
    const version = this.#record(
      lengthDelimited(EVENT.fileVersion, new TextEncoder().encode("brain.Event:2")),
    );
    const start = this.#record([
      ...varintField(EVENT.step, step),
      ...lengthDelimited(EVENT.sessionLog, Uint8Array.from(SESSION_START)),
    ]);
    await this.#file.open(Uint8Array.from([...version, ...start]));
  }

  /** Adds the values of a step, by their tags. */
  async add(step: number, values: Readonly<Record<string, number>>): Promise<void> {
    const summary = Object.entries(values).flatMap(([name, value]) =>
      lengthDelimited(
        1,
        Uint8Array.from([
          ...lengthDelimited(VALUE.tag, new TextEncoder().encode(name)),
          tag(VALUE.simpleValue, 5),
          ...bytesOf(4, (view) => view.setFloat32(0, value, true)),
        ]),
      )
    );
    const fields = [
      ...varintField(EVENT.step, step),
      ...lengthDelimited(EVENT.summary, Uint8Array.from(summary)),
    ];
    await this.#file.add(this.#record(fields));
  }

  #record(fields: readonly number[]): Uint8Array {
    const seconds = this.#now() / 1000;
    const time = [tag(EVENT.wallTime, 1), ...bytesOf(8, (view) => view.setFloat64(0, seconds, true))];
    return encodeRecord(Uint8Array.from([...time, ...fields]));
  }
}

async function removeEvents(folder: string): Promise<void> {
  for await (const { name, isFile } of Deno.readDir(folder)) {
    if (isFile && name.includes(".tfevents.")) await Deno.remove(`${folder}/${name}`);
  }
}

/** Key of a field: its number and how it is stored (0 varint, 1 eight bytes, 2 length and bytes, 5 four bytes). */
function tag(field: number, wire: 0 | 1 | 2 | 5): number {
  return field << 3 | wire;
}

function varint(value: number): number[] {
  const bytes: number[] = [];
  for (; value >= 128; value = Math.floor(value / 128)) bytes.push(value % 128 | 128);
  return [...bytes, value];
}

function varintField(field: number, value: number): number[] {
  return [tag(field, 0), ...varint(value)];
}

function lengthDelimited(field: number, bytes: Uint8Array): number[] {
  return [tag(field, 2), ...varint(bytes.length), ...bytes];
}

function bytesOf(length: number, fill: (view: DataView) => void): Uint8Array<ArrayBuffer> {
  const view = new DataView(new ArrayBuffer(length));
  fill(view);
  return new Uint8Array(view.buffer);
}

/** Length, its check, data, its check. */
function encodeRecord(data: Uint8Array): Uint8Array<ArrayBuffer> {
  return bytesOf(data.length + 16, (view) => {
    view.setBigUint64(0, BigInt(data.length), true);
    const bytes = new Uint8Array(view.buffer);
    view.setUint32(8, maskedCrc(bytes.subarray(0, 8)), true);
    bytes.set(data, 12);
    view.setUint32(12 + data.length, maskedCrc(data), true);
  });
}

/** TFRecord's form of the check, so that the check of data which holds checks is no trivial one. */
function maskedCrc(bytes: Uint8Array): number {
  const crc = crc32c(bytes);
  return ((crc >>> 15 | crc << 17) + 0xa282ead8) >>> 0;
}

/** Remainders of each byte by the reversed polynomial of Castagnoli. */
const REMAINDERS = Uint32Array.from({ length: 256 }, (_, byte) => {
  let rest = byte;
  for (let bit = 0; bit < 8; bit++) rest = rest & 1 ? rest >>> 1 ^ 0x82f63b78 : rest >>> 1;
  return rest;
});

/** CRC-32C (Castagnoli, RFC 3720 appendix B.4). */
export function crc32c(bytes: Uint8Array): number {
  let crc = 0xffffffff;
  for (const byte of bytes) crc = REMAINDERS[(crc ^ byte) & 255]! ^ crc >>> 8;
  return (crc ^ 0xffffffff) >>> 0;
}
