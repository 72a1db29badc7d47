/** Fully connected layers, and layers that pass their input on in evaluation mode. */
import type { Rule } from "../rule.js";

/** `Linear`: a matrix on the last axis. */
export const LINEAR: Rule = {
  expects: (layer) => ({ last: layer.tensor("weight", 2).shape[1] ?? 0 }),
  apply(call) {
    const weight = call.layer.tensor("weight", 2);
    const [outputs = 0, inputs = 0] = weight.shape;
    call.requireSize(-1, inputs);
    const bias = call.layer.has("bias")
      ? call.weight("bias", call.layer.tensor("bias", 1), [outputs])
      : undefined;
    const shape = call.shape.with(-1, outputs);
    const matrix = call.weight("weight", weight);
    if (call.rank === 2) return call.op("Gemm", [call.input, matrix, bias], { transB: 1 }, shape);
    const turned = call.op("Transpose", [matrix], { perm: [1, 0] }, [inputs, outputs]);
    const product = call.op("MatMul", [call.input, turned], {}, shape);
    return bias ? call.op("Add", [product, bias], {}, shape) : product;
  },
};

/** Dropout and the like: nothing, in evaluation mode. */
export const NOTHING: Rule = { keeps: "shape", apply: (call) => call.input };
