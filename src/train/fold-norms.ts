/**
 * Frozen batch norms written into the convolutions before them, as nodes on the weights: convolving with w scale /
 * deviation and adding bias - mean scale / deviation is the same function of the same parameters. The weights are
 * small beside the images, so that two passes over each image forward and three backward are saved, and scale and shift
 * are trained all the same.
 */
import { withGraph } from "../onnx/extract.js";
import { GraphIndex } from "../onnx/graph.js";
import {
  canonicalDomain,
  copyOf,
  floatAttribute,
  intAttribute,
  type Model,
  type Node,
  opsetVersion,
} from "../onnx/model.js";
import { weightDtype, weightShape } from "../onnx/weight.js";
import { Builder, LEAST_OPSET } from "./autodiff/builder.js";

/** The same function with fewer batch norms; convolutions whose own result is read elsewhere stay. */
export function foldBatchNorms(model: Model): Model {
  const index = new GraphIndex(model.graph);
  const outputs = new Set(index.outputNames);
  const taken = [
    ...index.producers.keys(),
    ...index.weights.keys(),
    ...model.graph.input.map(({ name }) => name),
  ];
  const builder = new Builder(opsetVersion(model) ?? LEAST_OPSET, taken, "folded");
  const replaced = new Map<Node, readonly Node[]>();
  for (const norm of index.order) {
    const [input = ""] = norm.input;
    const convolution = index.producers.get(input);
    const isFrozen = isOperator(norm, "BatchNormalization") && intAttribute(norm, "training_mode", 0) === 0;
    if (!isFrozen || !convolution || !isOperator(convolution, "Conv") || outputs.has(input)) continue;
    if (index.consumers.get(input)?.length !== 1) continue;
    const weight = index.weights.get(convolution.input[1] ?? "");
    if (!weight || weightDtype(weight) !== "float32") continue;
    replaced.set(convolution, []);
    replaced.set(norm, folded(builder, convolution, norm, weightShape(weight).length));
  }
  if (replaced.size === 0) return model;
  return withGraph(
    model,
    copyOf(model.graph, {
      node: index.order.flatMap((node) => replaced.get(node) ?? [node]),
      initializer: [...model.graph.initializer, ...builder.weights],
    }),
  );
}

function folded(builder: Builder, convolution: Node, norm: Node, rank: number): Node[] {
  const before = builder.nodes.length;
  const [x = "", weights = "", own = ""] = convolution.input;
  const [, scale = "", bias = "", mean = "", variance = ""] = norm.input;
  const epsilon = builder.scalar(floatAttribute(norm, "epsilon", 1e-5), "float32");
  const deviation = builder.op("Sqrt", [builder.op("Add", [variance, epsilon])]);
  const factor = builder.op("Div", [scale, deviation]);
  const perFilter = builder.reshape(factor, [-1, ...new Array<number>(rank - 1).fill(1)]);
  const centre = own === "" ? mean : builder.op("Sub", [mean, own]);
  const shift = builder.op("Sub", [bias, builder.op("Mul", [centre, factor])]);
  const whole = copyOf(convolution, {
    input: [x, builder.op("Mul", [weights, perFilter]), shift],
    output: norm.output.slice(0, 1),
  });
  return [...builder.nodes.slice(before), whole];
}

function isOperator(node: Node, opType: string): boolean {
  return node.opType === opType && canonicalDomain(node.domain) === "";
}
