/**
 * How a node in the form of an older operator set is written in a newer one: one rule for each change of an operator
 * that is more than new dtypes and options (those are in `operator-changes.ts`). A rule gives nodes that compute the
 * same numbers, or undefined where there are none. Sources are the ONNX change log and, where that is silent (how
 * Upsample picks the nearest pixel), what ONNX Runtime does; the tests hold every rule to ONNX Runtime.
 */
import { float32, int64, type Tensor } from "../tensor/tensor.js";
import {
  attribute,
  copyOf,
  findAttribute,
  floatAttribute,
  intAttribute,
  type Node,
  node,
  stringAttribute,
  type ValueType,
} from "./model.js";

/** What a rule knows of the place where a node stands. */
export interface Place {
  /** Dtype and shape of a value, as far as they are known. */
  readonly type: (name: string) => ValueType | undefined;
  /** A constant's value. */
  readonly constant: (name: string) => Tensor | undefined;
  /** Whether anything reads a value. */
  readonly isRead: (name: string) => boolean;
  /** An unused name of a value that begins so. */
  readonly fresh: (wanted: string) => string;
}

/** The nodes in place of one; undefined where the newer form cannot say the same. */
export type UpgradeRule = (of: Node, place: Place) => Node[] | undefined;

/** By operator and the version that changed it. */
export const UPGRADE_RULES: Readonly<Record<string, Readonly<Record<number, UpgradeRule>>>> = {
  BatchNormalization: { 9: withoutSpatial, 14: withoutTraining },
  Clip: { 11: clipByInputs },
  Dropout: { 10: dropout, 12: dropout },
  Hardmax: { 13: overOneAxis },
  LogSoftmax: { 13: overOneAxis },
  Pad: { 11: padByInputs },
  ReduceSum: { 13: byInput("axes") },
  Resize: { 11: resizeByMode },
  RoiAlign: { 16: roiAlign },
  Scatter: { 11: (of) => [copyOf(of, { opType: "ScatterElements" })] },
  Slice: { 10: sliceByInputs },
  Softmax: { 13: overOneAxis },
  Split: { 13: byInput("split") },
  Squeeze: { 13: byInput("axes") },
  TopK: { 10: topKByInput },
  Unsqueeze: { 13: byInput("axes") },
  Upsample: { 9: upsampleByInput, 10: (of) => [copyOf(of, { opType: "Resize" })] },
};

/** A list that was an attribute as the next input. */
function byInput(name: string): UpgradeRule {
  return (of, place) => {
    const list = int64s(of, name);
    return list ? withInputs(of, [name], [int64([list.length], list)], place) : [of];
  };
}

/** Without `spatial` the statistics are those of channels, which is its default. */
function withoutSpatial(of: Node): Node[] | undefined {
  return intAttribute(of, "spatial", 1) === 1 ? [without(of, "spatial")] : undefined;
}

/** More outputs than one meant training, which evaluation.ts takes out. */
function withoutTraining(of: Node): Node[] | undefined {
  return of.output.slice(1).every((name) => name === "") ? [of] : undefined;
}

/** Nobody trains here: Dropout is what it passes on. The mask became bool in set 10, and it is all true. */
function dropout(of: Node, { isRead }: Place): Node[] | undefined {
  const [data = ""] = of.input;
  const [result = "", mask = ""] = of.output;
  return mask === "" || !isRead(mask)
    ? [copyOf(node("Identity", [data], [result]), { name: of.name })]
    : undefined;
}

/** Bounds are scalars of the input's dtype. */
function clipByInputs(of: Node, place: Place): Node[] {
  const names = ["min", "max"];
  const bounds = names.map((name) => findAttribute(of, name));
  return withInputs(
    of,
    names,
    bounds.map((bound) => bound && float32([], [bound.f])),
    place,
  );
}

/** Nothing said means zeros in both forms. */
function padByInputs(of: Node, place: Place): Node[] | undefined {
  const pads = int64s(of, "pads");
  const value = floatAttribute(of, "value", 0);
  const filling = Object.is(value, 0) ? undefined : float32([], [value]);
  return pads && withInputs(of, ["pads", "value"], [int64([pads.length], pads), filling], place);
}

function sliceByInputs(of: Node, place: Place): Node[] | undefined {
  const names = ["starts", "ends", "axes"];
  const [starts, ends, axes] = names.map((name) => int64s(of, name));
  if (!starts || !ends) return undefined;
  const lists = [starts, ends, axes].map((list) => list && int64([list.length], list));
  return withInputs(of, names, lists, place);
}

