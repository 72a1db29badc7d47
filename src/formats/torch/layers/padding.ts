/** Padding layers, and the padding that convolutions do in ways ONNX's own does not know. */
import type { Value } from "../builder.js";
import { type Call, type Rule, sizeAfter } from "../rule.js";

/** How what is outside is filled. `circular` is ONNX's `wrap`, which is younger than the operator set we write. */
export type PadMode = "constant" | "reflect" | "edge" | "circular";

interface Padding {
  /** By axis from the third on; negative numbers cut off. */
  readonly before: readonly number[];
  readonly after: readonly number[];
  readonly mode: PadMode;
  readonly value: number;
}

/** The value with its axes from the third on made larger. */
export function pad(call: Call, value: Value, { before, after, mode, value: fill }: Padding): Value {
  const sizes = value.shape.slice(2).map((size, at) => {
    const more = (before[at] ?? 0) + (after[at] ?? 0);
    return sizeAfter(size, (known) => known + more, more === 0);
  });
  const shape = [...value.shape.slice(0, 2), ...sizes];
  if ([...before, ...after].every((each) => each === 0)) return value;
  if (mode === "circular") return wrap(call, value, before, after);
  const amounts = call.ints([0, 0, ...before, 0, 0, ...after]);
  const constant = mode === "constant" ? call.floats([], [fill]) : undefined;
  return call.op("Pad", [value, amounts, constant], { mode }, shape);
}

/** The end of each axis before it and its beginning behind it. */
function wrap(call: Call, value: Value, before: readonly number[], after: readonly number[]): Value {
  let made = value;
  for (const [at, left] of before.entries()) {
    const [axis, right] = [at + 2, after[at] ?? 0];
    if (left < 0 || right < 0) throw call.layer.unsupported("cuts off by a circular padding");
    const size = made.shape[axis] ?? "?";
    const part = (from: number, to: number, length: number) =>
      call.op(
        "Slice",
        [made, call.ints([from]), call.ints([to]), call.ints([axis])],
        {},
        made.shape.with(axis, length),
      );
    const parts = [
      ...(left > 0 ? [part(-left, Number.MAX_SAFE_INTEGER, left)] : []),
      made,
      ...(right > 0 ? [part(0, right, right)] : []),
    ];
    if (parts.length === 1) continue;
    const shape = made.shape.with(
      axis,
      sizeAfter(size, (known) => known + left + right),
    );
    made = call.op("Concat", parts, { axis }, shape);
  }
  return made;
}

/** A layer that pads `axes` axes; PyTorch lists pairs from the last axis on. */
export function padding(axes: number, mode: PadMode): Rule {
  return {
    expects: () => ({ rank: axes + 2 }),
    keeps: "channels",
    apply(call) {
      call.requireRank(axes + 2);
      const given = call.layer.ints("padding", 2 * axes, 0);
      const side = (which: 0 | 1) =>
        Array.from({ length: axes }, (_, at) => given[2 * (axes - 1 - at) + which] ?? 0);
      const value = mode === "constant" ? call.layer.number("value", 0) : 0;
      return pad(call, call.input, { before: side(0), after: side(1), mode, value });
    },
  };
}
