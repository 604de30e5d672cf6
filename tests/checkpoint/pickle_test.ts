import { UserError } from "../../errors.ts";
import { join } from "../../checkpoint/deps.ts";
import { toF32 } from "../../checkpoint/dtype.ts";
import { TorchFile } from "../../checkpoint/pickle.ts";
import { PICKLE_LIMITS, unpickle } from "../../checkpoint/pickle_vm.ts";
import { assert, assertEquals, assertThrows } from "../support/assert_close.ts";
import { withFolder } from "../support/files.ts";
import { normal } from "../support/random.ts";
import {
  assemble,
  type Code,
  global,
  int,
  MARK,
  PROTO,
  reduce,
  stateDict,
  STOP,
  tensor,
  text,
  torchFile,
  tuple,
  zip,
} from "./torch_file.ts";

/** Gadgets by the name that must appear in the refusal. */
const GADGETS: readonly (readonly [string, Code])[] = [
  ["os.system", reduce("os", "system", text("id"))],
  ["posix.system", reduce("posix", "system", text("id"))],
  ["nt.system", reduce("nt", "system", text("id"))],
  ["subprocess.Popen", reduce("subprocess", "Popen", text("id"))],
  ["subprocess.check_output", reduce("subprocess", "check_output", text("id"))],
  ["builtins.eval", reduce("builtins", "eval", text("1"))],
  ["builtins.exec", reduce("builtins", "exec", text("1"))],
  ["builtins.compile", reduce("builtins", "compile", text("1"))],
  ["builtins.getattr", reduce("builtins", "getattr", global("os", "system"), text("x"))],
  ["builtins.__import__", reduce("builtins", "__import__", text("os"))],
  ["builtins.open", reduce("builtins", "open", text("/etc/passwd"))],
  ["builtins.apply", reduce("builtins", "apply", text("x"))],
  ["builtins.map", global("builtins", "map")],
  ["builtins.bytearray", reduce("builtins", "bytearray", int(2 ** 30))],
  ["__builtin__.eval", reduce("__builtin__", "eval", text("1"))],
  ["__builtin__.set", reduce("__builtin__", "set", text("1"))],
  ["_codecs.encode", reduce("_codecs", "encode", text("x"), text("latin1"))],
  ["codecs.open", reduce("codecs", "open", text("x"))],
  ["runpy.run_path", reduce("runpy", "run_path", text("x"))],
  ["importlib.import_module", reduce("importlib", "import_module", text("os"))],
  ["pickle.loads", reduce("pickle", "loads", text("x"))],
  ["marshal.loads", reduce("marshal", "loads", text("x"))],
  ["types.FunctionType", global("types", "FunctionType")],
  ["types.CodeType", global("types", "CodeType")],
  ["operator.attrgetter", reduce("operator", "attrgetter", text("system"))],
  ["functools.partial", reduce("functools", "partial", global("os", "system"), text("x"))],
  ["socket.create_connection", global("socket", "create_connection")],
  ["ctypes.CDLL", reduce("ctypes", "CDLL", text("libc.so.6"))],
  ["shutil.rmtree", reduce("shutil", "rmtree", text("/"))],
  ["webbrowser.open", reduce("webbrowser", "open", text("x"))],
  ["timeit.timeit", reduce("timeit", "timeit", text("x"))],
  ["pdb.run", reduce("pdb", "run", text("x"))],
  ["torch.load", reduce("torch", "load", text("x"))],
  ["torch.serialization.load", reduce("torch.serialization", "load", text("x"))],
  ["torch.storage._load_from_bytes", reduce("torch.storage", "_load_from_bytes", text("x"))],
  ["torch.hub.load", reduce("torch.hub", "load", text("x"))],
  ["torch.jit._pickle.build_intlist", global("torch.jit._pickle", "build_intlist")],
  [
    "torch._utils._rebuild_device_tensor_from_numpy",
    global("torch._utils", "_rebuild_device_tensor_from_numpy"),
  ],
  ["numpy.core.multiarray._reconstruct", global("numpy.core.multiarray", "_reconstruct")],
  ["collections.OrderedDict.__init__", global("collections", "OrderedDict.__init__")],
  ["collections.OrderedDict ", global("collections", "OrderedDict ")],
  ["torch._utils.os.system", global("torch._utils", "os.system")],
  ["os.system", [text("os"), text("system"), 0x93, tuple(text("id")), "R"]],
  ["os.system", [reduce("collections", "OrderedDict"), tuple(global("os", "system")), "b"]],
  ["os.system", reduce("torch._utils", "_rebuild_tensor_v2", reduce("os", "system", text("id")))],
];

