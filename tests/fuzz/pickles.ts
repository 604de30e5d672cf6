/** Pickles to damage, and pieces to damage them with. */
import {
  assemble,
  global,
  int,
  PROTO,
  reduce,
  stateDict,
  STOP,
  tensor,
  text,
  tuple,
} from "../checkpoint/torch_file.ts";
import { GOLDEN } from "../support/files.ts";

/** Every opcode, and operands worth trying. */
export const PICKLE_TOKENS: readonly Uint8Array[] = [
  ...Array.from({ length: 256 }, (_, opcode) => Uint8Array.of(opcode)),
  ...[
    global("os", "system"),
    global("torch", "FloatStorage"),
    global("torch._utils", "_rebuild_tensor_v2"),
    reduce("collections", "OrderedDict"),
    reduce("torch", "Size", tuple(int(2))),
    int(-1),
    int(2 ** 31 - 1),
    text("0"),
    tuple(),
    [0x8a, 8, new Uint8Array(8).fill(255)],
    ["X", new Uint8Array(4).fill(255)],
    ["j", new Uint8Array(4).fill(255)],
    ["r", new Uint8Array(4).fill(255)],
  ].map((code) => assemble(code)),
];

/** Three tensors over two storages, of 48 and 10 bytes. */
export function smallDict(): Uint8Array {
  return stateDict({
    a: tensor({ key: "0", length: 12, shape: [3, 4], strides: [4, 1] }),
    b: tensor({ key: "0", length: 12, offset: 1, shape: [4, 2], strides: [1, 4] }),
    c: tensor({ storage: "HalfStorage", key: "1", length: 5, shape: [5], strides: [1] }),
  });
}

/** The pickle inside a golden file, found by its first and last bytes. */
function goldenPickle(): Uint8Array {
  const bytes = Deno.readFileSync(`${GOLDEN}/adapter-bin/trainable_params.bin`);
  const marker = assemble(PROTO, "}");
  const begin = bytes.findIndex((_, i) => marker.every((byte, k) => bytes[i + k] === byte));
  const end = new TextDecoder("latin1").decode(bytes).indexOf("u.", begin) + 2;
  return bytes.slice(begin, end);
}

/** Right ones. */
export const PICKLES: readonly Uint8Array[] = [smallDict(), goldenPickle(), assemble(PROTO, "]", STOP)];
