/** Operators that ask for shapes or change them: most disappear, because import knows the answer. */
import { type Dimension, elementCount, isConcrete, type SymbolicShape } from "../../../tensor/shape.js";
import { HIGHEST_RANK } from "../attributes.js";
import { addAxes, dropAxes } from "../axes.js";
import { broadcastShapes, derived, product, quotient } from "../dimension.js";
import { malformed } from "../json.js";
import type { Call, Rules } from "../rule.js";
import { unsupported } from "../unsupported.js";
import { axisIndex, layoutOfOrder, size, storedOrder, type Value } from "../value.js";

/** The sizes of a value as a list of int32. */
function shapeOf(call: Call, value: Value): Value {
  const { builder } = call;
  const list = builder.cast(
    builder.op("Shape", [builder.plain(value)], {}, { dtype: "int64", shape: [value.shape.length] }),
    "int32",
  );
  return builder.withKnown(list, value.shape);
}

function count(call: Call): Value {
  const { builder } = call;
  const value = call.input(0);
  const number = builder.cast(builder.op("Size", [value], {}, { dtype: "int64", shape: [] }), "int32");
  return builder.withKnown(number, [product(value.shape)]);
}

/**
 * The shape that an input states, with -1 where it leaves a size open.
 * @throws PolyheadError MODEL_UNSUPPORTED when not even the rank is known
 */
function statedShape(call: Call, index: number): { rank: number; known: readonly Dimension[] | undefined } {
  const list = call.input(index);
  const rank = list.shape.length === 0 ? 1 : list.shape[0];
  if (typeof rank === "string" || list.shape.length > 1)
    throw unsupported("a shape whose rank is known at run time only");
  if ((rank ?? 0) > HIGHEST_RANK)
    throw malformed(`A shape has ${rank} axes; expected at most ${HIGHEST_RANK}.`, { rank });
  return { rank: rank ?? 0, known: call.known(index) };
}

/** A shape stated by an input, as ONNX takes it: constant where it is known, else the input itself. */
function shapeInput(call: Call, index: number, known: readonly Dimension[] | undefined): Value {
  const { builder } = call;
  if (known && isConcrete(known)) return builder.int64s(known);
  return builder.cast(
    builder.reshape(call.input(index), [known?.length ?? size(call.input(index), 0)]),
    "int64",
  );
}

function reshape(call: Call): Value {
  const { builder } = call;
  const value = call.input(0);
  const { rank, known } = statedShape(call, 1);
  if (!known) {
    const shape = Array.from({ length: rank }, (_, axis) => derived("reshape", call.name, axis));
    return builder.op(
      "Reshape",
      [builder.plain(value), shapeInput(call, 1, known)],
      {},
      { dtype: value.dtype, shape },
    );
  }
  const open = known.flatMap((each, axis) => (each === -1 ? [axis] : []));
  if (open.length > 1 || known.some((each) => typeof each === "number" && each < -1)) {
    throw malformed(`A value of shape [${value.shape.join(", ")}] is to become [${known.join(", ")}].`);
  }
  const rest = known.filter((each) => each !== -1);
  const left = quotient(value.shape, rest);
  const shape = known.map((each, axis) =>
    each === -1 ? (left ?? derived("reshape", call.name, axis)) : each,
  );
  if (isConcrete(value.shape) && isConcrete(shape) && elementCount(value.shape) !== elementCount(shape)) {
    throw malformed(`A value of shape [${value.shape.join(", ")}] is to become [${known.join(", ")}].`);
  }
  const named = shape.filter((each) => typeof each === "string");
  const isSimple = named.length <= 1 || named.every((each) => value.shape.includes(each));
  if (isSimple) return squeezed(call, value, shape) ?? builder.reshape(builder.plain(value), shape);
  return builder.op(
    "Reshape",
    [builder.plain(value), shapeInput(call, 1, known)],
    {},
    { dtype: value.dtype, shape },
  );
}

