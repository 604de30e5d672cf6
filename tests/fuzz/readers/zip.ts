/** Files of torch.save: a zip archive with a pickle in it. */
import { DTYPE_BYTES } from "../../../checkpoint/dtype.ts";
import { TorchFile } from "../../../checkpoint/pickle.ts";
import { torchFile } from "../../checkpoint/torch_file.ts";
import { assert } from "../../support/assert_close.ts";
import { memoryFile } from "../memory_files.ts";
import { mutateBytes } from "../mutate.ts";
import { PICKLE_TOKENS, smallDict } from "../pickles.ts";
import type { Reader } from "../reader.ts";

const WHOLE = torchFile(smallDict(), {
  0: new Uint8Array(48).map((_, i) => i),
  1: new Uint8Array(10).fill(9),
});

export const reader: Reader = {
  everyday: 3000,
  accepted: [0.01, 0.9],
  make: (dice) => mutateBytes(dice, WHOLE, PICKLE_TOKENS),
  async read(input) {
    const file = await TorchFile.open("x.bin", memoryFile(input));
    for (const entry of file.tensors.values()) {
      const read = await file.read(entry);
      const expected = entry.shape.reduce((product, size) => product * size, 1) * DTYPE_BYTES[entry.dtype];
      assert(read.length === expected, `${entry.name} has ${read.length} bytes, not ${expected}`);
      assert(read.length <= input.length, `${entry.name} is larger than the file`);
    }
  },
};
