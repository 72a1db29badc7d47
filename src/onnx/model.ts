/**
 * The ONNX model as data. A model in memory is the file's own protobuf message, so that whatever a file
 * holds, fields that Polyhead has never heard of included, is still there when it is written again. This
 * file gives those messages their short names and the few constructors that the rest of the project uses;
 * weights are in memory or aliases of the file's bytes, external data included, once a model is read.
 */
import { create } from "@bufbuild/protobuf";
import type { DType } from "../tensor/dtype.js";
import type { SymbolicShape } from "../tensor/shape.js";
import type { Tensor } from "../tensor/tensor.js";
import {
  type AttributeProto,
  AttributeProtoSchema,
  AttributeProto_AttributeType as AttributeType,
  type FunctionProto,
  type GraphProto,
  GraphProtoSchema,
  type ModelProto,
  ModelProtoSchema,
  type NodeProto,
  NodeProtoSchema,
  type TensorProto,
  TensorShapeProto_DimensionSchema,
  type ValueInfoProto,
  ValueInfoProtoSchema,
} from "./generated/onnx_pb.js";
import { dtypeCode, dtypeOfCode, weight } from "./weight.js";

export { AttributeType };

/** A whole file: graph, operator sets, metadata, functions. */
export type Model = ModelProto & { graph: GraphProto };
/** A list of nodes with inputs, outputs and initializers. */
export type Graph = GraphProto;
/** One application of an operator. */
export type Node = NodeProto;
/** A named argument of a node that is not a tensor of the graph. */
export type Attribute = AttributeProto;
/** A constant stored in the file. */
export type Weight = TensorProto;
/** Name, dtype and shape of a graph's input, output or inner value. */
export type ValueInfo = ValueInfoProto;
/** An operator defined by other operators. */
export type ModelFunction = FunctionProto;

/** What is known of a value's type. */
export interface ValueType {
  readonly dtype: DType;
  /** Undefined when not even the rank is known. */
  readonly shape: SymbolicShape | undefined;
}

/** What an attribute may be given as: whole numbers become INT or INTS, see {@link float} for FLOAT. */
export type AttributeValue =
  | number
  | bigint
  | string
  | readonly number[]
  | readonly string[]
  | Tensor
  | Float
  | Graph;

/** Marks numbers that ONNX wants as FLOAT or FLOATS, whole or not. */
export interface Float {
  readonly float: number | readonly number[];
}

/** The value as a FLOAT (or, for a list, FLOATS) attribute. */
export function float(value: number | readonly number[]): Float {
  return { float: value };
}

/** An attribute from a plain value. */
export function attribute(name: string, value: AttributeValue): Attribute {
  const made = create(AttributeProtoSchema, { name });
  if (typeof value === "number" || typeof value === "bigint") {
    made.type = AttributeType.INT;
    made.i = BigInt(value);
  } else if (typeof value === "string") {
    made.type = AttributeType.STRING;
    made.s = new TextEncoder().encode(value);
  } else if ("float" in value) {
    if (typeof value.float === "number") {
      made.type = AttributeType.FLOAT;
      made.f = value.float;
    } else {
      made.type = AttributeType.FLOATS;
      made.floats = [...value.float];
    }
  } else if ("$typeName" in value) {
    made.type = AttributeType.GRAPH;
    made.g = value;
  } else if ("dtype" in value) {
    made.type = AttributeType.TENSOR;
    made.t = weight("", value);
  } else if (value.every((item) => typeof item === "string")) {
    made.type = value.length > 0 ? AttributeType.STRINGS : AttributeType.INTS;
    made.strings = value.map((item) => new TextEncoder().encode(item));
  } else {
    made.type = AttributeType.INTS;
    made.ints = (value as readonly number[]).map(BigInt);
  }
  return made;
}

/** A node of the default operator set. An empty input name means an optional input left out. */
export function node(
  opType: string,
  inputs: readonly string[],
  outputs: readonly string[],
  attributes: Readonly<Record<string, AttributeValue>> = {},
): Node {
  return create(NodeProtoSchema, {
    opType,
    name: outputs[0] ?? "",
    input: [...inputs],
    output: [...outputs],
    attribute: Object.entries(attributes).map(([name, value]) => attribute(name, value)),
  });
}

/** A graph input, output or inner value of tensor type. Dimensions `?` are written without number and name. */
export function valueInfo(name: string, dtype: DType, shape?: SymbolicShape): ValueInfo {
  const tensorType = {
    elemType: dtypeCode(dtype),
    ...(shape && { shape: { dim: shape.map(dimension) } }),
  };
  return create(ValueInfoProtoSchema, { name, type: { value: { case: "tensorType", value: tensorType } } });
}