/** A reshape that only adds or drops axes of size one keeps the layout; undefined for others. */
function squeezed(call: Call, value: Value, shape: SymbolicShape): Value | undefined {
  if (value.layout === "plain") return undefined;
  const core = (each: SymbolicShape) => each.filter((one) => one !== 1);
  const [own, wanted] = [core(value.shape), core(shape)];
  if (own.length !== wanted.length || own.some((each, axis) => each !== wanted[axis])) return undefined;
  const ones = (each: SymbolicShape) => each.flatMap((one, axis) => (one === 1 ? [axis] : []));
  if (shape.length === value.shape.length) {
    return value.shape.every((each, axis) => each === shape[axis]) ? value : undefined;
  }
  const isShorter = shape.length < value.shape.length;
  const [long, short] = isShorter ? [value.shape, shape] : [shape, value.shape];
  const [surplus, changed] = [long.length - short.length, ones(long)];
  const chosen = changed.slice(0, surplus);
  const remaining = long.filter((_, axis) => !chosen.includes(axis));
  if (!remaining.every((each, axis) => each === short[axis])) return undefined;
  return isShorter ? dropAxes(call.builder, value, chosen) : addAxes(call.builder, value, chosen);
}

function squeeze(call: Call): Value {
  const value = call.input(0);
  const { length: rank } = value.shape;
  const given = call.attributes.ints("squeeze_dims") ?? call.attributes.ints("axis");
  const axes = given
    ? given.map((axis) => axisIndex(axis, rank))
    : value.shape.flatMap((each, axis) => (each === 1 ? [axis] : []));
  const wrong = axes.find((axis) => typeof size(value, axis) === "number" && size(value, axis) !== 1);
  if (wrong !== undefined)
    throw malformed(`Axis ${wrong} of a shape [${value.shape.join(", ")}] is not of size 1.`);
  return dropAxes(call.builder, value, [...new Set(axes)]);
}

function expandDims(call: Call): Value {
  const value = call.input(0);
  const axis = call.inputs.length > 1 ? call.number(1, "the new axis") : call.attributes.int("dim", 0);
  return addAxes(call.builder, value, [axisIndex(axis, value.shape.length + 1)]);
}

/** Axes in another order; where the stored order is that of a layout already, nothing is moved. */
function transpose(call: Call): Value {
  const { builder } = call;
  const value = call.input(0);
  const { length: rank } = value.shape;
  const reversed = value.shape.map((_, axis) => rank - 1 - axis);
  const order = (call.inputs.length > 1 ? call.numbers(1, "the order of axes") : reversed).map((axis) =>
    axisIndex(axis, rank),
  );
  if (new Set(order).size !== rank)
    throw malformed(`[${order.join(", ")}] is no order of ${rank} axes.`, { order });
  const shape = order.map((axis) => size(value, axis));
  const layout = layoutOfOrder(storedOrder(value.layout, rank).map((axis) => order.indexOf(axis)));
  return layout ? builder.relabel(value, shape, layout) : builder.permute(builder.plain(value), order);
}

/** Repeats a value along axes of size one until it has the stated shape. */
function broadcastTo(call: Call): Value {
  const { builder } = call;
  const value = builder.plain(call.input(0));
  const { rank, known } = statedShape(call, 1);
  const stated = known ?? Array.from({ length: rank }, (_, axis) => derived("broadcast", call.name, axis));
  const shape = broadcastShapes(value.shape, stated);
  if (!shape)
    throw malformed(`The shape [${value.shape.join(", ")}] does not broadcast to [${stated.join(", ")}].`);
  return builder.op("Expand", [value, shapeInput(call, 1, known)], {}, { dtype: value.dtype, shape });
}

function broadcastArgs(call: Call): Value {
  const [a, b] = [call.known(0), call.known(1)];
  const shape = a && b && broadcastShapes(a, b);
  if (!shape || !isConcrete(shape)) throw unsupported("a shape that two others broadcast to at run time");
  return call.builder.cast(call.builder.int64s(shape), "int32");
}

function tile(call: Call): Value {
  const { builder } = call;
  const value = builder.plain(call.input(0));
  const { known } = statedShape(call, 1);
  const shape = value.shape.map((each, axis) => {
    const times = known?.[axis];
    return times === undefined ? derived("tile", call.name, axis) : product([each, times]);
  });
  return builder.op("Tile", [value, shapeInput(call, 1, known)], {}, { dtype: value.dtype, shape });
}

/** Rules for shapes. */
export const shapeRules: Rules = {
  Shape: (call) => shapeOf(call, call.input(0)),
  ShapeN: (call) => call.inputs.map((input) => shapeOf(call, input)),
  Size: count,
  Rank: (call) => call.builder.scalar("int32", call.input(0).shape.length),
  Reshape: reshape,
  Squeeze: squeeze,
  ExpandDims: expandDims,
  Transpose: transpose,
  BroadcastTo: broadcastTo,
  BroadcastArgs: broadcastArgs,
  Tile: tile,
};
