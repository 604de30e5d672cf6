import { ALONE, type Communicator } from "./communicator.ts";

/** Messages of one rank to those around it. */
export interface Traffic {
  /** Calls of {@linkcode Communicator.exchange} that send or receive something. */
  exchanges: number;
  /** Bytes of those, of each the larger of what is sent and what is received: both ways are used at once. */
  exchangedBytes: number;
}

/** Makes a rank of a job that is only counted: the others give what it gives, and what they would send is zero. */
export function dryCommunicator(rank: number, size: number): Communicator & { readonly traffic: Traffic } {
  const traffic = { exchanges: 0, exchangedBytes: 0 };
  return {
    ...ALONE,
    rank,
    size,
    traffic,
    reduceScatter: (values) => Promise.resolve(values.slice(0, values.length / size)),
    allGather: (bytes) => Promise.resolve(Array.from({ length: size }, () => bytes.slice())),
    exchange: (send, receive) => {
      const bytes = Math.max(send?.bytes.length ?? 0, receive?.bytes.length ?? 0);
      if (bytes > 0) traffic.exchanges++;
      traffic.exchangedBytes += bytes;
      return Promise.resolve();
    },
  };
}