function dimension(size: number | string) {
  if (size === "?") return create(TensorShapeProto_DimensionSchema, {});
  const value =
    typeof size === "number"
      ? ({ case: "dimValue", value: BigInt(size) } as const)
      : ({ case: "dimParam", value: size } as const);
  return create(TensorShapeProto_DimensionSchema, { value });
}

/**
 * Dtype and shape that a value declares; undefined for values that are no tensors or say nothing.
 * Dimensions without number and name become `?`, and those without a sensible number too.
 */
export function declaredType(info: ValueInfo): ValueType | undefined {
  const type = info.type?.value;
  if (type?.case !== "tensorType") return undefined;
  const dtype = dtypeOfCode(type.value.elemType ?? 0);
  if (!dtype) return undefined;
  const shape = type.value.shape?.dim.map(({ value }) => {
    if (value.case === "dimValue" && value.value >= 0n) return Number(value.value);
    return value.case === "dimParam" && value.value !== "" ? value.value : "?";
  });
  return { dtype, shape };
}

/** A graph from its parts. */
export function graph(
  name: string,
  parts: {
    nodes: readonly Node[];
    inputs: readonly ValueInfo[];
    outputs: readonly ValueInfo[];
    weights: readonly Weight[];
    values?: readonly ValueInfo[];
  },
): Graph {
  return create(GraphProtoSchema, {
    name,
    node: [...parts.nodes],
    input: [...parts.inputs],
    output: [...parts.outputs],
    initializer: [...parts.weights],
    valueInfo: [...(parts.values ?? [])],
  });
}

/** The operator set that Polyhead writes, and the file version that goes with it. */
export const DEFAULT_OPSET = 17;
const DEFAULT_IR_VERSION = 8n;

/** A model of the default operator set around a graph. */
export function model(main: Graph, opset = DEFAULT_OPSET): Model {
  const made = create(ModelProtoSchema, {
    irVersion: DEFAULT_IR_VERSION,
    producerName: "polyhead",
    opsetImport: [{ domain: "", version: BigInt(opset) }],
  });
  return Object.assign(made, { graph: main });
}

/** The version of an operator set that a model or function imports; undefined when it does not. */
export function opsetVersion(of: Pick<Model, "opsetImport">, domain = ""): number | undefined {
  const wanted = canonicalDomain(domain);
  const found = of.opsetImport.find((entry) => canonicalDomain(entry.domain) === wanted);
  return found && Number(found.version);
}

/** Finds the function of the model that a node calls, if it calls one. */
export function functionFinder(of: Pick<Model, "functions">): (node: Node) => ModelFunction | undefined {
  const key = (domain: string, name: string, overload: string) =>
    JSON.stringify([canonicalDomain(domain), name, overload]);
  const byKey = new Map(of.functions.map((each) => [key(each.domain, each.name, each.overload), each]));
  return ({ domain, opType, overload }) => byKey.get(key(domain, opType, overload));
}

/** An operator set's domain with the alias `ai.onnx` written as the empty string. */
export function canonicalDomain(domain: string): string {
  return domain === "ai.onnx" ? "" : domain;
}

/** The attribute of that name, if the node has it. */
export function findAttribute(of: Node, name: string): Attribute | undefined {
  return of.attribute.find((candidate) => candidate.name === name);
}

/** An INT attribute's value, or `fallback` when it is not there. */
export function intAttribute(of: Node, name: string, fallback: number): number {
  const found = findAttribute(of, name);
  return found ? Number(found.i) : fallback;
}

/** An INTS attribute's values, or undefined when it is not there. */
export function intsAttribute(of: Node, name: string): number[] | undefined {
  return findAttribute(of, name)?.ints.map(Number);
}

/** A FLOAT attribute's value, or `fallback` when it is not there. */
export function floatAttribute(of: Node, name: string, fallback: number): number {
  return findAttribute(of, name)?.f ?? fallback;
}

/** A STRING attribute's value, or `fallback` when it is not there. */
export function stringAttribute(of: Node, name: string, fallback: string): string {
  const found = findAttribute(of, name);
  return found ? new TextDecoder().decode(found.s) : fallback;
}

/** The graphs that a node carries in its attributes (bodies of If, Loop, Scan and the like). */
export function subgraphs(of: Node): Graph[] {
  return of.attribute.flatMap((each) => (each.g ? [each.g, ...each.graphs] : each.graphs));
}

/** A message with some fields changed; everything else, unknown fields included, is shared with the old one. */
export function copyOf<T extends object>(message: T, changes: Partial<T>): T {
  return Object.assign(Object.create(Object.getPrototypeOf(message)), message, changes);
}
