/** Models with functions of their own, all in the domain `own`. */
import { create } from "@bufbuild/protobuf";
import { FunctionProtoSchema, OperatorSetIdProtoSchema } from "../../src/onnx/generated/onnx_pb.js";
import {
  type AttributeValue,
  attribute,
  copyOf,
  DEFAULT_OPSET,
  type Model,
  type ModelFunction,
  type Node,
  node,
} from "../../src/onnx/model.js";

const operatorSet = (domain: string, version: number) =>
  create(OperatorSetIdProtoSchema, { domain, version: BigInt(version) });

/** A call of a function. */
export function call(
  name: string,
  inputs: readonly string[],
  outputs: readonly string[],
  attributes: Readonly<Record<string, AttributeValue>> = {},
): Node {
  return copyOf(node(name, inputs, outputs, attributes), { domain: "own" });
}

/** A function. */
export function define(
  name: string,
  inputs: readonly string[],
  outputs: readonly string[],
  nodes: readonly Node[],
  defaults: Readonly<Record<string, AttributeValue>> = {},
  opset = DEFAULT_OPSET,
): ModelFunction {
  return create(FunctionProtoSchema, {
    name,
    domain: "own",
    input: [...inputs],
    output: [...outputs],
    node: [...nodes],
    attributeProto: Object.entries(defaults).map(([key, value]) => attribute(key, value)),
    opsetImport: [operatorSet("", opset), operatorSet("own", 1)],
  });
}

/** The model with functions that its nodes may call. */
export function withFunctions(of: Model, ...functions: readonly ModelFunction[]): Model {
  return copyOf(of, {
    functions: [...functions],
    opsetImport: [...of.opsetImport, operatorSet("own", 1)],
  });
}
