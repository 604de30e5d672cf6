/**
 * Sequence parallelism for shifted sparse attention: ranks hold consecutive rows of a batch, cut where groups end. Half of
 * the heads see nothing across such a cut. The others have a group around it, so the rank behind needs the keys and values
 * that the rank before has in that group, half a group of each layer, and gives their gradients back. Nothing wraps around.
 *
 * The ranks of a job are taken in runs of `sequence_parallel_size`: each run shares its batches, and is as one rank of data
 * parallel training. Positions, dropout and noise are those of the whole batch.
 */
import type { Communicator } from "../distributed/communicator.ts";
import { UserError } from "../errors.ts";
import type { AttentionShape } from "../kernels/attention/attention.ts";
import { type AttentionRule, type KeyTables, rowsSeenBefore } from "../kernels/attention/map.ts";
import type { Gpu } from "../kernels/gpu.ts";
import type { HostTensor } from "../kernels/host.ts";
import { NO_LABEL } from "../kernels/loss/cross_entropy.ts";
import { type Dtype, ROW_ALIGNMENT, type Tensor } from "../kernels/tensor.ts";
import type { Batch } from "../model/batch.ts";
import type { KeyExchange, KeysAndValues } from "../model/key_exchange.ts";

/** The ranks that share sequences with this one. */
export class SequenceParallel {
  /** How many they are. */
  readonly size: number;
  /** This rank among them, from 0: it holds the rows behind those of the one before. */
  readonly place: number;
  /** How many runs of ranks there are, each of which trains on batches of its own. */
  readonly replicas: number;
  /** That of this rank, from 0. */
  readonly replica: number;
  readonly #ranks: Communicator;
  readonly #first: number;

  /**
   * @param size ranks that share a batch
   * @throws {UserError} if it does not divide those of the job
   */
  constructor(ranks: Communicator, size: number) {
    if (ranks.size % size !== 0) {
      throw new UserError(
        `sequence_parallel_size ${size} does not divide the ${ranks.size} ranks of this job: start a multiple of ${size}`,
        { kind: "usage" },
      );
    }
    this.size = size;
    this.place = ranks.rank % size;
    this.replicas = ranks.size / size;
    this.replica = Math.floor(ranks.rank / size);
    this.#ranks = ranks;
    this.#first = ranks.rank - this.place;
  }

