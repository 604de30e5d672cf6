/** Ranks of an MPI job, through the library that started it. Nothing here is loaded unless MPI started the process. */
import { UserError } from "../errors.ts";
import type { Communicator, Message } from "./communicator.ts";

/** The ranks of a job that MPI started, and its two ends. */
export interface Job {
  /** This process among the others. */
  readonly ranks: Communicator;
  /** Ends all processes of the job at once. */
  abort(exitCode: number): void;
  /** Leaves the job in order, with all others; nothing of it may be called afterwards. */
  leave(): void;
}

/** What differs between the two binary interfaces of MPI: Open MPI's, and MPICH's, which Intel MPI and Cray share. */
interface Abi {
  /** Communicators, types and operations are addresses in the one, numbers in the other. */
  readonly handle: "pointer" | "i32";
  /** `MPI_COMM_WORLD` */
  readonly world: Handle;
  readonly byte: Handle;
  readonly float: Handle;
  readonly sum: Handle;
  /** `MPI_IN_PLACE`, an address of nothing. */
  readonly inPlace: bigint;
  readonly ignoreStatus: bigint;
  /** `MPI_PROC_NULL` */
  readonly nobody: number;
}

type Handle = Deno.PointerValue | number;

/** Open MPI's handles are the addresses of its variables. */
const OPEN_MPI_VARIABLES = {
  ompi_mpi_comm_world: { type: "pointer", optional: true },
  ompi_mpi_byte: { type: "pointer", optional: true },
  ompi_mpi_float: { type: "pointer", optional: true },
  ompi_mpi_op_sum: { type: "pointer", optional: true },
} as const satisfies Deno.ForeignLibraryInterface;
const OPEN_MPI = { handle: "pointer", inPlace: 1n, ignoreStatus: 0n, nobody: -2 } as const;

/** Numbers of the MPICH ABI Compatibility Initiative. */
const MPICH: Abi = {
  handle: "i32",
  world: 0x44000000,
  byte: 0x4c00010d,
  float: 0x4c00040a,
  sum: 0x58000003,
  inPlace: -1n,
  ignoreStatus: 1n,
  nobody: -1,
};

/** Any thread may call the library, one at a time: calls that wait run in threads of Deno's. */
const MPI_THREAD_SERIALIZED = 2;
/** Elements of one call at most: MPI counts them in 31 bits. */
const MOST_ELEMENTS = 2 ** 28;
/** Sums of at most so many bytes do not wait in a thread, whose start would take as long as they do. */
const QUICK_BYTES = 8 * 2 ** 20;
/** Looks in a row whether all have come to a barrier, before the first pause: some ten microseconds. */
const EARLY_LOOKS = 100;
/** Milliseconds between two looks whether all have come to a barrier, at first and at most. */
const LOOKS = { first: 0.25, most: 20 } as const;

/** The functions that are called, by name. Those that wait for other ranks do not hold up Deno's events. */
function declarations(H: "pointer" | "i32") {
  const now = (...parameters: Deno.NativeType[]) => ({ parameters, result: "i32" } as const);
  const waiting = (
    ...parameters: Deno.NativeType[]
  ) => ({ ...now(...parameters), nonblocking: true } as const);
  const values = ["buffer", "i32", H] as const;
  return {
    MPI_Init_thread: now("usize", "usize", "i32", "buffer"),
    MPI_Comm_rank: now(H, "buffer"),
    MPI_Comm_size: now(H, "buffer"),
    MPI_Allreduce: waiting("isize", ...values, H, H),
    allreduceNow: { name: "MPI_Allreduce", ...now("isize", ...values, H, H) },
    MPI_Reduce_scatter_block: waiting("buffer", ...values, H, H),
    MPI_Allgather: waiting(...values, ...values, H),
    MPI_Allgatherv: waiting(...values, "buffer", "buffer", "buffer", H, H),
    MPI_Bcast: waiting(...values, "i32", H),
    MPI_Sendrecv: waiting(...values, "i32", "i32", ...values, "i32", "i32", H, "isize"),
    MPI_Ibarrier: now(H, "buffer"),
    MPI_Test: now("buffer", "buffer", "isize"),
    MPI_Abort: now(H, "i32"),
    MPI_Finalize: now(),
  };
}

type Argument = Handle | bigint | ArrayBufferView;
type Functions = Readonly<
  Record<keyof ReturnType<typeof declarations>, (...given: Argument[]) => number | Promise<number>>
>;

/**
 * Joins the job that MPI started this process for.
 * @param path the library, of Open MPI 4 or newer, or with MPICH's binary interface
 * @throws {UserError} if it cannot be loaded, or may not be called as Deno calls it
 */
