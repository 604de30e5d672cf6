import { formatMemory } from "../text.ts";
import { GpuMemoryError } from "./errors.ts";

/** A device buffer and what the pool knows of it. */
export interface PooledBuffer {
  /** Names the buffer in the keys of bind groups. */
  readonly id: number;
  readonly gpu: GPUBuffer;
  readonly size: number;
  /** Bytes that were asked for, while it is in use. */
  asked: number;
  /** Purpose, as an index of {@linkcode PURPOSES}. */
  place: number;
}

/** Purposes of memory on the device, in the order of reports. */
export const PURPOSES = [
  "base",
  "adapters",
  "gradients",
  "optimiser",
  "checkpoints",
  "activations",
  "cross-entropy",
  "scratch",
] as const;

/** Purpose of memory on the device. */
export type Purpose = (typeof PURPOSES)[number];

/** Use of the memory on the device at one time, or at its peak, in bytes. */
export interface MemoryUse {
  /** Buffers that the driver has given, in use or idle; of a peak, the most there were, at whatever time. */
  readonly heldBytes: number;
  /** Buffers in use; the sum of {@linkcode byPurpose}. */
  readonly liveBytes: number;
  /** Buffers in use, by purpose. */
  readonly byPurpose: Readonly<Record<Purpose, number>>;
  /** Phase of the work at that time: `backward, layer 31`. */
  readonly phase: string;
}

export interface PoolOptions {
  /** Most bytes to hold. */
  readonly limitBytes: number;
  /** Usage of its buffers; by kernels and copies unless given. */
  readonly usage?: GPUBufferUsageFlags;
  /** Buffers destroyed to make room for others before larger ones serve instead; {@linkcode CHURN} unless given. */
  readonly churn?: number;
  /** Called before buffers are destroyed: work that names them must be submitted. */
  readonly beforeDestroy: () => void;
}

/** A freed buffer serves a later request at once if at most this much larger than it. */
const LARGEST_WASTE = 1.125;
/** Idle buffers may make it hold this much more than was ever asked for, as a share: less, and steps make buffers anew. */
const IDLE_SHARE = 1 / 16;
/** Buffers in use may be this much larger than what was asked for, as a share of the most that ever was; or this much. */
const WASTE_SHARE = 1 / 50;
const WASTE_BYTES = 64 * 2 ** 20;
/** Room to make where a buffer has to go for another, as a share of all that are held. */
const LEAST_ROOM = 1 / 128;
/** More are destroyed to make room for others only where the lengths of samples change from step to step. */
const CHURN = 64;

/**
 * Buffers by size: freed ones are handed out again, since a training step asks for the same sizes over and over. Which
 * one depends on nothing but the requests and what is idle, so a step gets the buffers of the last step of its shape.
 *
 * Counts every byte on the device, in use or idle, by purpose. Where a new buffer would make it hold more than is
 * expected, or {@linkcode IDLE_SHARE} more than was ever asked for at once, or the limit, idle ones of other sizes are
 * destroyed first. Where that goes on, a larger idle one serves instead, up to {@linkcode WASTE_SHARE}: steps over shorter
 * sequences then run in the buffers of longer ones.
 */
export class BufferPool {
  /** Purpose of the buffers taken from now on. */
  purpose: Purpose = "scratch";
  /** Phase of the work; see {@linkcode MemoryUse.phase}. */
  phase = "";
  readonly #device: GPUDevice;
  readonly #options: PoolOptions;
  /** Buffers by size, the first made last. */
  readonly #idle = new Map<number, PooledBuffer[]>();
  /** Bytes in use by index of {@linkcode PURPOSES}. */
  readonly #byPurpose = new Float64Array(PURPOSES.length);
  #nextId = 1;
  #created = 0;
  #heldBytes = 0;
  #liveBytes = 0;
  #askedBytes = 0;
  #mostAsked = 0;
  #destroyed = 0;
  #expectedBytes: number | undefined;
  /** The peak in parts, since it moves often. */
  readonly #peak = { heldBytes: 0, liveBytes: 0, phase: "", byPurpose: new Float64Array(PURPOSES.length) };

