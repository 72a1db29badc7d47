/**
 * Every rule against TF.js: a graph of one operator, for each variant of its attributes. Operators on images run
 * twice, on the input itself and on the result of a convolution, which is stored channels first.
 */
import * as tf from "@tensorflow/tfjs-core";
import "@tensorflow/tfjs-backend-cpu";
import { afterAll, beforeAll, describe, it } from "vitest";
import type { Runtime } from "../../src/runtime/runtime.js";
import { float32, type Tensor, tensor } from "../../src/tensor/tensor.js";
import { type Attribute, type GraphSpec, graphFolder, ints, list, noise, scalar } from "./tfjs-graph.js";
import { expectAgreement, openRuntime } from "./tfjs-oracle.js";

let runtime: Runtime;
beforeAll(async () => {
  await tf.setBackend("cpu");
  runtime = await openRuntime();
});
afterAll(() => runtime.close());

type Attributes = Record<string, Attribute>;
/** Operator, what of it is tried, shapes of the inputs, constants behind them, attributes, number of outputs. */
interface Case {
  readonly op: string;
  readonly what?: string;
  readonly shapes?: readonly (readonly number[])[];
  readonly dtypes?: readonly string[];
  readonly constants?: readonly Tensor[];
  readonly attributes?: Attributes;
  readonly outputs?: number;
  /** Constants stand before the inputs. */
  readonly constantsFirst?: boolean;
  /** Inputs lie between 0 and 1 in place of -2 and 2. */
  readonly unit?: boolean;
}

const IMAGE = [2, 6, 5, 4] as const;
const on = (shape: readonly number[], rest: Omit<Case, "shapes">): Case => ({ ...rest, shapes: [shape] });
const image = (rest: Omit<Case, "shapes">): Case => on(IMAGE, rest);
const window = (strides: number[], padding: string, more: Attributes = {}): Attributes => ({
  strides: [1, ...strides, 1],
  padding,
  dilations: [1, 1, 1, 1],
  data_format: "NHWC",
  ...more,
});

