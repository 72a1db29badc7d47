/** Values that are made from little or nothing: filled, counted, joined. */
import { type Dimension, elementCount, isConcrete, type SymbolicShape } from "../../../tensor/shape.js";
import { addAxes } from "../axes.js";
import { numberTensor } from "../constant.js";
import { derived, total } from "../dimension.js";
import { malformed } from "../json.js";
import { KNOWN_LIMIT, knownElements } from "../known.js";
import type { Call, Rule, Rules } from "../rule.js";
import { LONGEST_LIST, unsupported } from "../unsupported.js";
import { axisIndex, size, storedAxis, storedShape, type Value } from "../value.js";
import { widened } from "./elementwise.js";

/** A value of one element everywhere. */
function filled(call: Call, element: Value, shape: SymbolicShape, list?: Value): Value {
  const { builder } = call;
  const target = list ?? builder.shapeList(shape);
  const made = builder.op("Expand", [element, target], {}, { dtype: element.dtype, shape });
  const [known] = knownElements(element) ?? [];
  const isSmall = isConcrete(shape) && elementCount(shape) <= KNOWN_LIMIT;
  return known === undefined || !isSmall
    ? made
    : builder.withKnown(made, Array(elementCount(shape)).fill(known));
}

function fill(call: Call): Value {
  const { builder } = call;
  const known = call.known(0);
  const rank = size(call.input(0), 0);
  const dtype = call.attributes.dtype("T") ?? call.input(1).dtype;
  const element = builder.reshape(builder.cast(call.input(1), dtype), []);
  if (typeof rank === "string") throw unsupported("a shape whose rank is known at run time only");
  const shape =
    known ?? Array.from({ length: Math.min(rank, 8) }, (_, axis) => derived("fill", call.name, axis));
  return filled(call, element, shape, isConcrete(shape) ? undefined : builder.cast(call.input(0), "int64"));
}

function like(element: number): Rule {
  return (call) => {
    const { builder } = call;
    const { dtype, shape, layout } = call.input(0);
    if (layout === "plain") return filled(call, builder.scalar(dtype, element), shape);
    const stored = storedShape(call.input(0));
    return builder.relabel(filled(call, builder.scalar(dtype, element), stored), shape, layout);
  };
}

function constant(element: number): Rule {
  return (call) => {
    const dtype = call.attributes.dtype("dtype") ?? call.attributes.dtype("T") ?? "float32";
    return filled(call, call.builder.scalar(dtype, element), call.numbers(0, "the shape of a constant"));
  };
}

function range(call: Call): Value {
  const { builder } = call;
  const parts = widened(builder, [call.input(0), call.input(1), call.input(2)], "int32");
  const dtype = parts[0]?.dtype ?? "int32";
  const known = [call.known(0)?.[0], call.known(1)?.[0], call.known(2)?.[0]];
  const [start, stop, step] = known;
  const scalars = parts.map((part) => builder.reshape(part, []));
  if (typeof start === "number" && typeof stop === "number" && typeof step === "number" && step !== 0) {
    const length = Math.max(0, Math.ceil((stop - start) / step));
    const made = builder.op("Range", scalars, {}, { dtype, shape: [length] });
    if (length > KNOWN_LIMIT) return made;
    return builder.withKnown(
      made,
      Array.from({ length }, (_, at) => start + at * step),
    );
  }
  const length = start === 0 && step === 1 && typeof stop === "string" ? stop : derived("range", call.name);
  return builder.op("Range", scalars, {}, { dtype, shape: [length] });
}

function linearSpace(call: Call): Value {
  const [start, stop, length] = [0, 1, 2].map((index) => call.number(index, "a bound of a range"));
  if (
    start === undefined ||
    stop === undefined ||
    length === undefined ||
    length < 1 ||
    length > KNOWN_LIMIT
  ) {
    throw unsupported("a range of very many steps");
  }
  const step = length === 1 ? 0 : (stop - start) / (length - 1);
  const values = Array.from({ length }, (_, at) => start + at * step);
  return call.builder.constant(numberTensor("float32", [length], values));
}

