/**
 * Writes ONNX models of a few nodes: the protobuf messages ModelProto, GraphProto, NodeProto, AttributeProto, TensorProto
 * and ValueInfoProto of onnx.proto (github.com/onnx/onnx), as far as the contests need them.
 */

/** Element types of TensorProto. */
export const ELEMENT = { float: 1, uint8: 2, int32: 6, int64: 7, float16: 10 } as const;

export interface ValueInfo {
  readonly name: string;
  readonly type: number;
  /** A name stands for a length that each run decides. */
  readonly shape: readonly (number | string)[];
}

/** A constant of the graph. */
export interface Initializer extends ValueInfo {
  readonly shape: readonly number[];
  readonly bytes: Uint8Array;
}

export interface Node {
  readonly op: string;
  /** Operators beyond the standard live in `com.microsoft`. */
  readonly domain?: string;
  readonly inputs: readonly string[];
  readonly outputs: readonly string[];
  /** Whole numbers. */
  readonly attributes?: Readonly<Record<string, number>>;
  readonly floats?: Readonly<Record<string, number>>;
}

export interface Graph {
  readonly nodes: readonly Node[];
  readonly inputs: readonly ValueInfo[];
  readonly outputs: readonly ValueInfo[];
  readonly initializers?: readonly Initializer[];
}

const IR_VERSION = 8;
const OPSETS = [{ domain: "", version: 17 }, { domain: "com.microsoft", version: 1 }];

/** The bytes of a model file. */
export function writeModel({ nodes, inputs, outputs, initializers = [] }: Graph): Uint8Array {
  const graph = message([
    ...nodes.map((node) => bytesField(1, nodeProto(node))),
    textField(2, "contest"),
    ...initializers.map((tensor) => bytesField(5, tensorProto(tensor))),
    ...inputs.map((value) => bytesField(11, valueInfoProto(value))),
    ...outputs.map((value) => bytesField(12, valueInfoProto(value))),
  ]);
  const opsets = OPSETS.map(({ domain, version }) =>
    bytesField(8, message([textField(1, domain), intField(2, version)]))
  );
  return message([intField(1, IR_VERSION), bytesField(7, graph), ...opsets]);
}

function nodeProto({ op, domain, inputs, outputs, attributes = {}, floats = {} }: Node): Uint8Array {
  const [FLOAT, INT] = [1, 2];
  return message([
    ...inputs.map((name) => textField(1, name)),
    ...outputs.map((name) => textField(2, name)),
    textField(4, op),
    ...Object.entries(attributes).map(([name, value]) =>
      bytesField(5, message([textField(1, name), intField(3, value), intField(20, INT)]))
    ),
    ...Object.entries(floats).map(([name, value]) =>
      bytesField(5, message([textField(1, name), floatField(2, value), intField(20, FLOAT)]))
    ),
    ...(domain ? [textField(7, domain)] : []),
  ]);
}

function tensorProto({ name, type, shape, bytes }: Initializer): Uint8Array {
  return message([
    ...shape.map((axis) => intField(1, axis)),
    intField(2, type),
    textField(8, name),
    bytesField(9, bytes),
  ]);
}

function valueInfoProto({ name, type, shape }: ValueInfo): Uint8Array {
  const dimensions = message(
    shape.map((axis) => bytesField(1, typeof axis === "number" ? intField(1, axis) : textField(2, axis))),
  );
  const tensorType = message([intField(1, type), bytesField(2, dimensions)]);
  return message([textField(1, name), bytesField(2, bytesField(1, tensorType))]);
}

function intField(field: number, value: number): Uint8Array {
  return message([varint(field * 8), varint(value)]);
}

function floatField(field: number, value: number): Uint8Array {
  return message([varint(field * 8 + 5), new Uint8Array(Float32Array.of(value).buffer)]);
}

function textField(field: number, text: string): Uint8Array {
  return bytesField(field, new TextEncoder().encode(text));
}

function bytesField(field: number, bytes: Uint8Array): Uint8Array {
  return message([varint(field * 8 + 2), varint(bytes.length), bytes]);
}

/** A whole number from 0, seven bits a byte, the lowest first. */
function varint(value: number): Uint8Array {
  const bytes: number[] = [];
  let rest = value;
  for (; rest > 127; rest = Math.floor(rest / 128)) bytes.push(rest % 128 + 128);
  bytes.push(rest);
  return Uint8Array.from(bytes);
}

function message(parts: readonly Uint8Array[]): Uint8Array {
  const whole = new Uint8Array(parts.reduce((sum, { length }) => sum + length, 0));
  let at = 0;
  for (const part of parts) {
    whole.set(part, at);
    at += part.length;
  }
  return whole;
}