const CASES: readonly Case[] = [
  // Convolutions.
  ...["SAME", "VALID"].flatMap((padding) =>
    [
      [1, 1],
      [2, 2],
      [2, 3],
    ].flatMap((strides) => [
      image({
        op: "Conv2D",
        what: `${padding} ${strides}`,
        constants: [noise([3, 2, 4, 5])],
        attributes: window(strides, padding),
      }),
      image({
        op: "_FusedConv2D",
        what: `bias, relu, ${padding} ${strides}`,
        constants: [noise([2, 3, 4, 5]), noise([5])],
        attributes: window(strides, padding, { fused_ops: ["BiasAdd", "Relu"], num_args: 1 }),
      }),
    ]),
  ),
  ...["SAME", "VALID"].flatMap((padding) => [
    image({
      op: "Conv2D",
      what: `dilated ${padding}`,
      constants: [noise([2, 3, 4, 3])],
      attributes: window([1, 1], padding, { dilations: [1, 3, 1, 1] }),
    }),
    image({
      op: "DepthwiseConv2dNative",
      what: `multiplier 2 ${padding}`,
      constants: [noise([3, 3, 4, 2])],
      attributes: window([1, 1], padding),
    }),
    image({
      op: "DepthwiseConv2dNative",
      what: `strides ${padding}`,
      constants: [noise([3, 2, 4, 1])],
      attributes: window([2, 2], padding),
    }),
    image({
      op: "DepthwiseConv2dNative",
      what: `dilated ${padding}`,
      constants: [noise([2, 2, 4, 1])],
      attributes: window([1, 1], padding, { dilations: [1, 2, 2, 1] }),
    }),
    image({ op: "MaxPool", what: padding, attributes: window([2, 2], padding, { ksize: [1, 3, 2, 1] }) }),
    image({ op: "AvgPool", what: padding, attributes: window([2, 1], padding, { ksize: [1, 3, 3, 1] }) }),
    on([1, 4, 5, 6, 3], {
      op: "Conv3D",
      what: padding,
      constants: [noise([2, 3, 2, 3, 4])],
      attributes: { strides: [1, 1, 2, 1, 1], dilations: [1, 1, 1, 1, 1], data_format: "NDHWC", padding },
    }),
    on([1, 4, 5, 6, 3], {
      op: "MaxPool3D",
      what: padding,
      attributes: { strides: [1, 2, 2, 2, 1], ksize: [1, 2, 3, 2, 1], padding },
    }),
    on([1, 4, 5, 6, 3], {
      op: "AvgPool3D",
      what: padding,
      attributes: { strides: [1, 2, 2, 2, 1], ksize: [1, 2, 3, 2, 1], padding },
    }),
  ]),
  image({
    op: "Conv2D",
    what: "explicit",
    constants: [noise([3, 3, 4, 2])],
    attributes: window([1, 1], "EXPLICIT", { explicit_paddings: [0, 0, 1, 2, 0, 1, 0, 0] }),
  }),
  ...["Relu6", "Elu", "Sigmoid", "LeakyRelu"].map((name) =>
    image({
      op: "_FusedConv2D",
      what: `bias, ${name}`,
      constants: [noise([1, 1, 4, 5]), noise([5])],
      attributes: window([1, 1], "SAME", { fused_ops: ["BiasAdd", name], num_args: 1, leakyrelu_alpha: 0.3 }),
    }),
  ),
  image({
    op: "_FusedConv2D",
    what: "bias, prelu",
    constants: [noise([1, 1, 4, 5]), noise([5]), noise([1, 1, 5], 9)],
    attributes: window([1, 1], "SAME", { fused_ops: ["BiasAdd", "Prelu"], num_args: 2 }),
  }),
  image({
    op: "FusedDepthwiseConv2dNative",
    what: "bias, relu6",
    constants: [noise([3, 3, 4, 1]), noise([4])],
    attributes: window([2, 2], "SAME", { fused_ops: ["BiasAdd", "Relu6"], num_args: 1 }),
  }),
  ...(
    [
      ["SAME", [2, 12, 10, 3]],
      ["SAME", [2, 11, 9, 3]],
      ["VALID", [2, 13, 11, 3]],
    ] as const
  ).map(([padding, shape]) =>
    image({
      op: "Conv2DBackpropInput",
      what: `${padding} ${shape}`,
      constantsFirst: true,
      constants: [list(...shape), noise([3, 3, 3, 4])],
      attributes: window([2, 2], padding),
    }),
  ),
  image({
    op: "Conv2DBackpropInput",
    what: "stride over kernel",
    constantsFirst: true,
    constants: [list(2, 18, 15, 3), noise([2, 2, 3, 4])],
    attributes: window([3, 3], "SAME"),
  }),

  // Normalisation.
  image({
    op: "FusedBatchNormV3",
    constants: [noise([4]), noise([4], 2), noise([4], 3), float32([4], [0.5, 1, 2, 0.1])],
    attributes: { epsilon: 0.001 },
  }),
  image({ op: "LRN", attributes: { depth_radius: 1, alpha: 0.3, beta: 0.75, bias: 2 } }),
  image({ op: "Softmax" }),
  on([3, 7], { op: "LogSoftmax" }),
  image({ op: "BiasAdd", constants: [noise([4])] }),

  // Products of matrices.
  ...[
    [false, false],
    [true, false],
    [false, true],
    [true, true],
  ].map(
    ([a = false, b = false]): Case => ({
      op: "MatMul",
      what: `${a} ${b}`,
      shapes: [a ? [4, 3] : [3, 4]],
      constants: [noise(b ? [5, 4] : [4, 5])],
      attributes: { transpose_a: a, transpose_b: b },
    }),
  ),
  on([3, 4], {
    op: "_FusedMatMul",
    what: "bias, relu",
    constants: [noise([4, 5]), noise([5])],
    attributes: { fused_ops: ["BiasAdd", "Relu"], num_args: 1 },
  }),
  on([3, 4], {
    op: "_FusedMatMul",
    what: "bias",
    constants: [noise([4, 5]), noise([5])],
    attributes: { fused_ops: ["BiasAdd"], num_args: 1 },
  }),
  {
    op: "BatchMatMulV2",
    shapes: [
      [2, 3, 4],
      [2, 5, 4],
    ],
    attributes: { adj_y: true },
  },
  {
    op: "BatchMatMul",
    shapes: [
      [2, 4, 3],
      [2, 4, 5],
    ],
    attributes: { adj_x: true },
  },
  {
    op: "Einsum",
    shapes: [
      [2, 3, 4],
      [4, 5],
    ],
    attributes: { equation: "abc,cd->abd" },
  },
  {
    op: "Einsum",
    shapes: [
      [2, 3, 4, 5],
      [2, 6, 4, 5],
    ],
    attributes: { equation: "BTNH,BFNH->BNFT" },
  },

  // One element at a time.
  ...[
    "Abs",
    "Neg",
    "Sign",
    "Ceil",
    "Floor",
    "Round",
    "Atan",
    "Cos",
    "Cosh",
    "Sin",
    "Sinh",
    "Tan",
    "Erf",
    "Exp",
    "Expm1",
    "Asinh",
    "Square",
    "Relu",
    "Relu6",
    "Elu",
    "Selu",
    "Sigmoid",
    "Tanh",
    "Softplus",
    "IsNan",
    "IsInf",
    "IsFinite",
    "ZerosLike",
    "OnesLike",
    "Identity",
    "StopGradient",
    "Reciprocal",
  ].map((op) => image({ op })),
  ...["Acos", "Asin", "Atanh", "Log", "Log1p", "Sqrt", "Rsqrt"].map((op) => image({ op, unit: true })),
  on([2, 3], { op: "Acosh" }),
  image({ op: "LeakyRelu", attributes: { alpha: 0.15 } }),
  image({ op: "Prelu", constants: [noise([1, 1, 4])] }),
  image({ op: "ClipByValue", constants: [scalar(-0.5, "float32"), scalar(0.75, "float32")] }),
  ...[
    "Add",
    "AddV2",
    "Sub",
    "Mul",
    "RealDiv",
    "Div",
    "DivNoNan",
    "FloorMod",
    "Maximum",
    "Minimum",
    "SquaredDifference",
    "Atan2",
    "Greater",
    "GreaterEqual",
    "Less",
    "LessEqual",
    "Equal",
    "NotEqual",
  ].flatMap((op): Case[] => [
    { op, what: "images", shapes: [IMAGE, IMAGE] },
    { op, what: "image and channels", shapes: [IMAGE, [4]] },
    { op, what: "image and map", shapes: [IMAGE, [6, 5, 1]] },
    image({ op, what: "image and constant", constants: [noise([4])] }),
    image({ op, what: "image and number", constants: [scalar(0.5, "float32")] }),
  ]),
  image({ op: "Pow", constants: [scalar(2, "float32")] }),
  ...[
    "Add",
    "Sub",
    "Mul",
    "FloorDiv",
    "FloorMod",
    "Mod",
    "Maximum",
    "Minimum",
    "Less",
    "Equal",
    "NotEqual",
    "SquaredDifference",
    "Div",
  ].map(
    (op): Case => ({
      op,
      what: "int32",
      shapes: [[3, 4]],
      dtypes: ["DT_INT32"],
      constants: [ints([4], [3, -7, 5, 1000])],
    }),
  ),
  ...["LogicalAnd", "LogicalOr"].map(
    (op): Case => ({
      op,
      shapes: [
        [3, 4],
        [3, 4],
      ],
      dtypes: ["DT_BOOL", "DT_BOOL"],
    }),
  ),
  { op: "LogicalNot", shapes: [[3, 4]], dtypes: ["DT_BOOL"] },
  { op: "SelectV2", shapes: [[2, 6, 5, 1], IMAGE, [4]], dtypes: ["DT_BOOL"] },
  { op: "Select", shapes: [IMAGE, IMAGE, IMAGE], dtypes: ["DT_BOOL"] },
  { op: "AddN", shapes: [IMAGE, IMAGE, IMAGE] },
  ...(["DT_INT32", "DT_BOOL", "DT_FLOAT"] as const).map((dtype) =>
    image({ op: "Cast", what: dtype, attributes: { DstT: dtype } }),
  ),
  {
    op: "Cast",
    what: "bool to float",
    shapes: [[3, 4]],
    dtypes: ["DT_BOOL"],
    attributes: { DstT: "DT_FLOAT" },
  },

  // Reductions.
  ...["Max", "Min", "Mean", "Sum", "Prod"].flatMap((op) =>
    [[1, 2], [-1], [0], [3], [1, 2, 3], [0, 1, 2, 3]].flatMap((axes) =>
      [true, false].map((keep) =>
        image({ op, what: `${axes} ${keep}`, constants: [list(...axes)], attributes: { keep_dims: keep } }),
      ),
    ),
  ),
  ...[[1, 2], [-1], [0]].map((axes) =>
    image({
      op: "EuclideanNorm",
      what: `${axes}`,
      constants: [list(...axes)],
      attributes: { keep_dims: true },
    }),
  ),
  ...["All", "Any"].map(
    (op): Case => ({
      op,
      shapes: [[3, 4]],
      dtypes: ["DT_BOOL"],
      constants: [list(1)],
      attributes: { keep_dims: false },
    }),
  ),
  ...["ArgMax", "ArgMin"].flatMap((op) =>
    [0, 1, 3, -1].map((axis) => image({ op, what: `${axis}`, constants: [scalar(axis)] })),
  ),
  ...[
    [false, false],
    [true, false],
    [false, true],
    [true, true],
  ].map(([exclusive = false, reverse = false]) =>
    image({
      op: "Cumsum",
      what: `${exclusive} ${reverse}`,
      constants: [scalar(3)],
      attributes: { exclusive, reverse },
    }),
  ),

  // Shapes.
  image({ op: "Shape" }),
  image({ op: "Size" }),
  image({ op: "Rank" }),
  ...[[2, -1], [12, 5, 4], [2, 30, 4], [-1], [2, 6, 5, 2, 2], [1, 2, 6, 5, 4]].map((shape) =>
    image({ op: "Reshape", what: `${shape}`, constants: [list(...shape)] }),
  ),
  ...[[2, 4], [2, 1, 4], [1, 2, 1, 4], [8]].map((shape) =>
    on([2, 1, 1, 4], { op: "Reshape", what: `pooled to ${shape}`, constants: [list(...shape)] }),
  ),
  on([2, 1, 5, 1], { op: "Squeeze" }),
  on([2, 1, 5, 1], { op: "Squeeze", what: "one", attributes: { squeeze_dims: [1] } }),
  on([2, 1, 1, 4], { op: "Squeeze", what: "pooled", attributes: { squeeze_dims: [1, 2] } }),
  on([2, 1, 5, 1], { op: "Squeeze", what: "channels", attributes: { squeeze_dims: [-1] } }),
  ...[0, 1, 2, 4, -1].map((axis) => image({ op: "ExpandDims", what: `${axis}`, constants: [scalar(axis)] })),
  ...[
    [0, 3, 1, 2],
    [0, 2, 3, 1],
    [3, 2, 1, 0],
    [0, 1, 3, 2],
  ].map((order) => image({ op: "Transpose", what: `${order}`, constants: [list(...order)] })),
  on([5, 1], { op: "BroadcastTo", constants: [list(2, 5, 3)] }),
  image({ op: "Tile", constants: [list(1, 2, 1, 3)] }),

  // Parts.
  image({ op: "Slice", constants: [list(0, 1, 2, 1), list(-1, 3, -1, 2)] }),
  image({
    op: "StridedSlice",
    what: "plain",
    constants: [list(0, 1, 0, 0), list(2, 5, 5, 3), list(1, 2, 1, 1)],
    attributes: {},
  }),
  image({
    op: "StridedSlice",
    what: "negative",
    constants: [list(0, -1, 0, -3), list(2, 0, 5, -1), list(1, -2, 1, 1)],
    attributes: {},
  }),
  image({
    op: "StridedSlice",
    what: "open",
    constants: [list(0, 1, 2), list(0, 0, 0), list(1, 1, 2)],
    attributes: { begin_mask: 1, end_mask: 7 },
  }),
  image({
    op: "StridedSlice",
    what: "ellipsis",
    constants: [list(0, 1), list(0, 3), list(1, 1)],
    attributes: { ellipsis_mask: 1 },
  }),
  image({
    op: "StridedSlice",
    what: "ellipsis and drop",
    constants: [list(0, 2), list(0, 3), list(1, 1)],
    attributes: { ellipsis_mask: 1, shrink_axis_mask: 2 },
  }),
  image({
    op: "StridedSlice",
    what: "drop",
    constants: [list(0, 2, 0), list(0, 3, 0), list(1, 1, 1)],
    attributes: { begin_mask: 5, end_mask: 5, shrink_axis_mask: 2 },
  }),
  image({
    op: "StridedSlice",
    what: "drop last but one",
    constants: [list(0, -1), list(0, 0), list(1, 1)],
    attributes: { begin_mask: 1, end_mask: 1, shrink_axis_mask: 2 },
  }),
  image({
    op: "StridedSlice",
    what: "new axis",
    constants: [list(0, 0, 0), list(0, 0, 3), list(1, 1, 1)],
    attributes: { begin_mask: 7, end_mask: 3, new_axis_mask: 2 },
  }),
  image({
    op: "StridedSlice",
    what: "reversed",
    constants: [list(0, 0), list(0, 0), list(1, -1)],
    attributes: { begin_mask: 3, end_mask: 3 },
  }),
  ...[1, 3, -1].map((axis) => image({ op: "ReverseV2", what: `${axis}`, constants: [list(axis)] })),
  image({
    op: "Split",
    outputs: 2,
    constantsFirst: true,
    constants: [scalar(3)],
    attributes: { num_split: 2 },
  }),
  image({ op: "SplitV", outputs: 3, constants: [list(1, -1, 2), scalar(1)], attributes: { num_split: 3 } }),
  image({ op: "Unpack", outputs: 2, attributes: { axis: 0, num: 2 } }),
  image({ op: "Unpack", what: "channels", outputs: 4, attributes: { axis: -1, num: 4 } }),

  // Making and joining.
  ...[0, 1, 3, -1].map(
    (axis): Case => ({
      op: "ConcatV2",
      what: `${axis}`,
      shapes: [IMAGE, IMAGE, IMAGE],
      constants: [scalar(axis)],
      attributes: { N: 3 },
    }),
  ),
  ...[0, 1, 4].map(
    (axis): Case => ({ op: "Pack", what: `${axis}`, shapes: [IMAGE, IMAGE], attributes: { axis, N: 2 } }),
  ),
  {
    op: "OneHot",
    shapes: [[2, 3]],
    dtypes: ["DT_INT32"],
    constants: [scalar(200), scalar(1, "float32"), scalar(0, "float32")],
    attributes: { axis: -1, T: "DT_FLOAT" },
  },

  // Picking and placing.
  ...[0, 1, 3].map((axis) =>
    image({
      op: "GatherV2",
      what: `${axis}`,
      constants: [list(1, 0, 1), scalar(axis)],
      attributes: { batch_dims: 0 },
    }),
  ),
  image({ op: "GatherV2", what: "one", constants: [scalar(1), scalar(1)], attributes: { batch_dims: 0 } }),
  image({
    op: "GatherV2",
    what: "matrix",
    constants: [ints([2, 2], [1, 0, 3, 2]), scalar(3)],
    attributes: { batch_dims: 0 },
  }),
  on([2, 5, 3], {
    op: "GatherV2",
    what: "batch",
    constants: [ints([2, 2], [4, 0, 3, 2]), scalar(1)],
    attributes: { batch_dims: 1 },
  }),
  image({ op: "GatherNd", constants: [ints([3, 2], [0, 1, 1, 5, 1, 0])] }),
  on([3, 4], {
    op: "ScatterNd",
    constantsFirst: true,
    constants: [ints([3, 1], [4, 1, 4])],
    what: "twice the same",
    attributes: {},
  }),
  on([3], {
    op: "SparseToDense",
    constantsFirst: true,
    constants: [ints([3, 2], [4, 1, 0, 0, 2, 3])],
    attributes: {},
  }),
  on([3], { op: "SparseToDense", constantsFirst: true, constants: [ints([3], [4, 1, 0])], what: "a list" }),
  on([3, 9], { op: "TopKV2", outputs: 2, constants: [scalar(4)], attributes: { sorted: true } }),
  { op: "Where", shapes: [[3, 4]], dtypes: ["DT_BOOL"] },

  // Padding and blocks.
  image({ op: "Pad", constants: [ints([4, 2], [0, 0, 1, 2, 0, 3, 2, 1])] }),
  image({ op: "PadV2", constants: [ints([4, 2], [0, 1, 1, 2, 0, 3, 0, 0]), scalar(0.5, "float32")] }),
  ...["REFLECT", "SYMMETRIC"].map((mode) =>
    image({
      op: "MirrorPad",
      what: mode,
      constants: [ints([4, 2], [0, 0, 2, 1, 1, 3, 0, 0])],
      attributes: { mode },
    }),
  ),
  image({ op: "SpaceToBatchND", constants: [list(2, 3), ints([2, 2], [1, 1, 0, 1])] }),
  on([12, 4, 3, 4], { op: "BatchToSpaceND", constants: [list(2, 3), ints([2, 2], [1, 1, 0, 2])] }),

  // Images.
  ...["ResizeBilinear", "ResizeNearestNeighbor"].flatMap((op) =>
    [
      [12, 10],
      [9, 13],
      [3, 2],
      [1, 1],
      [6, 5],
      [24, 5],
    ].flatMap((size) =>
      [
        [false, false],
        [true, false],
        [false, true],
      ].map(([align = false, half = false]) =>
        image({
          op,
          what: `${size} ${align} ${half}`,
          constants: [list(...size)],
          attributes: { align_corners: align, half_pixel_centers: half },
        }),
      ),
    ),
  ),
  image({ op: "DepthToSpace", attributes: { block_size: 2, data_format: "NHWC" } }),
];

