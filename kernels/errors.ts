/** A bug or a limit met while working with the device: wrong shapes, failed kernels, tensors used after free. */
export class GpuError extends Error {
  /** As the class. */
  override readonly name: string = "GpuError";
}

/** The device went away: driver reset, unplugged, or out of memory for good. Nothing on it can be read any more. */
export class DeviceLostError extends GpuError {
  /** As the class. */
  override readonly name = "DeviceLostError";
}

/** An allocation would pass what the device, or the limit that was set, allows. */
export class GpuMemoryError extends GpuError {
  /** As the class. */
  override readonly name = "GpuMemoryError";
}
