/** Reductions over axes that are known at import. The layout is kept wherever the remaining axes allow it. */
import type { DType } from "../../../tensor/dtype.js";
import { elementCount } from "../../../tensor/shape.js";
import { layoutWithout } from "../axes.js";
import { knownElements } from "../known.js";
import type { Call, Rule, Rules } from "../rule.js";
import { axisIndex, storedAxis, type Value } from "../value.js";

function axesOf(call: Call, value: Value): number[] {
  const { length: rank } = value.shape;
  const given =
    call.inputs.length > 1 ? call.numbers(1, "the axes of a reduction") : value.shape.map((_, axis) => axis);
  return [...new Set(given.map((axis) => axisIndex(axis, rank)))].sort((a, b) => a - b);
}

/** The value in a layout in which the axes can be taken away, and that of the result. */
function placed(call: Call, given: Value, axes: readonly number[], isKept: boolean) {
  const layout = isKept ? given.layout : layoutWithout(given, new Set(axes));
  const value = layout === undefined ? call.builder.plain(given) : given;
  const stored = axes.map((axis) => storedAxis(value, axis)).sort((a, b) => a - b);
  const shape = value.shape.flatMap((size, axis) => (!axes.includes(axis) ? [size] : isKept ? [1] : []));
  return { value, stored, type: { dtype: value.dtype, shape, layout: layout ?? ("plain" as const) } };
}

/**
 * A rule for a reduction.
 * @param dtype what the elements are computed in
 */
function reduction(opType: string, dtype: (given: DType) => DType): Rule {
  return (call) => {
    const { builder } = call;
    const given = call.input(0);
    const isKept = call.attributes.bool("keep_dims", call.attributes.bool("keepdims"));
    const axes = axesOf(call, given);
    const cast = builder.cast(given, dtype(given.dtype));
    if (axes.length === 0) return cast;
    const { value, stored, type } = placed(call, cast, axes, isKept);
    const keepdims = isKept ? 1 : 0;
    const result =
      opType === "ReduceSum"
        ? builder.op(opType, [value, builder.int64s(stored)], { keepdims }, type)
        : builder.op(opType, [value], { axes: stored, keepdims }, type);
    return builder.withKnown(result, reducedKnown(opType, value, axes));
  };
}

/** The product of a list, which is how models count elements. */
function reducedKnown(opType: string, value: Value, axes: readonly number[]): number[] | undefined {
  const known = value.shape.length === 1 && axes.length === 1 ? knownElements(value) : undefined;
  if (!known?.every((each) => typeof each === "number")) return undefined;
  if (opType === "ReduceProd") return [elementCount(known)];
  return opType === "ReduceSum" ? [known.reduce((sum, each) => sum + each, 0)] : undefined;
}

const numeric = (given: DType): DType => (given === "bool" ? "int32" : given);

/** Whether all or any of the elements are true. */
function logical(opType: string): Rule {
  const reduce = reduction(opType, () => "int32");
  return (call) => {
    const result = reduce(call);
    return call.builder.cast(Array.isArray(result) ? call.input(0) : (result as Value), "bool");
  };
}

/** The place of the first greatest or smallest element. */
function place(opType: string): Rule {
  return (call) => {
    const { builder } = call;
    const given = call.input(0);
    const [first] = call.inputs.length > 1 ? call.numbers(1, "the axis of a search") : [0];
    const axis = axisIndex(first ?? 0, given.shape.length);
    const { value, stored, type } = placed(call, builder.cast(given, numeric(given.dtype)), [axis], false);
    const found = builder.op(
      opType,
      [value],
      { axis: stored[0] ?? 0, keepdims: 0 },
      { ...type, dtype: "int64" },
    );
    return builder.cast(found, "int32");
  };
}

function cumulativeSum(call: Call): Value {
  const { builder, attributes } = call;
  const given = call.input(0);
  const value = builder.cast(given, numeric(given.dtype));
  const axis = storedAxis(value, axisIndex(call.number(1, "the axis of a sum"), value.shape.length));
  const flags = {
    exclusive: Number(attributes.bool("exclusive")),
    reverse: Number(attributes.bool("reverse")),
  };
  return builder.op("CumSum", [value, builder.scalar("int64", axis)], flags, value);
}

/** Rules for reductions. */
export const reductionRules: Rules = {
  Max: reduction("ReduceMax", numeric),
  Min: reduction("ReduceMin", numeric),
  Sum: reduction("ReduceSum", numeric),
  Prod: reduction("ReduceProd", numeric),
  Mean: reduction("ReduceMean", () => "float32"),
  EuclideanNorm: reduction("ReduceL2", () => "float32"),
  All: logical("ReduceMin"),
  Any: logical("ReduceMax"),
  ArgMax: place("ArgMax"),
  ArgMin: place("ArgMin"),
  Cumsum: cumulativeSum,
};
