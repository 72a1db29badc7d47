/** Padding with a constant or with the mirrored value; any layout is kept. */
import { isConcrete } from "../../../tensor/shape.js";
import type { GraphBuilder } from "../builder.js";
import { derived, sum } from "../dimension.js";
import { malformed } from "../json.js";
import type { Call, Rules } from "../rule.js";
import { checkListLength, unsupported } from "../unsupported.js";
import { inStoredOrder, size, storedAxis, type Value } from "../value.js";

/** Elements before and after each axis of TF.js'. */
export type Paddings = readonly (readonly [number, number])[];

/** Reads a list of pairs. */
export function pairs(numbers: readonly number[]): [number, number][] {
  return Array.from({ length: Math.ceil(numbers.length / 2) }, (_, at) => [
    numbers[2 * at] ?? 0,
    numbers[2 * at + 1] ?? 0,
  ]);
}

/** The value with elements put around it; the fill is zero when left out. */
export function pad(
  builder: GraphBuilder,
  value: Value,
  paddings: Paddings,
  fill?: Value,
  mode = "constant",
): Value {
  if (paddings.length !== value.shape.length) {
    throw malformed(`A value of rank ${value.shape.length} is padded on ${paddings.length} axes.`);
  }
  if (paddings.every(([before, after]) => before === 0 && after === 0)) return value;
  const shape = value.shape.map((full, axis) =>
    sum(full, (paddings[axis]?.[0] ?? 0) + (paddings[axis]?.[1] ?? 0)),
  );
  const stored = inStoredOrder(value, paddings);
  const pads = builder.int64s([...stored.map(([before]) => before), ...stored.map(([, after]) => after)]);
  const { dtype, layout } = value;
  return builder.op("Pad", [value, pads, ...(fill ? [fill] : [])], { mode }, { dtype, shape, layout });
}

function constantPad(call: Call): Value {
  const { builder } = call;
  const value = call.input(0);
  const fill = call.inputs[2] && builder.reshape(builder.cast(call.input(2), value.dtype), []);
  const known = call.known(1);
  if (known && isConcrete(known)) return pad(builder, value, pairs(known), fill);

  const margins = builder.permute(builder.cast(call.input(1), "int64"), [1, 0]);
  const pads = builder.reshape(margins, [2 * value.shape.length]);
  const shape = value.shape.map((_, axis) => derived("pad", call.name, axis));
  return builder.op(
    "Pad",
    [builder.plain(value), pads, ...(fill ? [fill] : [])],
    {},
    { dtype: value.dtype, shape },
  );
}

/** Mirrors with (SYMMETRIC) or without (REFLECT) the elements at the border. */
function mirrorPad(call: Call): Value {
  const { builder } = call;
  const value = call.input(0);
  const paddings = pairs(call.numbers(1, "padding"));
  const isSymmetric = call.attributes.text("mode", "REFLECT").toUpperCase() === "SYMMETRIC";
  if (!isSymmetric) return pad(builder, value, paddings, undefined, "reflect");
  return paddings.reduce(
    (padded, [before, after], axis) => mirrorAxis(builder, padded, axis, before, after),
    value,
  );
}

/** ONNX 17 cannot repeat the border, so the elements are gathered in their new order. */
function mirrorAxis(builder: GraphBuilder, value: Value, axis: number, before: number, after: number): Value {
  if (before === 0 && after === 0) return value;
  const full = size(value, axis);
  if (typeof full === "string") throw unsupported("mirroring an axis whose size is known at run time only");
  if (before < 0 || after < 0 || before > full || after > full) {
    throw malformed(`An axis of ${full} cannot be mirrored by ${before} and ${after} elements.`);
  }
  checkListLength(before + full + after, "mirroring an axis");
  const order = Array.from({ length: before + full + after }, (_, at) => {
    const index = at - before;
    if (index < 0) return -index - 1;
    return index < full ? index : 2 * full - 1 - index;
  });
  const shape = value.shape.map((own, at) => (at === axis ? order.length : own));
  const { dtype, layout } = value;
  return builder.op(
    "Gather",
    [value, builder.int64s(order)],
    { axis: storedAxis(value, axis) },
    { dtype, shape, layout },
  );
}

/** Rules for padding. */
export const paddingRules: Rules = {
  Pad: constantPad,
  PadV2: constantPad,
  MirrorPad: mirrorPad,
};