/** The graph of a case; `isStored` puts a convolution before each input that is an image. */
function graphOf(each: Case, isStored: boolean): GraphSpec {
  const shapes = each.shapes ?? [];
  const inputs = shapes.map(
    (shape, index) => [`in${index}`, { shape, dtype: each.dtypes?.[index] ?? "DT_FLOAT" }] as const,
  );
  const constants: Record<string, Tensor> = {};
  const nodes: GraphSpec["nodes"][number][] = [];
  const values = inputs.map(([name, { shape, dtype }], index) => {
    if (dtype !== "DT_FLOAT") return name;
    const [factor, offset] = each.unit ? [1, 0] : [4, -2];
    constants[`factor${index}`] = scalar(factor, "float32");
    constants[`offset${index}`] = scalar(offset, "float32");
    nodes.push({ name: `scaled${index}`, op: "Mul", inputs: [name, `factor${index}`] });
    nodes.push({ name: `moved${index}`, op: "Add", inputs: [`scaled${index}`, `offset${index}`] });
    const channels = shape[3];
    if (!isStored || shape.length !== 4 || channels === undefined) return `moved${index}`;
    const identity = Array.from({ length: channels ** 2 }, (_, at) => (at % (channels + 1) === 0 ? 1 : 0));
    constants[`filter${index}`] = tensor("float32", [1, 1, channels, channels], Float32Array.from(identity));
    const attributes = window([1, 1], "VALID");
    nodes.push({
      name: `conv${index}`,
      op: "Conv2D",
      inputs: [`moved${index}`, `filter${index}`],
      attributes,
    });
    return `conv${index}`;
  });
  const extra = (each.constants ?? []).map((value, index) => {
    constants[`c${index}`] = value;
    return `c${index}`;
  });
  let arguments_ = each.constantsFirst ? [...extra, ...values] : [...values, ...extra];
  if (each.op === "ScatterNd") {
    constants.shape = list(6, 4);
    arguments_ = [...arguments_, "shape"];
  }
  if (each.op === "SparseToDense") {
    constants.shape = each.what === "a list" ? list(6) : list(6, 4);
    constants.filling = scalar(0.5, "float32");
    arguments_ = [extra[0] ?? "", "shape", ...values, "filling"];
  }
  nodes.push({ name: "result", op: each.op, inputs: arguments_, attributes: each.attributes ?? {} });
  const outputs = Array.from({ length: each.outputs ?? 1 }, (_, index) => {
    nodes.push({ name: `out${index}`, op: "Identity", inputs: [index === 0 ? "result" : `result:${index}`] });
    return `out${index}`;
  });
  return { inputs: Object.fromEntries(inputs), constants, nodes, outputs };
}

describe("rules", () => {
  const variants = CASES.flatMap((each) => {
    const isImage = each.shapes?.some(
      (shape, index) => shape.length === 4 && (each.dtypes?.[index] ?? "DT_FLOAT") === "DT_FLOAT",
    );
    return (isImage ? [false, true] : [false]).map(
      (isStored) =>
        [`${each.op} ${each.what ?? ""}${isStored ? " behind a convolution" : ""}`, each, isStored] as const,
    );
  });
  it.each(variants)("%s", async (_, each, isStored) => {
    await expectAgreement(runtime, graphFolder(graphOf(each, isStored)), "model.json", { tolerance: 1e-5 });
  });
});
