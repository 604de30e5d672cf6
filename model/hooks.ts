/** Callbacks of work that counts units (windows, tensors). */
export interface WorkHooks {
  /** `done` of `total` units; `detail` is a word or two to show beside them. */
  onProgress?(done: number, total: number, detail?: string): void;
  /** While weights are loaded before that: `done` of `total` tensors. */
  onLoad?(done: number, total: number, tensor: string): void;
  /** Something the user should know: one line, without a full stop. */
  note?(line: string): void;
}
