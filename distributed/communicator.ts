/**
 * Ranks: the processes of one job, numbered from 0. Every rank calls the same methods in the same order, one at a time, but
 * for {@linkcode Communicator.exchange}; each returns when this rank's part is done. Sums are made in an order that is fixed
 * for a number of ranks, so that they are the same bits on every rank and in every run.
 */
export interface Communicator {
  /** This process, from 0. */
  readonly rank: number;
  /** How many processes there are. */
  readonly size: number;
  /** Sums `values` over the ranks, element by element, in place. All ranks give the same number of values. */
  allReduce(values: Float32Array): Promise<void>;
  /**
   * Sums `values` over the ranks and returns this rank's part of the sum: of size n / {@linkcode Communicator.size}, which
   * must divide n.
   */
  reduceScatter(values: Float32Array): Promise<Float32Array>;
  /** Gives every rank the bytes of all, in the order of the ranks; they may differ in length. */
  allGather(bytes: Uint8Array): Promise<Uint8Array[]>;
  /** Overwrites `bytes` with those of `root`. All ranks give the same number of bytes. */
  broadcast(bytes: Uint8Array, root: number): Promise<void>;
  /**
   * Sends and receives at once, null for none; a message arrives whole, into a buffer of its length. Only the ranks of a
   * message call this, between the same calls of other methods; messages from one to another arrive in their order.
   */
  exchange(send: Message | null, receive: Message | null): Promise<void>;
  /** Waits until every rank has come here. */
  barrier(): Promise<void>;
}

/** Bytes to or from another rank. */
export interface Message {
  /** The other rank. */
  readonly rank: number;
  /** What is sent, or where it is received. */
  readonly bytes: Uint8Array;
}

/** The job of one process, which needs no library. */
export const ALONE: Communicator = {
  rank: 0,
  size: 1,
  allReduce: () => Promise.resolve(),
  reduceScatter: (values) => Promise.resolve(values.slice()),
  allGather: (bytes) => Promise.resolve([bytes.slice()]),
  broadcast: () => Promise.resolve(),
  exchange: () => Promise.resolve(),
  barrier: () => Promise.resolve(),
};
