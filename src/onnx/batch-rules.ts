/**
 * How operators carry a batch. A value of a graph that was made for one row has its batch at an axis when, run on
 * several rows, that axis is as many times longer and its equal parts are what the rows give one by one. A rule
 * says at which axis a node's outputs have it, given where its inputs do, and rewrites the node where a constant
 * stands in the way; no answer means that the node mixes rows, or that it is not known not to.
 */
import { elementCount, type Shape } from "../tensor/shape.js";
import { int64 } from "../tensor/tensor.js";
import {
  copyOf,
  findAttribute,
  intAttribute,
  intsAttribute,
  type Node,
  node,
  stringAttribute,
  type Weight,
} from "./model.js";
import { weight } from "./weight.js";

/** A node with what is known of its values when the graph runs on one row. */
export interface BatchView {
  readonly node: Node;
  readonly opset: number;
  /** Shape of an input; undefined when it is left out or not known in full. */
  shape(input: number): Shape | undefined;
  /** Shape of an output. */
  made(output: number): Shape | undefined;
  /** Where an input has its batch; undefined for one that is the same for all rows. */
  axis(input: number): number | undefined;
  /** Elements of a constant input; undefined when it is not one. */
  constant(input: number): readonly number[] | undefined;
  /** Whether anything reads an output. */
  isRead(output: number): boolean;
}

/** Where a node's outputs have their batch, and what takes its place if it has to change. */
export interface Carried {
  readonly axis: number;
  readonly nodes?: readonly Node[];
  readonly weights?: readonly Weight[];
}

type Rule = (view: BatchView) => Carried | undefined;

const END = 2 ** 31 - 1;

/** The rule's answer for a node that has a batch in one of its inputs. */
export function carryBatch(view: BatchView): Carried | undefined {
  return RULES.get(view.node.opType)?.(view);
}

const at = (axis: number | undefined): Carried | undefined => (axis === undefined ? undefined : { axis });
const places = ({ node: { input } }: BatchView) => input.map((_, place) => place);
const inRank = (axis: number, rank: number) => (axis < 0 ? axis + rank : axis);

/** The batch axis of the first input, when no other input has one. */
function onlyFirst(view: BatchView): number | undefined {
  return places(view)
    .slice(1)
    .some((place) => view.axis(place) !== undefined)
    ? undefined
    : view.axis(0);
}

const elementwise: Rule = (view) => at(onlyFirst(view));

/** Operators over [batch, channel, ...]. */
const images: Rule = (view) => {
  const others = view.node.output.slice(1).some((_, place) => view.isRead(place + 1));
  return !others && onlyFirst(view) === 0 ? { axis: 0 } : undefined;
};

/** Axes are counted from the right, as broadcasting does; rows must not meet what differs along their axis. */
const broadcast: Rule = (view) => {
  const inputs = places(view).filter((place) => view.node.input[place] !== "");
  const shapes = inputs.map((place) => view.shape(place));
  const rank = Math.max(...shapes.map((shape) => shape?.length ?? 0));
  let found: { fromRight: number; size: number | undefined } | undefined;
  for (const place of inputs) {
    const [shape, axis] = [view.shape(place), view.axis(place)];
    if (!shape) return undefined;
    if (axis === undefined) continue;
    const own = { fromRight: shape.length - axis, size: shape[axis] };
    if (found && (found.fromRight !== own.fromRight || found.size !== own.size)) return undefined;
    found = own;
  }
  if (!found) return undefined;
  const { fromRight } = found;
  const isFree = (place: number) => isOneFromRight(view.shape(place), fromRight);
  if (!inputs.every((place) => view.axis(place) !== undefined || isFree(place))) return undefined;
  return { axis: rank - fromRight };
};

function isOneFromRight(shape: Shape | undefined, fromRight: number): boolean {
  return shape !== undefined && (shape.length < fromRight || shape[shape.length - fromRight] === 1);
}

