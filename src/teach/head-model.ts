/**
 * A learned classifier as an ordinary ONNX model: tap in, mean over height and width, normalisation, one linear
 * layer, softmax out. Any batch size, operator set 17, float32.
 */
import type { Tap } from "../onnx/metadata.js";
import { graph, type Model, model, type Node, node, valueInfo } from "../onnx/model.js";
import { weight } from "../onnx/weight.js";
import { float32 } from "../tensor/tensor.js";
import type { Classifier } from "./classifier.js";
import { LENGTH_FLOOR } from "./nearest-mean.js";
import type { Pooling } from "./pooling.js";

/**
 * The head's graph, without metadata. Outputs are `logits` and `probabilities`, both [batch, classes]; where the
 * tap has one of these names, the output's gets `head_` before it.
 */
export function headModel(classifier: Classifier, tap: Tap, pooling: Pooling): Model {
  const { standardisation, weights, bias } = classifier;
  const own = (name: string) => (name === tap.name ? `head_${name}` : name);
  const stored: [name: string, shape: readonly number[], values: ArrayLike<number>][] = [
    [own("weights"), [weights.rows, weights.columns], weights.data],
    [own("bias"), [weights.rows], bias],
  ];
  const nodes: Node[] = [];
  let at = tap.name;
  const apply = (opType: string, name: string, others: readonly string[] = [], attributes = {}) => {
    nodes.push(node(opType, [at, ...others.map(own)], [own(name)], attributes));
    at = own(name);
  };
  if (tap.dtype !== "float32") apply("Cast", "float_tap", [], { to: FLOAT });
  if (pooling.axes.length > 0) apply("ReduceMean", "pooled", [], { axes: pooling.axes, keepdims: 0 });
  if (standardisation) {
    stored.push(
      [own("mean"), [pooling.channels], standardisation.mean],
      [own("deviation"), [pooling.channels], standardisation.deviation],
      [own("length_floor"), [], [LENGTH_FLOOR]],
    );
    apply("Sub", "centred", ["mean"]);
    apply("Div", "standardised", ["deviation"]);
    nodes.push(
      node("ReduceL2", [at], [own("length")], { axes: [1], keepdims: 1 }),
      node("Add", [own("length"), own("length_floor")], [own("divisor")]),
    );
    apply("Div", "normalised", ["divisor"]);
  }
  apply("Gemm", "logits", ["weights", "bias"], { transB: 1 });
  apply("Softmax", "probabilities", [], { axis: -1 });
  const output = (name: string) => valueInfo(own(name), "float32", ["batch", weights.rows]);
  return model(
    graph("head", {
      nodes,
      inputs: [valueInfo(tap.name, tap.dtype, tap.shape)],
      outputs: [output("logits"), output("probabilities")],
      weights: stored.map(([name, shape, values]) => weight(name, float32(shape, values))),
    }),
  );
}

/** ONNX's number of float32, which Cast takes. */
const FLOAT = 1;
