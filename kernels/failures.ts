import { formatMemory } from "../text.ts";
import { DeviceLostError, GpuError, GpuMemoryError } from "./errors.ts";

/**
 * The failures that a device reports out of band, kept until somebody asks. Of several the one that the others follow
 * from counts: a lost device before a kernel that does not compile, that before all else. Dawn reports them in another
 * order.
 */
export class Failures {
  #loss: DeviceLostError | undefined;
  #compile: GpuError | undefined;
  #other: GpuError | undefined;
  #isClosing = false;

  /** @param heldBytes bytes asked of the device so far, for errors */
  constructor(device: GPUDevice, heldBytes: () => number) {
    device.addEventListener("uncapturederror", (event) => {
      event.preventDefault();
      this.#other ??= failureOf((event as GPUUncapturedErrorEvent).error, heldBytes());
    });
    device.lost.then(({ message }) => {
      if (!this.#isClosing) this.#loss = lossOf(message);
    });
  }

  /** Keeps that a kernel does not compile. */
  addCompileFailure(error: GpuError): void {
    this.#compile ??= error;
  }

  /** Takes the loss of the device, from now on, as meant. */
  expectLoss(): void {
    this.#isClosing = true;
  }

  /** @throws {GpuError} the failure that counts, if there is one */
  check(): void {
    const failure = this.#loss ?? this.#compile ?? this.#other;
    if (failure) throw failure;
  }

  /**
   * Explains a wait that failed.
   * @throws {GpuError} what the device reports, which may be a little later than the wait fails; else `error`
   */
  async explain(error: unknown): Promise<never> {
    await new Promise((resolve) => setTimeout(resolve, 0));
    this.check();
    throw error;
  }
}

function lossOf(message: string): DeviceLostError {
  return new DeviceLostError(
    `The GPU device was lost (${message}): its driver was reset, or it went away. What was saved before is whole; start ` +
      `the command again, and if it happens again look for a newer driver`,
  );
}

function failureOf(error: GPUError, heldBytes: number): GpuError {
  if (!(error instanceof GPUOutOfMemoryError)) {
    return new GpuError(`The GPU reported an error: ${error.message}`);
  }
  return new GpuMemoryError(
    `The GPU has no more memory: ${
      formatMemory(heldBytes)
    } were asked of it. The plan command tells which settings need ` +
      `less; set max_memory to what the device has, and training sees to it`,
  );
}