/** Operators that mix along one axis. */
const alongAxis =
  (fallback: number): Rule =>
  (view) => {
    const [axis, rank] = [onlyFirst(view), view.shape(0)?.length];
    if (axis === undefined || rank === undefined) return undefined;
    return inRank(intAttribute(view.node, "axis", fallback), rank) === axis ? undefined : { axis };
  };

/** Operators that mix all axes from one on. */
const fromAxis =
  (fallback: number): Rule =>
  (view) => {
    const [axis, rank] = [onlyFirst(view), view.shape(0)?.length];
    if (axis === undefined || rank === undefined) return undefined;
    return axis < inRank(intAttribute(view.node, "axis", fallback), rank) ? { axis } : undefined;
  };

const softmax: Rule = (view) => (view.opset < 13 ? fromAxis(1)(view) : alongAxis(-1)(view));

const argument: Rule = (view) => {
  const carried = alongAxis(0)(view);
  const rank = view.shape(0)?.length ?? 0;
  if (!carried || intAttribute(view.node, "keepdims", 1) !== 0) return carried;
  return { axis: carried.axis - (inRank(intAttribute(view.node, "axis", 0), rank) < carried.axis ? 1 : 0) };
};

/** Axes given by an attribute in older operator sets, by an input in newer ones; null when left out. */
export function axesOf(view: BatchView, rank: number): readonly number[] | undefined | null {
  const given = intsAttribute(view.node, "axes") ?? (view.node.input[1] ? view.constant(1) : null);
  return given?.map((axis) => inRank(axis, rank)) ?? given;
}

const reduce: Rule = (view) => {
  const [axis, rank] = [view.axis(0), view.shape(0)?.length];
  if (axis === undefined || rank === undefined) return undefined;
  const axes = axesOf(view, rank);
  if (axes === null || axes?.length === 0)
    return intAttribute(view.node, "noop_with_empty_axes", 0) === 1 ? { axis } : undefined;
  if (!axes || axes.includes(axis)) return undefined;
  const gone = intAttribute(view.node, "keepdims", 1) === 0 ? axes.filter((each) => each < axis).length : 0;
  return { axis: axis - gone };
};

const squeeze: Rule = (view) => {
  const [axis, shape] = [view.axis(0), view.shape(0)];
  if (axis === undefined || !shape) return undefined;
  const axes = axesOf(view, shape.length);
  if (axes === undefined) return undefined;
  const gone = axes ?? shape.flatMap((size, each) => (size === 1 ? [each] : []));
  return gone.includes(axis) ? undefined : { axis: axis - gone.filter((each) => each < axis).length };
};

const unsqueeze: Rule = (view) => {
  const [axis, shape] = [view.axis(0), view.made(0)];
  const axes = shape && axesOf(view, shape.length);
  if (axis === undefined || !axes) return undefined;
  const kept = shape.map((_, each) => each).filter((each) => !axes.includes(each));
  return at(kept[axis]);
};

const transpose: Rule = (view) => {
  const [axis, rank] = [view.axis(0), view.shape(0)?.length ?? 0];
  const order =
    intsAttribute(view.node, "perm") ?? Array.from({ length: rank }, (_, place) => rank - 1 - place);
  return axis === undefined ? undefined : at(order.indexOf(axis));
};

/** What stands before the batch must stand before it afterwards; then its axis takes what is left. */
const reshape: Rule = (view) => {
  const [axis, from, to] = [view.axis(0), view.shape(0), view.made(0)];
  if (axis === undefined || !from || !to || to.length === 0 || elementCount(to) === 0 || view.opset < 5)
    return undefined;
  const before = elementCount(from.slice(0, axis));
  const fits = (place: number) => place < to.length && elementCount(to.slice(0, place)) === before;
  const place = fits(axis) ? axis : to.findIndex((_, each) => fits(each));
  if (place < 0) return undefined;
  const asked = view.constant(1)?.[place];
  const copies = asked === 0 && place === axis && intAttribute(view.node, "allowzero", 0) === 0;
  if (asked === -1 || copies) return { axis: place };
  const shape = constant(`${view.node.output[0]}#shape`, to.with(place, -1));
  const input = [view.node.input[0] ?? "", shape.name];
  return { axis: place, nodes: [copyOf(view.node, { input })], weights: [shape] };
};

