/** Layers that make one value of several. */
import { addAxes } from "../../tfjs/axes.js";
import { broadcastDimension, total } from "../../tfjs/dimension.js";
import { malformed } from "../../tfjs/json.js";
import { unsupported } from "../../tfjs/unsupported.js";
import { axisIndex, size, storedAxis, type Value } from "../../tfjs/value.js";
import type { LayerCall, LayerRule, LayerRules } from "../rule.js";
import { unitLength } from "./normalization.js";

/** The inputs as float32 and of one rank: Keras puts the missing axes behind the batch. */
function sameRank(call: LayerCall): [Value, ...Value[]] {
  const values = call.inputs.map((_, index) => call.real(index));
  const rank = Math.max(...values.map((value) => value.shape.length));
  const [first, ...others] = values.map((value) =>
    addAxes(
      call.builder,
      value,
      Array.from({ length: rank - value.shape.length }, (_, axis) => axis + 1),
    ),
  );
  if (first) return [first, ...others];
  throw malformed(`Layer ${JSON.stringify(call.layer.name)} merges nothing.`);
}

function merge(combine: (call: LayerCall, values: readonly [Value, ...Value[]]) => Value): LayerRule {
  return { apply: (call) => combine(call, sameRank(call)) };
}

function folded(opType: string): LayerRule {
  return merge((call, [first, ...others]) =>
    others.reduce((left, right) => call.builder.elementwise(opType, [left, right], "float32"), first),
  );
}

const subtract = merge((call, [first, second, ...more]) => {
  if (!second || more.length > 0)
    throw malformed(`A difference of ${call.inputs.length} values was asked for.`);
  return call.builder.elementwise("Sub", [first, second], "float32");
});

const average = merge(({ builder }, [first, ...others]) => {
  const all = others.reduce((left, right) => builder.elementwise("Add", [left, right], "float32"), first);
  return builder.elementwise("Mul", [all, builder.scalar("float32", 1 / (others.length + 1))], "float32");
});

/** One behind the other along an axis; images stay stored as they are. */
const concatenate: LayerRule = {
  apply: (call) => {
    const { builder } = call;
    const first = call.input();
    const rank = first.shape.length;
    const axis = axisIndex(call.config.int("axis", -1), rank);
    const wrong = call.inputs.find((input) => input.shape.length !== rank);
    if (wrong) throw malformed(`Values of the ranks ${rank} and ${wrong.shape.length} are put together.`);
    const layout = call.inputs.some((input) => input.layout === "channelsFirst") ? "channelsFirst" : "plain";
    const dtype = call.inputs.every((input) => input.dtype === first.dtype) ? first.dtype : "float32";
    const placed = call.inputs.map((input) => builder.inLayout(builder.cast(input, dtype), layout));
    const shape = first.shape.map((each, at) => {
      const sizes = call.inputs.map((input) => size(input, at));
      if (at === axis) return total(sizes);
      return sizes.reduce((left, right) => {
        const both =
          left === 1 || right === 1 ? (left === right ? left : undefined) : broadcastDimension(left, right);
        if (both === undefined)
          throw malformed(`Values of ${left} and ${right} elements along axis ${at} are put together.`);
        return both;
      }, each);
    });
    const place = storedAxis({ ...first, layout }, axis);
    return builder.op("Concat", placed, { axis: place }, { dtype, shape, layout });
  },
};

/** The sum of products along one axis of each of two values, row by row. */
const dot: LayerRule = {
  apply: (call) => {
    const { builder, config } = call;
    const values = [0, 1].map((index) => builder.plain(call.real(index)));
    const stated = config.ints("axes") ?? [];
    const axes = values.map((value, at) => axisIndex(stated[at] ?? stated[0] ?? -1, value.shape.length));
    if (call.inputs.length !== 2 || axes.includes(0))
      throw malformed("A dot product needs two values and no batch axis.");
    if (values.some((value) => value.shape.length > 8))
      throw unsupported("a dot product of more than 8 axes");
    const [a, b] = values.map((value, at) =>
      config.bool("normalize", false) ? unitLength(call, value, [axes[at] ?? 1], 1e-12) : value,
    );
    if (!a || !b) throw malformed("A dot product needs two values.");
    const contracted = [size(a, axes[0] ?? 1), size(b, axes[1] ?? 1)];
    if (broadcastDimension(contracted[0] ?? 1, contracted[1] ?? 1) === undefined)
      throw malformed(`A dot product of ${contracted.join(" and ")} elements was asked for.`);
    const label = (at: number, axis: number) =>
      axis === 0 ? "z" : axis === axes[at] ? "y" : String.fromCharCode((at === 0 ? 97 : 105) + axis);
    const terms = [a, b].map((value, at) => value.shape.map((_, axis) => label(at, axis)));
    const kept = terms.flatMap((term, at) =>
      term.flatMap((each, axis) => (each === "y" || each === "z" ? [] : [{ each, at, axis }])),
    );
    const equation = `${terms.map((term) => term.join("")).join(",")}->z${kept.map(({ each }) => each).join("")}`;
    const shape = [size(a, 0), ...kept.map(({ at, axis }) => size(at === 0 ? a : b, axis))];
    const result = builder.op("Einsum", [a, b], { equation }, { dtype: "float32", shape });
    return kept.length === 0 ? addAxes(builder, result, [1]) : result;
  },
};

/** Rules for merges. */
export const mergeRules: LayerRules = {
  Add: folded("Add"),
  Multiply: folded("Mul"),
  Maximum: folded("Max"),
  Minimum: folded("Min"),
  Subtract: subtract,
  Average: average,
  Concatenate: concatenate,
  Dot: dot,
};