  constructor(device: GPUDevice, options: PoolOptions) {
    this.#device = device;
    this.#options = options;
  }

  /** Bytes of buffers in use. */
  get liveBytes(): number {
    return this.#liveBytes;
  }

  /** Bytes that buffers may still take, once idle ones are destroyed. */
  get freeBytes(): number {
    return this.#options.limitBytes - this.#liveBytes;
  }

  /** Bytes of buffers on the device, in use or idle. */
  get heldBytes(): number {
    return this.#heldBytes;
  }

  /** Buffers asked from the driver so far. */
  get created(): number {
    return this.#created;
  }

  /** The memory now. */
  get use(): MemoryUse {
    return {
      heldBytes: this.#heldBytes,
      liveBytes: this.#liveBytes,
      byPurpose: named(this.#byPurpose),
      phase: this.phase,
    };
  }

  /** The memory when most was in use since the last {@linkcode resetPeak}, and the most that was held. */
  get peak(): MemoryUse {
    return { ...this.#peak, byPurpose: named(this.#peak.byPurpose) };
  }

  /** Holds idle buffers only as far as all together stay within `bytes`, as a plan has them. */
  expect(bytes: number): void {
    this.#expectedBytes = bytes;
  }

  /** Forgets the peak; gives back idle memory first, so that what is held is what is used. */
  resetPeak(): void {
    this.trim();
    this.#mostAsked = this.#askedBytes;
    this.#destroyed = 0;
    this.#peak.heldBytes = this.#heldBytes;
    this.#setPeak();
  }

  /** Hands out an idle buffer that serves, or a new one. @throws {GpuMemoryError} if that would pass the limit with no idle buffer left */
  take(bytes: number, label: string): PooledBuffer {
    const { STORAGE, COPY_SRC, COPY_DST } = GPUBufferUsage;
    const { usage = STORAGE | COPY_SRC | COPY_DST } = this.#options;
    const size = Math.ceil(Math.max(bytes, 16) / 16) * 16;
    const buffer = this.#takeIdle(size) ?? this.#create(size, label, usage);
    this.#count(buffer, size, this.purpose);
    return buffer;
  }

  /** Takes a buffer back, for a later request. */
  give(buffer: PooledBuffer): void {
    this.#uncount(buffer);
    const list = this.#idle.get(buffer.size);
    if (!list) {
      this.#idle.set(buffer.size, [buffer]);
      return;
    }
    let at = list.length;
    while (at > 0 && list[at - 1]!.id < buffer.id) at--;
    list.splice(at, 0, buffer);
  }

  /** Makes a buffer of another usage, counted but never reused. */
  make(size: number, label: string, usage: GPUBufferUsageFlags): PooledBuffer {
    const buffer = this.#create(size, label, usage);
    this.#count(buffer, size, "scratch");
    return buffer;
  }

  /** Counts a buffer in use for another purpose from now on. */
  assign(buffer: PooledBuffer, purpose: Purpose): void {
    this.#byPurpose[buffer.place]! -= buffer.size;
    buffer.place = PURPOSES.indexOf(purpose);
    this.#byPurpose[buffer.place]! += buffer.size;
  }

  /** Destroys idle buffers until it holds at most `bytes`; all unless given. */
  trim(bytes = 0): void {
    this.#trimTo(bytes);
  }

  #count(buffer: PooledBuffer, asked: number, purpose: Purpose): void {
    buffer.asked = asked;
    this.#askedBytes += asked;
    this.#mostAsked = Math.max(this.#mostAsked, this.#askedBytes);
    buffer.place = PURPOSES.indexOf(purpose);
    this.#byPurpose[buffer.place]! += buffer.size;
    this.#liveBytes += buffer.size;
    if (this.#liveBytes > this.#peak.liveBytes) this.#setPeak();
  }

  #setPeak(): void {
    this.#peak.liveBytes = this.#liveBytes;
    this.#peak.phase = this.phase;
    this.#peak.byPurpose.set(this.#byPurpose);
  }

  #uncount(buffer: PooledBuffer): void {
    this.#askedBytes -= buffer.asked;
    this.#byPurpose[buffer.place]! -= buffer.size;
    this.#liveBytes -= buffer.size;
  }