const flatten: Rule = (view) => {
  const [axis, from] = [view.axis(0), view.shape(0)];
  if (axis === undefined || !from) return undefined;
  const middle = inRank(intAttribute(view.node, "axis", 1), from.length);
  const before = elementCount(from.slice(0, axis));
  const isLeft = axis < middle;
  return before === (isLeft ? 1 : elementCount(from.slice(0, middle))) ? { axis: isLeft ? 0 : 1 } : undefined;
};

/** What is the same for all rows, a class token for example, is repeated for each. */
const concat: Rule = (view) => {
  const all = places(view);
  const first = all.find((place) => view.axis(place) !== undefined) ?? 0;
  const [axis, shape] = [view.axis(first), view.shape(first)];
  if (axis === undefined || !shape) return undefined;
  if (inRank(intAttribute(view.node, "axis", 1), shape.length) === axis) return undefined;
  const size = shape[axis];
  const others = all.filter((place) => view.axis(place) === undefined);
  const fits = all.every((place) =>
    others.includes(place)
      ? size === 1 && view.shape(place)?.[axis] === 1
      : view.axis(place) === axis && view.shape(place)?.[axis] === size,
  );
  if (!fits || (others.length > 0 && view.opset < 10)) return undefined;
  if (others.length === 0) return { axis };
  const name = view.node.output[0] ?? "";
  const rows = rowsOf(
    name,
    view.node.input[first] ?? "",
    shape.map(() => 1),
    axis,
  );
  const repeated = new Map(others.map((place) => [place, `${name}#rows-${place}`]));
  return {
    axis,
    weights: rows.weights,
    nodes: [
      ...rows.nodes,
      ...[...repeated].map(([place, made]) =>
        node("Expand", [view.node.input[place] ?? "", rows.name], [made]),
      ),
      copyOf(view.node, { input: view.node.input.map((given, place) => repeated.get(place) ?? given) }),
    ],
  };
};

const slice: Rule = (view) => {
  const [axis, rank] = [onlyFirst(view), view.shape(0)?.length];
  if (axis === undefined || rank === undefined) return undefined;
  const list = (name: string, place: number) => intsAttribute(view.node, name) ?? view.constant(place);
  const [starts, ends] = [list("starts", 1), list("ends", 2)];
  const isGiven = view.node.input[3] || findAttribute(view.node, "axes");
  const axes = isGiven ? list("axes", 3) : starts?.map((_, place) => place);
  if (!axes) return undefined;
  const place = axes.findIndex((each) => inRank(each, rank) === axis);
  const steps = view.node.input[4] ? view.constant(4) : undefined;
  const isWhole = starts?.[place] === 0 && (ends?.[place] ?? 0) >= END && (steps?.[place] ?? 1) === 1;
  return place < 0 || (isWhole && (!view.node.input[4] || steps)) ? { axis } : undefined;
};

const gather: Rule = (view) => {
  const [data, indices] = [view.axis(0), view.axis(1)];
  const rank = view.shape(0)?.length;
  const indexRank = view.shape(1)?.length;
  if (rank === undefined || indexRank === undefined) return undefined;
  const along = inRank(intAttribute(view.node, "axis", 0), rank);
  if (data === undefined) return indices === undefined ? undefined : { axis: along + indices };
  if (indices !== undefined || data === along) return undefined;
  return { axis: data < along ? data : data - 1 + indexRank };
};