function topKByInput(of: Node, place: Place): Node[] {
  return withInputs(of, ["k"], [int64([1], [intAttribute(of, "k", 1)])], place);
}

function upsampleByInput(of: Node, place: Place): Node[] | undefined {
  const scales = findAttribute(of, "scales")?.floats;
  return scales ? withInputs(of, ["scales"], [float32([scales.length], scales)], place) : undefined;
}

/**
 * Resize of set 10 takes pixel x from x / scale. Of two pixels it took the left one where it enlarges, and the right
 * one where it shrinks, which the newer form cannot say of both at once.
 */
function resizeByMode(of: Node, place: Place): Node[] | undefined {
  const [x = "", scales = ""] = of.input;
  const mode = stringAttribute(of, "mode", "nearest");
  const factors = place.constant(scales)?.data;
  if (mode !== "linear" && !(factors instanceof Float32Array && factors.every((factor) => factor >= 1)))
    return undefined;
  const placement = [attribute("coordinate_transformation_mode", "asymmetric")];
  const rounding = mode === "nearest" ? [attribute("nearest_mode", "floor")] : [];
  return [copyOf(of, { input: [x, "", scales], attribute: [...of.attribute, ...placement, ...rounding] })];
}

/** Until set 16, regions were not moved by half a pixel. */
function roiAlign(of: Node): Node[] {
  const placement = attribute("coordinate_transformation_mode", "output_half_pixel");
  return [copyOf(of, { attribute: [...of.attribute, placement] })];
}

/** Softmax ran over all axes from `axis` on together, and runs over `axis` alone since set 13. */
function overOneAxis(of: Node, place: Place): Node[] {
  const [x = ""] = of.input;
  const [y = ""] = of.output;
  const given = intAttribute(of, "axis", 1);
  const shape = place.type(x)?.shape;
  const axis = given < 0 && shape ? given + shape.length : given;
  const isAlone = given === -1 || shape?.slice(axis + 1).every((size) => size === 1) === true;
  if (isAlone) return [copyOf(without(of, "axis"), { attribute: [attribute("axis", given)] })];
  const [flat, sizes, result] = ["flat", "shape", "result"].map((what) => place.fresh(`${y}/${what}`));
  if (flat === undefined || sizes === undefined || result === undefined) return [];
  return [
    nameless(node("Shape", [x], [sizes])),
    nameless(node("Flatten", [x], [flat], { axis: given })),
    copyOf(of, { input: [flat], output: [result], attribute: [attribute("axis", -1)] }),
    nameless(node("Reshape", [result, sizes], [y])),
  ];
}

/** The node with further inputs, constants, in place of the attributes of the same names. */
function withInputs(
  of: Node,
  names: readonly string[],
  values: readonly (Tensor | undefined)[],
  place: Place,
): Node[] {
  const constants = values.map((value, at) => (value ? constant(of, names[at] ?? "", value, place) : []));
  const input = [...of.input, ...constants.map((nodes) => nodes.at(-1)?.output[0] ?? "")];
  while (input.at(-1) === "") input.pop();
  return [...constants.flat(), copyOf(without(of, ...names), { input })];
}

/** A constant, and where it is a number for an input that is not float32, its cast to the dtype of that. */
function constant(of: Node, what: string, value: Tensor, { type, fresh }: Place): Node[] {
  const [x = ""] = of.input;
  const name = fresh(`${of.output[0] ?? ""}/${what}`);
  const made = nameless(node("Constant", [], [name], { value }));
  const isFilling = value.dtype === "float32" && value.shape.length === 0;
  if (!isFilling || type(x)?.dtype === "float32") return [made];
  return [made, nameless(node("CastLike", [name, x], [fresh(`${name}_cast`)]))];
}

/** An INTS attribute; not as numbers, because the largest of int64 stands for "to the end". */
function int64s(of: Node, name: string): readonly bigint[] | undefined {
  return findAttribute(of, name)?.ints;
}

function without(of: Node, ...names: readonly string[]): Node {
  return copyOf(of, { attribute: of.attribute.filter(({ name }) => !names.includes(name)) });
}

/** Names of nodes are free to be left out, and those of the model are taken. */
function nameless(made: Node): Node {
  return copyOf(made, { name: "" });
}
