/**
 * Transposed convolutions without strides as convolutions with the weights turned round, which the runtime does in three
 * quarters of the time. The backward part of a training step is full of them.
 */
import { withGraph } from "../onnx/extract.js";
import { GraphIndex } from "../onnx/graph.js";
import {
  copyOf,
  intAttribute,
  intsAttribute,
  type Model,
  type Node,
  node as newNode,
  opsetVersion,
  stringAttribute,
} from "../onnx/model.js";
import { inferTypes } from "../onnx/shapes.js";
import { elementCount, isConcrete, type Shape } from "../tensor/shape.js";
import { Builder, LEAST_OPSET } from "./autodiff/builder.js";

/** A convolution that does what a transposed one does, except for its weights: they are to be turned round. */
export interface Turned {
  readonly x: string;
  readonly weights: string;
  readonly bias: string;
  /** Of the weights as they are: [input channels, output channels / group, ...kernel]. */
  readonly shape: Shape;
  readonly group: number;
  readonly attributes: Readonly<Record<string, number | readonly number[]>>;
}

/**
 * How a node is written as a convolution.
 * @param weightsShape of its weights
 * @returns undefined for everything else, and where too much is cut off the borders
 */
export function asTurned(node: Node, weightsShape: Shape | undefined): Turned | undefined {
  if (node.opType !== "ConvTranspose" || node.domain !== "" || !weightsShape) return undefined;
  const [x = "", weights = "", bias = ""] = node.input;
  const kernel = weightsShape.slice(2);
  const ones = kernel.map(() => 1);
  const zeros = [...kernel, ...kernel].map(() => 0);
  const dilations = intsAttribute(node, "dilations") ?? ones;
  const isPlain =
    (intsAttribute(node, "strides") ?? ones).every((stride) => stride === 1) &&
    (intsAttribute(node, "output_padding") ?? []).every((size) => size === 0) &&
    intsAttribute(node, "output_shape") === undefined &&
    ["NOTSET", "VALID"].includes(stringAttribute(node, "auto_pad", "NOTSET"));
  const pads = (intsAttribute(node, "pads") ?? zeros).map((size, place) => {
    const axis = place % kernel.length;
    return ((kernel[axis] ?? 1) - 1) * (dilations[axis] ?? 1) - size;
  });
  if (!isPlain || pads.some((size) => size < 0)) return undefined;
  const group = intAttribute(node, "group", 1);
  return {
    x,
    weights,
    bias,
    shape: weightsShape,
    group,
    attributes: { kernel_shape: kernel, dilations, pads, group },
  };
}

/** Shape of the weights when they are turned: [output channels, input channels / group, ...kernel]. */
export function turnedShape({ shape, group }: Turned): Shape {
  const [inputs = 1, own = 1, ...kernel] = shape;
  return [group * own, inputs / group, ...kernel];
}

/**
 * Weights turned round, filters and channels exchanged. In three steps of which each moves whole rows, or turns
 * matrices; one general transposition takes several times as long.
 */
export function turnedWeights(builder: Builder, turned: Turned): string {
  const { weights, shape, group } = turned;
  const [inputs = 1, own = 1, ...kernel] = shape;
  const [each, size] = [inputs / group, elementCount(kernel)];
  const outside = builder.transpose(builder.reshape(weights, [group, each, own * size]), [0, 2, 1]);
  const places = builder.reshape(outside, [group * own, size, each]);
  const round =
    size === 1 ? places : builder.op("Gather", [places, builder.ints(backwards(size))], { axis: 1 });
  return builder.reshape(builder.transpose(round, [0, 2, 1]), turnedShape(turned));
}

/** The places of a kernel from the last to the first. */
export function backwards(size: number): number[] {
  return Array.from({ length: size }, (_, at) => size - 1 - at);
}

/** The same function without transposed convolutions that need not be any. */
export function withTurnedWeights(model: Model): Model {
  const index = new GraphIndex(model.graph);
  const types = inferTypes(model);
  const builder = new Builder(
    opsetVersion(model) ?? LEAST_OPSET,
    [...types.keys(), ...index.producers.keys()],
    "turned",
  );
  for (const node of index.order) {
    const shape = types.get(node.input[1] ?? "")?.shape;
    const turned = asTurned(node, shape && isConcrete(shape) ? shape : undefined);
    if (!turned) {
      builder.nodes.push(node);
      continue;
    }
    const inputs = [turned.x, turnedWeights(builder, turned), ...(turned.bias === "" ? [] : [turned.bias])];
    builder.nodes.push(newNode("Conv", inputs, node.output, turned.attributes));
  }
  const initializer = [...model.graph.initializer, ...builder.weights];
  return withGraph(model, copyOf(model.graph, { node: builder.nodes, initializer }));
}