const pad: Rule = (view) => {
  const [axis, rank] = [onlyFirst(view), view.shape(0)?.length];
  const pads = intsAttribute(view.node, "pads") ?? view.constant(1);
  if (axis === undefined || rank === undefined || pads?.length !== 2 * rank) return undefined;
  return pads[axis] === 0 && pads[axis + rank] === 0 ? { axis } : undefined;
};

const tile: Rule = (view) => (view.constant(1)?.[view.axis(0) ?? -1] === 1 ? at(view.axis(0)) : undefined);

const expand: Rule = (view) => {
  const [axis, from, to] = [view.axis(0), view.shape(0), view.made(0)];
  if (axis === undefined || !from || !to) return undefined;
  const place = axis + to.length - from.length;
  if (to[place] !== from[axis]) return undefined;
  const asked = view.constant(1);
  const added = asked && to.length - asked.length;
  if (added !== undefined && (place < added || asked?.[place - added] === 1)) return { axis: place };
  const shape = constant(`${view.node.output[0]}#shape`, to.with(place, 1));
  const input = [view.node.input[0] ?? "", shape.name];
  return { axis: place, nodes: [copyOf(view.node, { input })], weights: [shape] };
};

/** Sizes that were written down are put together again from the size of the batch at hand. */
const resize: Rule = (view) => {
  const [axis, to] = [onlyFirst(view), view.made(0)];
  if (axis === undefined || !to) return undefined;
  const axes = intsAttribute(view.node, "axes");
  if (axes) return axes.some((each) => inRank(each, to.length) === axis) ? undefined : { axis };
  const [scalesAt, sizesAt] = view.node.opType === "Upsample" || view.opset < 11 ? [1, -1] : [2, 3];
  if (!view.node.input[sizesAt]) {
    const scales = findAttribute(view.node, "scales")?.floats ?? view.constant(scalesAt);
    return scales?.[axis] === 1 ? { axis } : undefined;
  }
  if (stringAttribute(view.node, "keep_aspect_ratio_policy", "stretch") !== "stretch") return undefined;
  const rows = rowsOf(view.node.output[0] ?? "", view.node.input[0] ?? "", to, axis);
  const input = view.node.input.with(sizesAt, rows.name);
  return { axis, nodes: [...rows.nodes, copyOf(view.node, { input })], weights: rows.weights };
};

const matMul: Rule = (view) => {
  const [left, right] = [view.shape(0), view.shape(1)];
  const axes = [view.axis(0), view.axis(1)] as const;
  if (!left || !right || left.length < 2 || right.length < 2) return undefined;
  const rank = Math.max(left.length, right.length);
  const [ofLeft, ofRight] = axes;
  // Rows of a matrix on the left stay rows, whatever they are multiplied with.
  if (ofLeft === left.length - 2 && ofRight === undefined) return { axis: rank - 2 };
  const isStack = [left, right].every(({ length }, place) => (axes[place] ?? -1) < length - 2);
  return isStack && (ofLeft !== undefined || ofRight !== undefined) ? broadcast(view) : undefined;
};

/** Rows that lie in the columns, as in attention over [length, batch, width], are put below each other and back. */
const gemm: Rule = (view) => {
  const [axis, shape] = [onlyFirst(view), view.shape(0)];
  const isFree = !view.node.input[2] || isOneFromRight(view.shape(2), 2);
  if (!isFree || !shape || axis === undefined) return undefined;
  const isTurned = intAttribute(view.node, "transA", 0) !== 0;
  if (axis === (isTurned ? 1 : 0)) return { axis: 0 };
  if (isTurned) return undefined;
  const name = view.node.output[0] ?? "";
  const [length = 0, width = 0] = shape;
  const [apart, back] = [constant(`${name}#apart`, [-1, width]), constant(`${name}#back`, [length, -1])];
  return {
    axis: 1,
    weights: [apart, back],
    nodes: [
      node("Reshape", [view.node.input[0] ?? "", apart.name], [`${name}#rows`]),
      copyOf(view.node, {
        input: view.node.input.with(0, `${name}#rows`),
        output: [`${name}#product`],
      }),
      node("Reshape", [`${name}#product`, back.name], [name]),
    ],
  };
};