Deno.test("unpickle() refuses every gadget by name", () => {
  assert(GADGETS.length >= 40, "the corpus should stay long");
  for (const [name, code] of GADGETS) {
    const text = refusal(assemble(PROTO, code, STOP));
    assert(
      text.includes(`"${name}"`) && text.includes("x.bin") && text.includes("malicious"),
      `${name}: ${text}`,
    );
  }
});

function refusal(pickle: Uint8Array): string {
  try {
    unpickle(pickle, "x.bin");
  } catch (error) {
    assert(error instanceof UserError, `not a UserError but ${error}`);
    return error.message;
  }
  throw new Error("the pickle was accepted");
}

const DICT: Code = "}";
const ORDERED = reduce("collections", "OrderedDict");

/** Broken or hostile programs without forbidden names, by what the refusal must say. */
const BROKEN: readonly (readonly [string, string, Code])[] = [
  ["empty", "ends too early", []],
  ["no STOP", "ends too early", [PROTO, DICT]],
  ["nothing to return", "empty stack", [PROTO, STOP]],
  ["two values", "left over", [PROTO, DICT, DICT, STOP]],
  ["open mark", "left over", [PROTO, MARK, DICT, STOP]],
  ["protocol 6", "protocol", [0x80, 6, DICT, STOP]],
  ["NEWOBJ", "operation 0x81", [PROTO, ORDERED, ")", 0x81, STOP]],
  ["INST", "operation 0x69", [PROTO, MARK, "ios\nsystem\n", STOP]],
  ["OBJ", "operation 0x6f", [PROTO, MARK, global("torch", "Size"), "o", STOP]],
  ["EXT1", "operation 0x82", [PROTO, 0x82, 1, STOP]],
  ["text PERSID", "operation 0x50", [PROTO, "Px\n", STOP]],
  ["text INT", "operation 0x49", [PROTO, "I1\n", STOP]],
  ["NEWOBJ_EX", "operation 0x92", [PROTO, 0x92, STOP]],
  ["pop of nothing", "empty stack", [PROTO, "0", STOP]],
  ["mark of nothing", "mark that was never set", [PROTO, "t", STOP]],
  ["pop through a mark", "empty stack", [PROTO, DICT, MARK, "0", STOP]],
  ["unknown memo", "never remembered", [PROTO, "h", 7, STOP]],
  ["memo of nothing", "empty stack", [PROTO, "q", 0, STOP]],
  ["append to a dict", "no list", [PROTO, DICT, "N", "a", STOP]],
  ["append to a tuple", "no list", [PROTO, ")", "N", "a", STOP]],
  ["set a key of a list", "no dict", [PROTO, "]", "N", "N", "s", STOP]],
  ["key without value", "no value", [PROTO, DICT, MARK, text("a"), "u", STOP]],
  ["dict as key", "neither text nor number", [PROTO, DICT, DICT, "N", "s", STOP]],
  ["key twice", "occurs twice", [PROTO, DICT, text("a"), "N", "s", text("a"), "N", "s", STOP]],
  ["call of a text", "not a known name", [PROTO, text("os.system"), tuple(), "R", STOP]],
  ["call of a storage", "not a function", [PROTO, reduce("torch", "FloatStorage", int(1)), STOP]],
  ["call of a dtype", "not a function", [PROTO, reduce("torch", "float16"), STOP]],
  ["call without a tuple", "no tuple", [PROTO, global("torch", "Size"), "N", "R", STOP]],
  ["OrderedDict of items", "has arguments", [PROTO, reduce("collections", "OrderedDict", "]"), STOP]],
  ["Size of a number", "no tuple", [PROTO, reduce("torch", "Size", int(3)), STOP]],
  ["parameter of nothing", "no tensor", [PROTO, reduce("torch._utils", "_rebuild_parameter", "N"), STOP]],
  ["tensor of nothing", "no tuple", [PROTO, reduce("torch._utils", "_rebuild_tensor_v2"), STOP]],
  ["attributes of a tuple", "no dict", [PROTO, ")", DICT, "b", STOP]],
  ["storage of a text", "storage", [PROTO, text("storage"), "Q", STOP]],
  ["storage of another kind", "storage", [
    PROTO,
    tuple(text("module"), global("torch", "FloatStorage")),
    "Q",
    STOP,
  ]],
  ["storage without type", "storage", [
    PROTO,
    tuple(text("storage"), text("x"), text("0"), text("cpu"), int(1)),
    "Q",
    STOP,
  ]],
  ["number of 17 bytes", "too long", [PROTO, 0x8a, 17, new Uint8Array(17), STOP]],
  ["number above 2^53", "2^53", [PROTO, 0x8a, 8, new Uint8Array(8).fill(0x7f), STOP]],
  ["text longer than the file", "ends too early", [PROTO, "X", Uint8Array.of(0xff, 0xff, 0, 0), STOP]],
  ["text of 4 GB", "too long", [PROTO, "X", Uint8Array.of(0xff, 0xff, 0xff, 0xff), STOP]],
  ["text that is not UTF-8", "UTF-8", [PROTO, "X", Uint8Array.of(1, 0, 0, 0, 0xff), STOP]],
  ["name without line end", "ends too early", [PROTO, "cos"]],
  ["name that is not text", "not text", [PROTO, "N", "N", 0x93, STOP]],
  ["stack of a million", "too many values", [PROTO, new Uint8Array(1_000_000).fill(0x4e), STOP]],
  ["marks of a million", "too many values", [PROTO, new Uint8Array(1_000_000).fill(0x28), STOP]],
  ["operations without end", "too many operations", [
    PROTO,
    "]",
    repeat("N0", PICKLE_LIMITS.operations / 2),
    STOP,
  ]],
  ["lists without end", "too many values", [PROTO, "]", repeat("]a", 700_000), STOP]],
];