  /**
   * Cuts this rank's rows out of a batch; there may be none in a batch of fewer groups than ranks.
   * @throws {UserError} for full attention; when uploaded, for a window that reaches past the rank before
   */
  share(whole: Batch, rule: AttentionRule): Batch {
    if (this.size === 1) return whole;
    const cuts = cutRows(whole, rule, this.size);
    const [start, end] = [cuts[this.place]!, cuts[this.place + 1]!];
    const labels = whole.labels.slice(start, end);
    const within = (rows: readonly number[]) => [
      ...(end > start ? [0] : []),
      ...rows.filter((row) => row > start && row < end).map((row) => row - start),
    ];
    return {
      tokens: whole.tokens.slice(start, end),
      labels,
      positions: whole.positions.slice(start, end),
      starts: within(whole.starts),
      documents: within(whole.documents),
      rows: end - start,
      targets: labels.reduce((sum, label) => sum + (label === NO_LABEL ? 0 : 1), 0),
      longest: whole.longest,
      part: {
        whole,
        start,
        end,
        exchange: (tables) => {
          const borders = bordersOf(tables, cuts, this.place, this.#first);
          if (!borders.before && !borders.behind) return undefined;
          return (isRecomputed) => new BorderExchange(this.#ranks, end - start, borders, isRecomputed);
        },
      },
    };
  }
}

/**
 * Cuts the rows of a batch for ranks, at borders of groups that all heads but the shifted have, as evenly as they let it.
 * @returns where the rows of each rank start, and the end
 * @throws {UserError} for full attention
 */
export function cutRows(
  { starts, rows }: Pick<Batch, "starts" | "rows">,
  { groupSize }: AttentionRule,
  ranks: number,
): number[] {
  if (groupSize === undefined) {
    throw new UserError(
      "sequence_parallel_size above 1 needs S2-Attn: with full attention every token sees all before it, so that each " +
        "rank would need the keys and values of all ranks before. Set use_full_attn: false",
      { kind: "usage" },
    );
  }
  const borders = starts.flatMap((start, i) => {
    const end = starts[i + 1] ?? rows;
    return Array.from(
      { length: Math.ceil((end - start) / groupSize) },
      (_, group) => start + group * groupSize,
    );
  });
  borders.push(rows);
  let at = 0;
  return Array.from({ length: ranks + 1 }, (_, rank) => {
    const even = rows * rank / ranks;
    // The nearest one, and of two as near the later: so cuts never lie more groups apart than they must.
    while (at + 1 < borders.length && Math.abs(borders[at + 1]! - even) <= Math.abs(borders[at]! - even)) {
      at++;
    }
    return borders[at]!;
  });
}

/** What is seen across a border between two ranks. */
interface Border {
  /** The other rank, in the job. */
  readonly rank: number;
  /** Rows before the border that rows behind it see. */
  readonly rows: number;
  /** Whether only the second half of the query heads sees them. */
  readonly isShifted: boolean;
}

/** Borders of a rank's rows that something is seen across. */
interface Borders {
  readonly before: Border | undefined;
  readonly behind: Border | undefined;
}

/**
 * Finds the borders of one rank's rows. Looks at those of all ranks, so that all refuse alike.
 * @param first rank in the job of the first of those that share the batch
 */
function bordersOf(tables: KeyTables, cuts: readonly number[], place: number, first: number): Borders {
  const holders = cuts.slice(1).map((_, rank) => rank).filter((rank) => cuts[rank + 1]! > cuts[rank]!);
  const seen = holders.map((rank, i) => {
    const rows = rowsSeenBefore(tables, cuts[rank]!);
    const held = i === 0 ? 0 : cuts[rank]! - cuts[holders[i - 1]!]!;
    if (rows <= held) return rows;
    throw new UserError(
      `sequence_parallel_size ${
        cuts.length - 1
      } is too much: a window reaches ${rows} tokens back, and a rank has ${held}. ` +
        `Lower it, or train on longer sequences`,
      { kind: "usage" },
    );
  });
  const border = (behind: number, other: number | undefined): Border | undefined => {
    const rows = seen[behind];
    if (!rows || other === undefined) return undefined;
    const cut = cuts[holders[behind]!]!;
    return { rank: first + other, rows, isShifted: tables.first[cut] === cut };
  };
  const i = holders.indexOf(place);
  return i < 0
    ? { before: undefined, behind: undefined }
    : { before: border(i, holders[i - 1]), behind: border(i + 1, holders[i + 1]) };
}

/** Exchange by messages through host memory: WebGPU has no way from device to device. */
class BorderExchange implements KeyExchange {
  readonly tail: number;
  readonly #ranks: Communicator;
  readonly #rows: number;
  readonly #borders: Borders;
  readonly #isRecomputed: boolean;
  #isSent = false;
  #received: { readonly k: HostTensor; readonly v: HostTensor } | undefined;
  #dtype: Dtype = "f32";

  constructor(ranks: Communicator, rows: number, borders: Borders, isRecomputed: boolean) {
    this.#ranks = ranks;
    this.#rows = rows;
    this.#borders = borders;
    this.#isRecomputed = isRecomputed;
    this.tail = aligned(rows - (borders.behind?.rows ?? 0));
  }

  async bringKeys(gpu: Gpu, keys: KeysAndValues, shape: AttentionShape): Promise<void> {
    const { before, behind } = this.#borders;
    this.#dtype = keys.k.dtype;
    const seen = before && firstRows(keys, keys.k.rows - this.#rows);
    if (this.#isSent) {
      if (seen) await this.#bringAgain(seen);
      return;
    }
    this.#isSent = true;
    const reading = behind && read(gpu, keys, behind.rows);
    const received = await this.#exchange(behind, reading && await reading, before, keys.k.rowBytes, shape);
    if (!seen || !received) return;
    const [k, v] = received.map((bytes) => padded(bytes, seen.k.byteLength)) as [Uint8Array, Uint8Array];
    gpu.write(seen.k, k);
    gpu.write(seen.v, v);
    if (!this.#isRecomputed) return;
    const keep = async (tensor: Tensor, bytes: Uint8Array) => {
      const host = gpu.host.empty(tensor.shape, tensor.dtype, "keys of another rank");
      await host.write(bytes);
      return host;
    };
    this.#received = { k: await keep(seen.k, k), v: await keep(seen.v, v) };
  }

  /** Writes what was received before. */
  async #bringAgain(seen: KeysAndValues): Promise<void> {
    const { k, v } = this.#received!;
    await k.load(seen.k);
    await v.load(seen.v);
    k.free();
    v.free();
    this.#received = undefined;
  }

  async returnGradients(
    gpu: Gpu,
    gradients: KeysAndValues | undefined,
    shape: AttentionShape,
  ): Promise<KeysAndValues | undefined> {
    const { before, behind } = this.#borders;
    const reading = before && gradients && read(gpu, gradients, before.rows);
    const width = shape.kvHeads * shape.headDim;
    const rowBytes = width * (this.#dtype === "f32" ? 4 : 2);
    const received = await this.#exchange(before, reading && await reading, behind, rowBytes, shape);
    if (!received) return undefined;
    const [k, v] = received.map((bytes) => {
      const tensor = gpu.empty([this.#rows - this.tail, width], this.#dtype, "gradients of another rank");
      gpu.write(tensor, padded(bytes, tensor.byteLength));
      return tensor;
    });
    return { k: k!, v: v! };
  }

  /**
   * Sends rows of keys and values across one border, and receives those that come across the other.
   * @param rows two times (to.rows, K * D), undefined with `to`
   * @returns two times (from.rows, K * D), zeros in heads that are not seen; undefined with `from`
   */
  async #exchange(
    to: Border | undefined,
    rows: readonly Uint8Array[] | undefined,
    from: Border | undefined,
    rowBytes: number,
    shape: AttentionShape,
  ): Promise<readonly Uint8Array[] | undefined> {
    const headBytes = rowBytes / shape.kvHeads;
    const skipped = ({ isShifted }: Border) => isShifted ? firstShiftedHead(shape) * headBytes : 0;
    const send = to && rows && { rank: to.rank, bytes: packed(rows, rowBytes, skipped(to)) };
    const receive = from && {
      rank: from.rank,
      bytes: new Uint8Array(2 * from.rows * (rowBytes - skipped(from))),
    };
    await this.#ranks.exchange(send ?? null, receive ?? null);
    return from && receive && unpacked(receive.bytes, from.rows, rowBytes, skipped(from));
  }
}

/** The first kv head that shifted query heads use. */
function firstShiftedHead({ heads, kvHeads }: AttentionShape): number {
  return Math.floor(Math.ceil(heads / 2) / (heads / kvHeads));
}

/** Rounds down to a row that a binding may start at. */
function aligned(row: number): number {
  return Math.floor(row / ROW_ALIGNMENT) * ROW_ALIGNMENT;
}

function firstRows({ k, v }: KeysAndValues, rows: number): KeysAndValues {
  return { k: k.slice(0, rows), v: v.slice(0, rows) };
}

/** Starts to read the last `rows` rows. */
function read(gpu: Gpu, { k, v }: KeysAndValues, rows: number): Promise<Uint8Array[]> {
  return gpu.readBytes([k, v].map((tensor) => tensor.slice(tensor.rows - rows, tensor.rows)));
}

/** Joins tensors of rows, without the first `skip` bytes of each row. */
function packed(tensors: readonly Uint8Array[], rowBytes: number, skip: number): Uint8Array {
  const kept = rowBytes - skip;
  const packed = new Uint8Array(tensors.reduce((sum, bytes) => sum + bytes.length, 0) / rowBytes * kept);
  let at = 0;
  for (const bytes of tensors) {
    for (let row = 0; row < bytes.length; row += rowBytes, at += kept) {
      packed.set(bytes.subarray(row + skip, row + rowBytes), at);
    }
  }
  return packed;
}

/** Undoes {@linkcode packed} of two tensors, with zeros for what was skipped. */
function unpacked(bytes: Uint8Array, rows: number, rowBytes: number, skip: number): Uint8Array[] {
  const kept = rowBytes - skip;
  return [0, rows * kept].map((from) => {
    const tensor = new Uint8Array(rows * rowBytes);
    for (let row = 0; row < rows; row++) {
      const at = from + row * kept;
      tensor.set(bytes.subarray(at, at + kept), row * rowBytes + skip);
    }
    return tensor;
  });
}

/** Puts zeros before the bytes. */
function padded(bytes: Uint8Array, length: number): Uint8Array {
  const padded = new Uint8Array(length);
  padded.set(bytes, length - bytes.length);
  return padded;
}