const quantize: Rule = (view) => {
  const [axis, scale, rank] = [onlyFirst(view), view.shape(1), view.shape(0)?.length];
  if (axis === undefined || !scale || rank === undefined || findAttribute(view.node, "block_size"))
    return undefined;
  const isOne = elementCount(scale) === 1;
  return isOne || inRank(intAttribute(view.node, "axis", 1), rank) !== axis ? { axis } : undefined;
};

const RULES: ReadonlyMap<string, Rule> = new Map([
  ...named(
    elementwise,
    "Abs Acos Acosh Asin Asinh Atan Atanh BitwiseNot Cast CastLike Ceil Celu Clip Cos Cosh Dropout Elu Erf Exp Floor Gelu HardSigmoid HardSwish Identity IsInf IsNaN LeakyRelu Log Mish Neg Not Reciprocal Relu Round Selu Shrink Sigmoid Sign Sin Sinh Softplus Softsign Sqrt Swish Tan Tanh ThresholdedRelu",
  ),
  ...named(
    broadcast,
    "Add And BitwiseAnd BitwiseOr BitwiseXor Div Equal Greater GreaterOrEqual Less LessOrEqual Max Mean Min Mod Mul Or PRelu Pow Sub Sum Where Xor",
  ),
  ...named(
    images,
    "AveragePool BatchNormalization Conv ConvInteger ConvTranspose DepthToSpace GlobalAveragePool GlobalLpPool GlobalMaxPool GroupNormalization InstanceNormalization LRN LpPool MaxPool QLinearConv SpaceToDepth",
  ),
  ...named(
    reduce,
    "ReduceL1 ReduceL2 ReduceLogSum ReduceLogSumExp ReduceMax ReduceMean ReduceMin ReduceProd ReduceSum ReduceSumSquare",
  ),
  ...named(softmax, "Hardmax LogSoftmax Softmax"),
  ...named(alongAxis(-1), "LpNormalization TopK"),
  ...named(alongAxis(0), "Split"),
  ...named(fromAxis(-1), "LayerNormalization RMSNormalization"),
  ...named(argument, "ArgMax ArgMin"),
  ...named(resize, "Resize Upsample"),
  ...named(quantize, "DequantizeLinear QuantizeLinear"),
  ["Concat", concat],
  ["Expand", expand],
  ["Flatten", flatten],
  ["Gather", gather],
  ["Gemm", gemm],
  ["MatMul", matMul],
  ["Pad", pad],
  ["Reshape", reshape],
  ["Slice", slice],
  ["Squeeze", squeeze],
  ["Tile", tile],
  ["Transpose", transpose],
  ["Unsqueeze", unsqueeze],
]);

function named(rule: Rule, operators: string): (readonly [string, Rule])[] {
  return operators.split(" ").map((operator) => [operator, rule] as const);
}

function constant(name: string, values: readonly number[]): Weight {
  return weight(name, int64([values.length], values));
}

/** A shape computed in the graph: `shape`, but at `axis` as long as `value` is there when the graph runs. */
function rowsOf(prefix: string, value: string, shape: readonly number[], axis: number) {
  const name = `${prefix}#rows`;
  const weights = [
    constant(`${name}-from`, [axis]),
    constant(`${name}-to`, [axis + 1]),
    constant(`${name}-before`, shape.slice(0, axis)),
    constant(`${name}-after`, shape.slice(axis + 1)),
  ];
  const [from, to, before, after] = weights.map((each) => each.name);
  const nodes = [
    node("Shape", [value], [`${name}-shape`]),
    node("Slice", [`${name}-shape`, from ?? "", to ?? ""], [`${name}-batch`]),
    node("Concat", [before ?? "", `${name}-batch`, after ?? ""], [name], { axis: 0 }),
  ];
  return { name, nodes, weights };
}