function repeat(code: string, times: number): Uint8Array {
  const unit = new TextEncoder().encode(code);
  const bytes = new Uint8Array(unit.length * times);
  for (let i = 0; i < bytes.length; i++) bytes[i] = unit[i % unit.length]!;
  return bytes;
}

Deno.test("unpickle() refuses broken programs and those that ask for too much", () => {
  for (const [why, says, code] of BROKEN) {
    const message = refusal(assemble(code));
    assert(message.includes(says), `${why}: ${message}`);
  }
});

Deno.test("unpickle() survives a list that holds itself", () => {
  unpickle(assemble(PROTO, "]", "q", 0, "h", 0, "a", STOP), "x.bin");
});

/** Opens a file of these bytes, hands it on, and removes it. */
async function withTorchFile(bytes: Uint8Array, use: (file: TorchFile) => Promise<void>): Promise<void> {
  await withFolder(async (folder) => {
    const path = join(folder, "x.bin");
    Deno.writeFileSync(path, bytes);
    const file = await TorchFile.open(path);
    try {
      await use(file);
    } finally {
      file.close();
    }
  });
}

function refusedFile(bytes: Uint8Array, ...says: string[]): Promise<string> {
  return assertThrows(() => withTorchFile(bytes, async () => {}), "x.bin", ...says);
}

function floats(values: Float32Array<ArrayBuffer>): Uint8Array {
  return new Uint8Array(values.buffer);
}

