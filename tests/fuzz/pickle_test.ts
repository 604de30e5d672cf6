import { DTYPE_BYTES } from "../../checkpoint/dtype.ts";
import { TorchFile } from "../../checkpoint/pickle.ts";
import { unpickle } from "../../checkpoint/pickle_vm.ts";
import { assert } from "../support/assert_close.ts";
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
  torchFile,
  tuple,
} from "../checkpoint/torch_file.ts";
import { GOLDEN } from "../support/files.ts";
import { attempt, campaign, Dice, memoryFile, mutateBytes, SEED } from "./support.ts";

const COUNT = campaign(3000);

/** Every opcode, and operands worth trying. */
const TOKENS = [
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

function smallDict(): Uint8Array {
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

Deno.test(`unpickle() survives mutated pickles (${COUNT} pickles, seed ${SEED})`, async () => {
  const sources = [smallDict(), goldenPickle(), assemble(PROTO, "]", STOP)];
  for (const source of sources) unpickle(source, "x.bin");
  let accepted = 0;
  for (let i = 0; i < COUNT; i++) {
    const dice = new Dice(SEED + i);
    const pickle = mutateBytes(dice, dice.pick(sources), TOKENS);
    if (await attempt(`pickle ${i}`, () => unpickle(pickle, "x.bin")) !== undefined) accepted++;
  }
  assert(
    COUNT < 100 || (accepted > 0 && accepted < COUNT / 2),
    `${accepted} of ${COUNT} pickles were accepted`,
  );
});

Deno.test(`TorchFile survives mutated archives and never gives more than they hold (${COUNT} files, seed ${SEED})`, async () => {
  const whole = torchFile(smallDict(), { 0: new Uint8Array(48), 1: new Uint8Array(10) });
  for (let i = 0; i < COUNT; i++) {
    const dice = new Dice(SEED ^ 0x71c1e + i);
    const bytes = mutateBytes(dice, whole, TOKENS);
    await attempt(`file ${i}`, async () => {
      const file = await TorchFile.open("x.bin", memoryFile(bytes));
      for (const entry of file.tensors.values()) {
        const read = await file.read(entry);
        const expected = entry.shape.reduce((product, size) => product * size, 1) * DTYPE_BYTES[entry.dtype];
        assert(
          read.length === expected,
          `file ${i}: ${entry.name} has ${read.length} bytes, not ${expected}`,
        );
        assert(read.length <= bytes.length, `file ${i}: ${entry.name} is larger than the file`);
      }
    });
  }
});
