/** Products of matrices, with what TF.js fuses into them, and sums of products in Einstein's notation. */
import type { Dimension } from "../../../tensor/shape.js";
import type { GraphBuilder } from "../builder.js";
import { broadcastShapes } from "../dimension.js";
import { malformed } from "../json.js";
import type { Call, Rule, Rules } from "../rule.js";
import { unsupported } from "../unsupported.js";
import { size, type Value } from "../value.js";
import { activate } from "./activation.js";
import { readFused } from "./convolution.js";

/** A rule for a product whose attributes of the given names turn its arguments. */
function product(turnA: string, turnB: string): Rule {
  return (call) => {
    const { builder, attributes } = call;
    const fused = readFused(call);
    const a = turned(builder, matrix(call, 0), attributes.bool(turnA));
    const b = turned(builder, matrix(call, 1), attributes.bool(turnB));
    return activate(builder, fused.activation, multiply(builder, a, b, fused.bias), fused);
  };
}

function matrix(call: Call, index: number): Value {
  const value = call.builder.plain(call.builder.cast(call.input(index), "float32"));
  if (value.shape.length >= 2) return value;
  throw malformed(
    `Node ${JSON.stringify(call.name)} (${call.op}) multiplies a value of rank ${value.shape.length}.`,
  );
}

/** The value with its last two axes exchanged. */
function turned(builder: GraphBuilder, value: Value, isTurned: boolean): Value {
  const rank = value.shape.length;
  const order = value.shape.map((_, axis) =>
    axis === rank - 1 ? rank - 2 : axis === rank - 2 ? rank - 1 : axis,
  );
  return isTurned ? builder.permute(value, order) : value;
}

function multiply(builder: GraphBuilder, a: Value, b: Value, bias: Value | undefined): Value {
  const [inner, outer] = [size(a, -1), size(b, -2)];
  if (typeof inner === "number" && typeof outer === "number" && inner !== outer) {
    throw malformed(`Matrices of ${inner} columns and ${outer} rows are multiplied.`, {
      shapes: [a.shape, b.shape],
    });
  }
  const batch = broadcastShapes(a.shape.slice(0, -2), b.shape.slice(0, -2));
  if (!batch) throw malformed("Batches of matrices do not broadcast.", { shapes: [a.shape, b.shape] });
  const result = { dtype: "float32", shape: [...batch, size(a, -2), size(b, -1)] } as const;
  if (bias && result.shape.length === 2) {
    return builder.op("Gemm", [a, b, builder.cast(bias, "float32")], {}, result);
  }
  const made = builder.op("MatMul", [a, b], {}, result);
  return bias ? builder.elementwise("Add", [made, builder.cast(bias, "float32")], "float32") : made;
}

function einsum(call: Call): Value {
  const { builder } = call;
  const equation = call.attributes.text("equation", "").replaceAll(" ", "");
  const [left = "", output] = equation.split("->");
  const terms = left.split(",");
  if (output === undefined || !/^[A-Za-z,]*->[A-Za-z]*$/.test(equation))
    throw unsupported(`the sum ${equation}`);
  const inputs = terms.map((_, index) => builder.plain(builder.cast(call.input(index), "float32")));
  const sizes = new Map<string, Dimension>();
  for (const [index, term] of terms.entries()) {
    const shape = inputs[index]?.shape ?? [];
    if (shape.length !== term.length) {
      throw malformed(`The term ${term} of the sum ${equation} is given a value of rank ${shape.length}.`);
    }
    for (const [axis, label] of [...term].entries()) sizes.set(label, shape[axis] ?? 1);
  }
  const shape = [...output].map((label) => {
    const found = sizes.get(label);
    if (found === undefined) throw malformed(`The sum ${equation} has an axis ${label} in its result only.`);
    return found;
  });
  return builder.op("Einsum", inputs, { equation }, { dtype: "float32", shape });
}

/** Rules for products of matrices. */
export const matrixRules: Rules = {
  MatMul: product("transpose_a", "transpose_b"),
  _FusedMatMul: product("transpose_a", "transpose_b"),
  BatchMatMul: product("adj_x", "adj_y"),
  BatchMatMulV2: product("adj_x", "adj_y"),
  Einsum: einsum,
};