Deno.test("TorchFile copies transposed and sliced tensors out in row-major order", async () => {
  const values = normal(5, 24) as Float32Array<ArrayBuffer>;
  const at = (offset: number, shape: number[], strides: number[]) =>
    tensor({ key: "0", length: 24, offset, shape, strides });
  const pickle = stateDict({
    plain: at(0, [4, 6], [6, 1]),
    transposed: at(0, [6, 4], [1, 6]),
    columns: at(2, [4, 3], [6, 1]),
    cube: at(0, [3, 2, 4], [1, 12, 3]),
    every_other: at(1, [12], [2]),
    odd_strides_of_one: at(3, [1, 6, 1], [0, 1, 99]),
    scalar: at(7, [], []),
    empty: at(24, [0, 5], [5, 1]),
  });
  await withTorchFile(torchFile(pickle, { 0: floats(values) }), async (file) => {
    const read = async (name: string) => [...toF32(await file.read(file.tensors.get(name)!), "F32")];
    const expected = (offset: number, shape: number[], strides: number[]): number[] => {
      if (shape.length === 0) return [values[offset]!];
      return Array.from(
        { length: shape[0]! },
        (_, i) => expected(offset + i * strides[0]!, shape.slice(1), strides.slice(1)),
      ).flat();
    };
    assertEquals(await read("plain"), [...values]);
    assertEquals(await read("transposed"), expected(0, [6, 4], [1, 6]));
    assertEquals(await read("columns"), expected(2, [4, 3], [6, 1]));
    assertEquals(await read("cube"), expected(0, [3, 2, 4], [1, 12, 3]));
    assertEquals(await read("every_other"), expected(1, [12], [2]));
    assertEquals(await read("odd_strides_of_one"), [...values.subarray(3, 9)]);
    assertEquals(await read("scalar"), [values[7]]);
    assertEquals(await read("empty"), []);
    for (const name of ["plain", "transposed", "cube"]) {
      const part = new Uint8Array(12 * 4);
      await file.readInto(file.tensors.get(name)!, 8 * 4, part);
      assertEquals([...toF32(part, "F32")], (await read(name)).slice(8, 20), `a part of ${name}`);
    }
  });
});

Deno.test("TorchFile understands parameters, half floats, metadata of state dicts and newer pickles", async () => {
  const inner = tensor({ storage: "BFloat16Storage", key: "7", length: 2, shape: [2], strides: [1] });
  const parameter = reduce("torch._utils", "_rebuild_parameter", inner, 0x88, ORDERED);
  const metadata: Code = [DICT, text("_metadata"), ORDERED, "s", "b"];
  // Protocol 4: FRAME, SHORT_BINUNICODE, MEMOIZE, STACK_GLOBAL; the long number is 2.
  const frame: Code = [0x80, 4, 0x95, new Uint8Array(8)];
  const name: Code = [0x8c, 1, "w", 0x94];
  const ordered: Code = [text("collections"), text("OrderedDict"), 0x93, ")", "R"];
  const pickle = assemble(frame, ordered, name, parameter, "s", metadata, STOP);
  await withTorchFile(torchFile(pickle, { 7: Uint8Array.of(0x80, 0x3f, 0, 0xc0) }), async (file) => {
    const { dtype, shape } = file.tensors.get("w")!;
    assertEquals([dtype, shape], ["BF16", [2]]);
    assertEquals([...toF32(await file.read(file.tensors.get("w")!), dtype)], [1, -2]);
  });
});

Deno.test("TorchFile refuses tensors that do not fit their bytes", async () => {
  const data = { 0: new Uint8Array(48) };
  const file = (code: Partial<Parameters<typeof tensor>[0]>) =>
    torchFile(
      stateDict({ w: tensor({ key: "0", length: 12, shape: [3, 4], strides: [4, 1], ...code }) }),
      data,
    );
  await withTorchFile(file({}), async () => {});
  await refusedFile(file({ key: "1" }), '"w"', "missing");
  await refusedFile(file({ key: "../../etc/passwd" }), "missing");
  await refusedFile(file({ length: 13 }), "52 bytes", "48");
  await refusedFile(file({ length: 11 }), "44 bytes", "48");
  await refusedFile(file({ storage: "HalfStorage" }), "24 bytes", "48");
  await refusedFile(file({ offset: 1 }), "past the end");
  await refusedFile(file({ offset: 2 ** 31 - 1 }), "past the end");
  await refusedFile(file({ shape: [4, 4] }), "past the end");
  await refusedFile(file({ strides: [5, 1] }), "past the end");
  await refusedFile(file({ offset: -1 }), "described");
  await refusedFile(file({ shape: [-3, 4] }), "0 and above");
  await refusedFile(file({ strides: [-4, 1] }), "0 and above");
  await refusedFile(file({ strides: [4] }), "described");
  await refusedFile(file({ shape: [1, 1, 1, 1, 1, 1, 1, 1, 12] }), "8 axes");
  await refusedFile(file({ strides: [0, 1] }), "overlapping");
  await refusedFile(file({ shape: [2 ** 30], strides: [0] }), "overlapping");
  await refusedFile(file({ strides: [1, 1] }), "overlapping");
  await refusedFile(file({ strides: [3, 1] }), "overlapping");
  await refusedFile(
    file({ shape: [2 ** 30, 2 ** 30, 2 ** 30], strides: [2 ** 30, 2 ** 30, 1] }),
    "past the end",
  );
});

