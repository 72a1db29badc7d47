/** Suppression of boxes that overlap a better one. ONNX' operator takes a batch and classes; here both are one. */

import { addAxes } from "../axes.js";
import { derived } from "../dimension.js";
import type { Call, Rules } from "../rule.js";
import { unsupported } from "../unsupported.js";
import { size, type Value } from "../value.js";

/** Indices of the boxes that stay, best first. */
function selected(call: Call): Value {
  const { builder } = call;
  const boxes = addAxes(builder, builder.plain(builder.cast(call.input(0), "float32")), [0]);
  const scores = addAxes(builder, builder.plain(builder.cast(call.input(1), "float32")), [0, 1]);
  const limit = builder.reshape(builder.cast(call.input(2), "int64"), [1]);
  const thresholds = [3, 4].flatMap((index) => {
    const given = call.inputs[index];
    return given ? [builder.reshape(builder.cast(given, "float32"), [1])] : [];
  });
  const found = derived("boxes", call.name);
  const picked = builder.op(
    "NonMaxSuppression",
    [boxes, scores, limit, ...thresholds],
    {},
    { dtype: "int64", shape: [found, 3] },
  );
  const indices = builder.op(
    "Gather",
    [picked, builder.scalar("int64", 2)],
    { axis: 1 },
    { dtype: "int64", shape: [found] },
  );
  return builder.cast(indices, "int32");
}

/** Indices and scores; soft suppression, which lowers scores, is not covered. */
function withScores(call: Call): readonly Value[] {
  const { builder } = call;
  if (call.inputs.length > 5 && call.number(5, "the width of soft suppression") !== 0)
    throw unsupported("soft suppression");
  const indices = selected(call);
  const scores = builder.plain(call.input(1));
  return [
    indices,
    builder.op("Gather", [scores, indices], { axis: 0 }, { dtype: scores.dtype, shape: indices.shape }),
  ];
}

/** Indices, filled up with zeros where that is asked for, and how many of them count. */
function withCount(call: Call): readonly Value[] {
  const { builder } = call;
  const indices = selected(call);
  const count = builder.cast(builder.op("Size", [indices], {}, { dtype: "int64", shape: [] }), "int32");
  if (!call.attributes.bool("pad_to_max_output_size")) return [indices, count];
  const limit = call.number(2, "the greatest number of boxes");
  const missing = builder.elementwise(
    "Sub",
    [builder.int64s([limit]), builder.reshape(builder.cast(count, "int64"), [1])],
    "int64",
  );
  const pads = builder.op(
    "Concat",
    [builder.int64s([0]), missing],
    { axis: 0 },
    { dtype: "int64", shape: [2] },
  );
  const padded = builder.op("Pad", [indices, pads], {}, { dtype: "int32", shape: [limit] });
  return [size(indices, 0) === limit ? indices : padded, count];
}

/** Rules for suppression. */
export const suppressionRules: Rules = {
  NonMaxSuppressionV2: selected,
  NonMaxSuppressionV3: selected,
  NonMaxSuppressionV4: withCount,
  NonMaxSuppressionV5: withScores,
};