  #takeIdle(size: number): PooledBuffer | undefined {
    let best = Infinity;
    for (const candidate of this.#idle.keys()) {
      if (candidate >= size && candidate < best) best = candidate;
    }
    const serves = best <= size * LARGEST_WASTE || best < Infinity && this.#isToServe(best, size);
    return serves ? this.#popIdle(best) : undefined;
  }

  /** Whether a much larger buffer is to serve a request. Near the limit what it wastes could be missed later. */
  #isToServe(larger: number, size: number): boolean {
    const { churn = CHURN, limitBytes } = this.#options;
    if (this.#destroyed < churn) return false;
    const most = this.#expectedBytes ?? this.#mostWith(size);
    const mostWaste = Math.max(most * WASTE_SHARE, WASTE_BYTES);
    const waste = this.#liveBytes - this.#askedBytes + larger - size;
    return this.#heldBytes + size > most && waste <= mostWaste &&
      most + 2 * mostWaste <= limitBytes;
  }

  /** The most that was ever asked for at once, `size` more included. */
  #mostWith(size: number): number {
    return Math.max(this.#mostAsked, this.#askedBytes + size);
  }

  #popIdle(size: number): PooledBuffer {
    const list = this.#idle.get(size)!;
    const buffer = list.pop()!;
    if (list.length === 0) this.#idle.delete(size);
    return buffer;
  }

  #create(size: number, label: string, usage: GPUBufferUsageFlags): PooledBuffer {
    const { maxBufferSize } = this.#device.limits;
    const { limitBytes } = this.#options;
    if (size > maxBufferSize) {
      throw new GpuMemoryError(
        `Cannot make "${label}" of ${formatMemory(size)}: this device allows ${
          formatMemory(maxBufferSize)
        } in one buffer`,
      );
    }
    if (this.#liveBytes + size > limitBytes) {
      throw new GpuMemoryError(
        `Not enough GPU memory for "${label}": it needs ${formatMemory(size)}, ${
          formatMemory(this.#liveBytes)
        } are in use ` +
          `and ${formatMemory(limitBytes)} are allowed. The plan command tells which settings need less`,
      );
    }
    const most = this.#expectedBytes ?? this.#mostWith(size) * (1 + IDLE_SHARE);
    this.#trimTo(Math.min(limitBytes, Math.max(this.#liveBytes + size, most)) - size);
    const gpu = this.#device.createBuffer({ label, size, usage });
    this.#heldBytes += size;
    this.#peak.heldBytes = Math.max(this.#peak.heldBytes, this.#heldBytes);
    this.#created++;
    return { id: this.#nextId++, gpu, size, asked: size, place: 0 };
  }

  /**
   * Destroys idle buffers until at most `bytes` are held or none is left: the smallest that is enough, or else the largest.
   * Less than {@linkcode LEAST_ROOM} is not enough, or small buffers of two sizes would take turns to destroy each other.
   */
  #trimTo(bytes: number): void {
    if (this.#heldBytes <= bytes || this.#idle.size === 0) return;
    this.#options.beforeDestroy();
    while (this.#heldBytes > bytes && this.#idle.size > 0) {
      const missing = Math.max(this.#heldBytes - bytes, this.#heldBytes * LEAST_ROOM);
      let best = 0;
      for (const size of this.#idle.keys()) {
        if (best < missing ? size > best : size >= missing && size < best) best = size;
      }
      this.#destroy(this.#popIdle(best));
    }
  }

  #destroy(buffer: PooledBuffer): void {
    buffer.gpu.destroy();
    this.#destroyed++;
    this.#heldBytes -= buffer.size;
  }
}

function named(byPurpose: Float64Array): Record<Purpose, number> {
  return Object.fromEntries(PURPOSES.map((name, place) => [name, byPurpose[place]!])) as Record<
    Purpose,
    number
  >;
}
