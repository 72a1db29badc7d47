/** Small TF.js graph models, written as the converter writes them. */
import { MemoryFolder } from "../../src/base/folder.js";
import { bytesOf, float32, type Tensor, tensor } from "../../src/tensor/tensor.js";
import { randomNumbers } from "./tfjs-oracle.js";

/** An attribute: whole numbers, texts, truth values and lists of them; `{ raw }` for others. */
export type Attribute =
  | number
  | boolean
  | string
  | readonly number[]
  | readonly string[]
  | { readonly raw: unknown };

/** One node. */
export interface NodeSpec {
  readonly name: string;
  readonly op: string;
  readonly inputs: readonly string[];
  readonly attributes?: Readonly<Record<string, Attribute>>;
}

/** A node. */
export function node(
  name: string,
  op: string,
  inputs: readonly string[],
  attributes: NodeSpec["attributes"] = {},
): NodeSpec {
  return { name, op, inputs, attributes };
}

/** A graph: inputs by name with shape (-1 is open) and TensorFlow's dtype, constants, nodes, names of outputs. */
export interface GraphSpec {
  readonly inputs: Readonly<Record<string, { shape: readonly number[]; dtype?: string }>>;
  readonly constants?: Readonly<Record<string, Tensor>>;
  readonly nodes: readonly NodeSpec[];
  readonly outputs: readonly string[];
}

const base64 = (text: string) => Buffer.from(text).toString("base64");

function attributeJson(value: Attribute): unknown {
  if (typeof value === "boolean") return { b: value };
  if (typeof value === "string") return value.startsWith("DT_") ? { type: value } : { s: base64(value) };
  if (typeof value === "number") return Number.isInteger(value) ? { i: String(value) } : { f: value };
  if ("raw" in value) return value.raw;
  const isText = value.every((item) => typeof item === "string");
  return { list: isText ? { s: value.map((item) => base64(String(item))) } : { i: value.map(String) } };
}

const shapeJson = (shape: readonly number[]) => ({ dim: shape.map((size) => ({ size: String(size) })) });
const DTYPES: Readonly<Record<string, string>> = { float32: "DT_FLOAT", int32: "DT_INT32", bool: "DT_BOOL" };

/** The JSON of a graph model, as an object that a test may spoil. */
export function graphJson(spec: GraphSpec) {
  const constants = Object.entries(spec.constants ?? {});
  const placeholders = Object.entries(spec.inputs).map(([name, { shape, dtype = "DT_FLOAT" }]) => ({
    name,
    op: "Placeholder",
    attr: { dtype: { type: dtype }, shape: { shape: shapeJson(shape) } },
  }));
  const node = [
    ...placeholders,
    ...constants.map(([name, { dtype, shape }]) => ({
      name,
      op: "Const",
      attr: {
        dtype: { type: DTYPES[dtype] },
        value: { tensor: { dtype: DTYPES[dtype], tensorShape: shapeJson(shape) } },
      },
    })),
    ...spec.nodes.map(({ name, op, inputs, attributes = {} }) => ({
      name,
      op,
      input: [...inputs],
      attr: Object.fromEntries(Object.entries(attributes).map(([key, value]) => [key, attributeJson(value)])),
    })),
  ];
  return {
    format: "graph-model",
    modelTopology: { node, versions: { producer: 1 } },
    signature: {
      inputs: Object.fromEntries(placeholders.map(({ name }) => [name, { name: `${name}:0` }])),
      outputs: Object.fromEntries(
        spec.outputs.map((name) => [name, { name: name.includes(":") ? name : `${name}:0` }]),
      ),
    },
    weightsManifest: [
      {
        paths: ["weights.bin"],
        weights: constants.map(
          ([name, { dtype, shape }]) => ({ name, dtype, shape: [...shape] }) as Record<string, unknown>,
        ),
      },
    ],
  };
}

/** The bytes of a graph's constants. */
export function weightBytes(spec: GraphSpec): Uint8Array {
  return Buffer.concat(Object.values(spec.constants ?? {}).map(bytesOf));
}

/** A folder with `model.json` and `weights.bin`. */
export function graphFolder(spec: GraphSpec): MemoryFolder {
  return new MemoryFolder({
    "model.json": Buffer.from(JSON.stringify(graphJson(spec))),
    "weights.bin": weightBytes(spec),
  });
}

/** A float32 tensor of numbers between -1 and 1 that look random. */
export function noise(shape: readonly number[], seed = 7): Tensor {
  const random = randomNumbers(seed);
  const count = shape.reduce((product, size) => product * size, 1);
  return float32(
    shape,
    Array.from({ length: count }, () => 2 * random() - 1),
  );
}

/** An int32 tensor. */
export function ints(shape: readonly number[], values: readonly number[]): Tensor {
  return tensor("int32", shape, Int32Array.from(values));
}

/** A list of int32. */
export function list(...values: number[]): Tensor {
  return ints([values.length], values);
}

/** An int32 or float32 without axes. */
export function scalar(value: number, dtype: "int32" | "float32" = "int32"): Tensor {
  return dtype === "int32" ? ints([], [value]) : float32([], [value]);
}