Deno.test("TorchFile refuses files that are not state dicts", async () => {
  const tiny = tensor({ key: "0", length: 1, shape: [1], strides: [1] });
  const data = { 0: new Uint8Array(4) };
  await refusedFile(torchFile(assemble(PROTO, "]", STOP)), "no state dict");
  await refusedFile(torchFile(assemble(PROTO, tiny, STOP), data), "no state dict");
  await refusedFile(torchFile(stateDict({ epoch: int(3) })), '"epoch"', "not a tensor");
  await refusedFile(torchFile(stateDict({ model: "}" })), '"model"', "training checkpoint");
  const program = torchFile(stateDict({ w: tiny }), data, [{
    name: "m/constants.pkl",
    data: new Uint8Array(1),
  }]);
  await refusedFile(program, "TorchScript");
  await refusedFile(zip([{ name: "x", data: new Uint8Array(1) }]), "not one of torch.save");
  await refusedFile(assemble([0x80, 2], "}", STOP), "before PyTorch 1.6");
  await refusedFile(new TextEncoder().encode("version https://git-lfs"), "Git LFS");
  await refusedFile(new Uint8Array(0), "not a file of torch.save");
  await refusedFile(new Uint8Array(100), "not a file of torch.save");
  const big = { name: "m/byteorder", data: new TextEncoder().encode("big") };
  await refusedFile(zip([{ name: "m/data.pkl", data: stateDict({}) }, big]), "byte order", "big");
});

Deno.test("TorchFile refuses damaged and hostile archives", async () => {
  const pickle = stateDict({ w: tensor({ key: "0", length: 2, shape: [2], strides: [1] }) });
  const good = [{ name: "m/data.pkl", data: pickle }, { name: "m/data/0", data: new Uint8Array(8) }] as const;
  await withTorchFile(zip(good), async () => {});
  const whole = zip(good);
  await refusedFile(whole.subarray(0, whole.length - 5), "no zip directory", "incomplete");
  await refusedFile(whole.subarray(0, 60), "no zip directory");
  const second = (claim: object) => zip([good[0], { ...good[1], ...claim }]);
  await refusedFile(second({ method: 8 }), "compressed");
  await refusedFile(second({ size: 2 ** 30 }), "compressed");
  await refusedFile(second({ size: 2 ** 30, stored: 2 ** 30 }), "past the end");
  await refusedFile(second({ size: 300, stored: 300 }), "past the end");
  await refusedFile(second({ flags: 1 }), "encrypted");
  await refusedFile(second({ local: 0 }), "overlaps");
  await refusedFile(second({ local: 1 }), "no header");
  await refusedFile(second({ local: 2 ** 31 }), "past the end");
  await refusedFile(zip([good[0], good[1], good[1]]), "occurs twice");
  await refusedFile(zip(good, (end) => end.setUint16(10, 3, true)), "damaged");
  await refusedFile(zip(good, (end) => end.setUint32(16, 0, true)), "damaged");
  await refusedFile(zip(good, (end) => end.setUint32(16, 2 ** 31, true)), "past the end");
  await refusedFile(zip(good, (end) => end.setUint32(12, 10, true)), "damaged");
  await refusedFile(zip(good, (end) => end.setUint16(10, 65535, true)), "65535 entries");
});
