/** Elements picked by computed indices, sorted, or put somewhere. Indices are int32 in TF.js and int64 in most of ONNX. */
import type { Dimension } from "../../../tensor/shape.js";
import { layoutWithout } from "../axes.js";
import type { GraphBuilder } from "../builder.js";
import { derived } from "../dimension.js";
import { malformed } from "../json.js";
import { knownElements } from "../known.js";
import type { Call, Rules } from "../rule.js";
import { unsupported } from "../unsupported.js";
import { axisIndex, size, storedAxis, type Value } from "../value.js";

function gather(call: Call): Value {
  const { builder } = call;
  const given = call.input(0);
  const axis = axisIndex(
    call.op === "GatherV2" ? call.number(2, "the axis of a choice") : 0,
    given.shape.length,
  );
  const indices = builder.plain(builder.cast(call.input(1), "int32"));
  const batch = call.attributes.int("batch_dims", 0);
  if (batch !== 0)
    return gatherBatch(
      call,
      builder.plain(given),
      indices,
      axis,
      batch < 0 ? batch + indices.shape.length : batch,
    );

  const kept =
    indices.shape.length === 1
      ? given.layout
      : indices.shape.length === 0
        ? layoutWithout(given, new Set([axis]))
        : undefined;
  const value = kept === undefined ? builder.plain(given) : given;
  const shape = [...value.shape.slice(0, axis), ...indices.shape, ...value.shape.slice(axis + 1)];
  const type = { dtype: value.dtype, shape, layout: kept ?? ("plain" as const) };
  const picked = builder.op("Gather", [value, indices], { axis: storedAxis(value, axis) }, type);
  return builder.withKnown(picked, knownPick(value, indices));
}

/** Elements picked from a list that import knows. */
function knownPick(value: Value, indices: Value): readonly Dimension[] | undefined {
  const elements = value.shape.length === 1 ? knownElements(value) : undefined;
  const picked =
    elements &&
    knownElements(indices)?.map((index) => (typeof index === "number" ? elements[index] : undefined));
  return picked?.every((each) => each !== undefined) ? picked : undefined;
}

/** Each batch has its own indices; the axes of the batch come first and the one picked from right behind them. */
function gatherBatch(call: Call, value: Value, indices: Value, axis: number, batch: number): Value {
  const { builder } = call;
  if (axis !== batch || batch < 1 || batch > indices.shape.length) {
    throw unsupported(`a choice with ${batch} axes of batch along axis ${axis}`);
  }
  const picked = indices.shape.slice(batch);
  const shape = [...value.shape.slice(0, batch), ...picked, ...value.shape.slice(axis + 1)];
  const flat = builder.op(
    "Unsqueeze",
    [builder.cast(indices, "int64"), builder.int64s([indices.shape.length])],
    {},
    { dtype: "int64", shape: [...indices.shape, 1] },
  );
  return builder.op("GatherND", [value, flat], { batch_dims: batch }, { dtype: value.dtype, shape });
}

/** How many axes the vectors of indices address. */
function depthOf(indices: Value): number {
  const depth = size(indices, -1);
  if (typeof depth === "string")
    throw unsupported("vectors of indices whose length is known at run time only");
  return depth;
}

function gatherVectors(call: Call): Value {
  const { builder } = call;
  const value = builder.plain(call.input(0));
  const indices = builder.plain(builder.cast(call.input(1), "int64"));
  const depth = depthOf(indices);
  if (depth < 1 || depth > value.shape.length)
    throw malformed(`${depth} axes of a value of rank ${value.shape.length} are addressed.`);
  const shape = [...indices.shape.slice(0, -1), ...value.shape.slice(depth)];
  return builder.op("GatherND", [value, indices], {}, { dtype: value.dtype, shape });
}

/** Adds values into zeros. */
function scatter(call: Call): Value {
  const { builder } = call;
  const shape = call.numbers(2, "the shape of a result");
  const updates = builder.plain(call.input(1));
  const zeros = builder.op(
    "Expand",
    [builder.scalar(updates.dtype, 0), builder.int64s(shape)],
    {},
    { dtype: updates.dtype, shape },
  );
  return scatterInto(builder, zeros, call.input(0), updates, "add");
}

/** Puts values into a tensor of one default; places are numbers, or rows of numbers, one for each axis. */
function sparseToDense(call: Call): Value {
  const { builder } = call;
  const shape = call.numbers(1, "the shape of a result");
  const [indices, values] = [builder.plain(call.input(0)), builder.plain(call.input(2))];
  const count = indices.shape[0] ?? 1;
  if (typeof count === "string") throw unsupported("places whose number is known at run time only");
  const rows = indices.shape.length < 2 ? builder.reshape(indices, [count, 1]) : indices;
  const updates = builder.op(
    "Expand",
    [values, builder.int64s([count])],
    {},
    { dtype: values.dtype, shape: [count] },
  );
  const filling = builder.cast(call.input(3), values.dtype);
  const full = builder.op("Expand", [filling, builder.int64s(shape)], {}, { dtype: values.dtype, shape });
  return scatterInto(builder, full, rows, updates, "none");
}

function scatterInto(
  builder: GraphBuilder,
  target: Value,
  indices: Value,
  updates: Value,
  reduction: string,
): Value {
  const places = builder.plain(builder.cast(indices, "int64"));
  return builder.op("ScatterND", [target, places, builder.plain(updates)], { reduction }, target);
}

function topK(call: Call): readonly Value[] {
  const { builder } = call;
  const value = builder.plain(call.input(0));
  const known = call.inputs.length > 1 ? call.known(1)?.[0] : call.attributes.int("k", 1);
  const count =
    typeof known === "number"
      ? builder.int64s([known])
      : builder.reshape(builder.cast(call.input(1), "int64"), [1]);
  const full = size(value, -1);
  if (typeof known === "number" && typeof full === "number" && (known < 0 || known > full)) {
    throw malformed(`The ${known} greatest of ${full} elements are asked for.`, { wanted: known, got: full });
  }
  const shape = [...value.shape.slice(0, -1), known ?? derived("top", call.name)];
  const [values, indices] = builder.ops("TopK", [value, count], { axis: -1, largest: 1, sorted: 1 }, [
    { dtype: value.dtype, shape },
    { dtype: "int64", shape },
  ]);
  return values && indices ? [values, builder.cast(indices, "int32")] : [];
}

/** Places of the elements that are true, one a row. */
function where(call: Call): Value {
  const { builder } = call;
  const value = builder.plain(builder.cast(call.input(0), "bool"));
  const [rank, found] = [value.shape.length, derived("where", call.name)];
  const places = builder.op("NonZero", [value], {}, { dtype: "int64", shape: [rank, found] });
  return builder.cast(builder.permute(places, [1, 0]), "int32");
}

/** Rules for picking and placing elements. */
export const gatherRules: Rules = {
  Gather: gather,
  GatherV2: gather,
  GatherNd: gatherVectors,
  ScatterNd: scatter,
  SparseToDense: sparseToDense,
  TensorScatterUpdate: (call) =>
    scatterInto(call.builder, call.builder.plain(call.input(0)), call.input(1), call.input(2), "none"),
  TopKV2: topK,
  Where: where,
};