/** Joins values along an axis, in the layout that most of those have which are computed. */
function concatenate(call: Call, given: readonly Value[], axis: number): Value {
  const { builder } = call;
  const values = widened(builder, given);
  const [first] = values;
  if (!first) throw malformed(`Node ${JSON.stringify(call.name)} joins no values.`, { node: call.name });
  for (const { shape } of values) {
    const fits =
      shape.length === first.shape.length &&
      shape.every(
        (each, at) =>
          at === axis ||
          typeof each === "string" ||
          typeof first.shape[at] === "string" ||
          each === first.shape[at],
      );
    if (!fits)
      throw malformed(`Values of shapes [${first.shape.join(", ")}] and [${shape.join(", ")}] are joined.`);
  }
  const computed = values.filter((value) => !value.constant && value.shape.length >= 3);
  const isFirst = 2 * computed.filter((value) => value.layout === "channelsFirst").length > computed.length;
  const placed = values.map((value) => builder.inLayout(value, isFirst ? "channelsFirst" : "plain"));
  const shape = first.shape.map(
    (each, at): Dimension => (at === axis ? total(values.map((value) => size(value, axis))) : each),
  );
  const type = { dtype: first.dtype, shape, layout: isFirst ? "channelsFirst" : "plain" } as const;
  if (placed.length === 1) return placed[0] ?? first;
  const joined = builder.op(
    "Concat",
    placed,
    { axis: storedAxis({ ...first, layout: type.layout }, axis) },
    type,
  );
  const known = shape.length === 1 ? placed.map(knownElements) : [undefined];
  return builder.withKnown(joined, known.every((each) => each !== undefined) ? known.flat() : undefined);
}

function concat(call: Call): Value {
  const isOld = call.op === "Concat";
  const parts = isOld ? call.inputs.slice(1) : call.inputs.slice(0, -1);
  const rank = parts[0]?.shape.length ?? 0;
  return concatenate(
    call,
    parts,
    axisIndex(call.number(isOld ? 0 : -1, "the axis of a concatenation"), rank),
  );
}

function pack(call: Call): Value {
  return packed(call, call.inputs, call.attributes.int("axis", 0));
}

/** Values side by side along a new axis. */
export function packed(call: Call, values: readonly Value[], along: number): Value {
  const axis = axisIndex(along, (values[0]?.shape.length ?? 0) + 1);
  return concatenate(
    call,
    values.map((value) => addAxes(call.builder, value, [axis])),
    axis,
  );
}

/** One where an index says so: each index is compared with all places. */
function oneHot(call: Call): Value {
  const { builder } = call;
  const indices = builder.plain(builder.cast(call.input(0), "int32"));
  const depth = call.number(1, "the depth of a one-hot code");
  if (!(depth >= 0 && depth <= LONGEST_LIST))
    throw malformed(`A one-hot code has the depth ${depth}.`, { depth });
  const dtype = call.attributes.dtype("T") ?? call.inputs[2]?.dtype ?? "float32";
  const [on, off] = [2, 3].map((index) => builder.reshape(builder.cast(call.input(index), dtype), []));
  if (!on || !off) throw malformed(`Node ${JSON.stringify(call.name)} lacks the values of its code.`);
  const rank = indices.shape.length + 1;
  const axis = axisIndex(call.attributes.int("axis", -1), rank);
  const places = Array.from({ length: depth }, (_, at) => at);
  const shape = Array.from({ length: rank }, (_, at) => (at === axis ? depth : 1));
  const wanted = builder.constant(numberTensor("int32", shape, places));
  const isHit = builder.elementwise("Equal", [addAxes(builder, indices, [axis]), wanted], "bool");
  return builder.elementwise("Where", [isHit, on, off], dtype);
}

/** Rules for values that are made or joined. */
export const creationRules: Rules = {
  Fill: fill,
  Zeros: constant(0),
  Ones: constant(1),
  ZerosLike: like(0),
  OnesLike: like(1),
  Range: range,
  LinSpace: linearSpace,
  OneHot: oneHot,
  Concat: concat,
  ConcatV2: concat,
  Pack: pack,
};