export function joinJob(path: string): Job {
  let abi: Abi;
  let mpi: Functions;
  try {
    const { symbols } = Deno.dlopen(path, OPEN_MPI_VARIABLES);
    const { ompi_mpi_comm_world: world, ompi_mpi_byte: byte, ompi_mpi_float: float } = symbols;
    abi = world === null ? MPICH : { ...OPEN_MPI, world, byte, float, sum: symbols.ompi_mpi_op_sum };
    mpi = Deno.dlopen(path, declarations(abi.handle)).symbols as unknown as Functions;
  } catch (error) {
    throw new UserError(
      `Cannot use "${path}" for MPI: ${
        (error as Error).message
      }. LONGREACH_MPI_LIBRARY names another library`,
      { cause: error },
    );
  }
  const number = new Int32Array(1);
  const ask = (name: "MPI_Comm_rank" | "MPI_Comm_size") => {
    check(name, mpi[name](abi.world, number) as number);
    return number[0]!;
  };
  check("MPI_Init_thread", mpi.MPI_Init_thread(0n, 0n, MPI_THREAD_SERIALIZED, number) as number);
  if (number[0]! < MPI_THREAD_SERIALIZED) {
    throw new UserError(
      `Cannot use "${path}" for MPI: it was built without threads (it offers level ${number[0]})`,
    );
  }
  return {
    ranks: new MpiRanks(mpi, abi, ask("MPI_Comm_rank"), ask("MPI_Comm_size")),
    abort: (exitCode) => void mpi.MPI_Abort(abi.world, exitCode),
    leave: () => check("MPI_Finalize", mpi.MPI_Finalize() as number),
  };
}

/** By default the library ends the job itself where it fails. */
function check(name: keyof Functions, code: number): void {
  if (code !== 0) throw new Error(`${name} failed with MPI's error ${code}`);
}

/**
 * Sums are the library's own, whose order hangs on the number of ranks and values and where the ranks run, not on time.
 */
class MpiRanks implements Communicator {
  readonly #mpi: Functions;
  readonly #abi: Abi;

  constructor(mpi: Functions, abi: Abi, readonly rank: number, readonly size: number) {
    this.#mpi = mpi;
    this.#abi = abi;
  }

  async allReduce(values: Float32Array): Promise<void> {
    const { inPlace, float, sum, world } = this.#abi;
    for (const part of parts(values)) {
      const isQuick = part.byteLength <= QUICK_BYTES;
      // The barrier waits for late ranks with pauses; the sum then takes as long as its bytes.
      if (isQuick) await this.barrier();
      const name = isQuick ? "allreduceNow" : "MPI_Allreduce";
      await this.#call(name, inPlace, part, part.length, float, sum, world);
    }
  }

  async reduceScatter(values: Float32Array): Promise<Float32Array> {
    const { float, sum, world } = this.#abi;
    const own = values.length / this.size;
    if (!Number.isInteger(own)) {
      throw new Error(`${values.length} values are not divisible among ${this.size} ranks`);
    }
    const result = new Float32Array(own);
    if (own > 0) await this.#call("MPI_Reduce_scatter_block", values, result, own, float, sum, world);
    return result;
  }

  async allGather(bytes: Uint8Array): Promise<Uint8Array[]> {
    const { byte, world } = this.#abi;
    const own = Int32Array.of(bytes.length);
    const lengths = new Int32Array(this.size);
    await this.#call("MPI_Allgather", own, 4, byte, lengths, 4, byte, world);
    const starts = lengths.map((_, rank) =>
      lengths.subarray(0, rank).reduce((sum, length) => sum + length, 0)
    );
    const total = starts.at(-1)! + lengths.at(-1)!;
    if (total >= 2 ** 31) throw new Error(`${total} bytes are more than MPI gathers at once`);
    const all = new Uint8Array(total);
    await this.#call("MPI_Allgatherv", bytes, bytes.length, byte, all, lengths, starts, byte, world);
    return Array.from(lengths, (length, rank) => all.subarray(starts[rank]!, starts[rank]! + length));
  }

  async broadcast(bytes: Uint8Array, root: number): Promise<void> {
    const { byte, world } = this.#abi;
    for (const part of parts(bytes)) await this.#call("MPI_Bcast", part, part.length, byte, root, world);
  }

  async exchange(send: Message | null, receive: Message | null): Promise<void> {
    const { byte, world, nobody, ignoreStatus } = this.#abi;
    const [out, back] = [parts(send?.bytes), parts(receive?.bytes)];
    const end = (message: Message | null, part: Uint8Array | undefined): Argument[] =>
      message && part ? [part, part.length, byte, message.rank, 0] : [new Uint8Array(0), 0, byte, nobody, 0];
    for (let i = 0; i < Math.max(out.length, back.length); i++) {
      await this.#call("MPI_Sendrecv", ...end(send, out[i]), ...end(receive, back[i]), world, ignoreStatus);
    }
  }

  /** Looks now and then, so that a rank that waits for long work of another leaves it the processor. */
  async barrier(): Promise<void> {
    const request = new BigUint64Array(1);
    const isDone = new Int32Array(1);
    await this.#call("MPI_Ibarrier", this.#abi.world, request);
    for (let i = 0; i < EARLY_LOOKS; i++) {
      await this.#call("MPI_Test", request, isDone, this.#abi.ignoreStatus);
      if (isDone[0] !== 0) return;
    }
    for (let wait: number = LOOKS.first;; wait = Math.min(2 * wait, LOOKS.most)) {
      await this.#call("MPI_Test", request, isDone, this.#abi.ignoreStatus);
      if (isDone[0] !== 0) return;
      await new Promise((resolve) => setTimeout(resolve, wait));
    }
  }

  async #call(name: keyof Functions, ...given: Argument[]): Promise<void> {
    check(name, await this.#mpi[name](...given));
  }
}

/** Cuts values into parts that one call takes; none of nothing. */
function parts<T extends Float32Array | Uint8Array>(values: T | undefined): T[] {
  const { length } = values ?? [];
  return Array.from(
    { length: Math.ceil(length / MOST_ELEMENTS) },
    (_, i) => values!.subarray(i * MOST_ELEMENTS, (i + 1) * MOST_ELEMENTS) as T,
  );
}
