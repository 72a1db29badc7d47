/** Inferred dtypes and shapes against what ONNX Runtime computes. */
import { readdirSync } from "node:fs";
import { join } from "node:path";
import fc from "fast-check";
import { describe, expect, it } from "vitest";
import { PolyheadError } from "../../src/base/errors.js";
import { loadModel } from "../../src/files/disk.js";
import { importTfjsGraph } from "../../src/formats/index.js";
import { graph, type Model, model, type Node, node, valueInfo } from "../../src/onnx/model.js";
import { parseModel } from "../../src/onnx/read.js";
import { inferTypes } from "../../src/onnx/shapes.js";
import { weight } from "../../src/onnx/weight.js";
import { modelBytes } from "../../src/onnx/write.js";
import { elementCount, type SymbolicShape } from "../../src/tensor/shape.js";
import { float32, int64, type Tensor } from "../../src/tensor/tensor.js";
import { fixturesDir, hasFixtures } from "../fixtures.js";
import { humanFolder } from "../formats/tfjs-oracle.js";
import { at, expectObserved, observe, sampleInputs } from "./observe.js";
import { useRuntime } from "./runtime.js";

const openModel = useRuntime();

describe.skipIf(!hasFixtures)("inferTypes of published models (fixtures)", () => {
  const files = hasFixtures
    ? ["zoo", "family", "train"].flatMap((each) =>
        readdirSync(join(fixturesDir, each))
          .filter((name) => name.endsWith(".onnx"))
          .map((name) => `${each}/${name}`),
      )
    : [];

  it.each(files)("%s: every value is what the runtime makes of it, at any batch", async (file) => {
    const read = await loadModel(join(fixturesDir, file));
    for (const batch of [1, 3]) await expectObserved(openModel, read, batch);
  });
});

const HUMAN =
  "antispoof blazeface centernet emotion facemesh faceres handlandmark-lite iris liveness movenet-lightning";

describe("inferTypes of imported models", () => {
  it.each(HUMAN.split(" "))("%s: every value is what the runtime makes of it", async (name) => {
    await expectObserved(openModel, (await importTfjsGraph(humanFolder(name), `${name}.json`)).model, 2);
  });
});

interface Case {
  readonly title: string;
  readonly inputs: readonly SymbolicShape[];
  readonly constants?: Readonly<Record<string, Tensor>>;
  readonly nodes: readonly Node[];
  readonly opset?: number;
  /** Shape of the last node's first output; what it is with names. */
  readonly symbolic?: SymbolicShape;
}

/** Inputs are `x`, `y`, ...; the batch `N` runs as 2. */
function build({ inputs, constants = {}, nodes, opset = 17 }: Case): Model {
  return model(
    graph("case", {
      nodes,
      inputs: inputs.map((shape, place) => valueInfo("xyz"[place] ?? "", "float32", shape)),
      outputs: (nodes.at(-1)?.output ?? []).slice(0, 1).map((name) => valueInfo(name, "float32")),
      weights: Object.entries(constants).map(([name, value]) => weight(name, value)),
    }),
    opset,
  );
}

const image: SymbolicShape = ["N", 4, 9, 10];
const zeros = (...shape: number[]) => float32(shape, new Float32Array(elementCount(shape)));
const one = (
  title: string,
  opType: string,
  inputs: readonly SymbolicShape[],
  attributes: Parameters<typeof node>[3] = {},
  constants: Readonly<Record<string, Tensor>> = {},
  more: Partial<Case> & { outputs?: number } = {},
): Case => {
  const names = [...inputs.map((_, place) => "xyz"[place] ?? ""), ...Object.keys(constants)];
  const outputs = Array.from({ length: more.outputs ?? 1 }, (_, place) => `out${place}`);
  return { title, inputs, constants, nodes: [node(opType, names, outputs, attributes)], ...more };
};

const cases: Case[] = [
  one("Conv", "Conv", [image], { pads: [1, 0, 2, 1], strides: [2, 3] }, { w: zeros(6, 4, 3, 2) }),
  one(
    "Conv with groups and dilation",
    "Conv",
    [image],
    { group: 2, dilations: [2, 1] },
    { w: zeros(6, 2, 3, 3) },
  ),
  one(
    "Conv SAME_UPPER",
    "Conv",
    [image],
    { auto_pad: "SAME_UPPER", strides: [2, 2] },
    { w: zeros(6, 4, 3, 3) },
  ),
  one("Conv VALID", "Conv", [image], { auto_pad: "VALID", strides: [2, 2] }, { w: zeros(6, 4, 3, 3) }),
  one("Conv in one dimension", "Conv", [["N", 4, 9]], {}, { w: zeros(6, 4, 3) }),
  one(
    "ConvTranspose",
    "ConvTranspose",
    [image],
    { strides: [2, 2], output_padding: [1, 0] },
    { w: zeros(4, 3, 3, 3) },
  ),
  one(
    "ConvTranspose with groups",
    "ConvTranspose",
    [image],
    { group: 2, pads: [1, 1, 0, 1] },
    { w: zeros(4, 3, 3, 3) },
  ),
  one(
    "ConvTranspose to a shape",
    "ConvTranspose",
    [image],
    { strides: [2, 2], output_shape: [19, 20] },
    { w: zeros(4, 3, 3, 3) },
  ),
  one(
    "ConvTranspose SAME_LOWER",
    "ConvTranspose",
    [image],
    { strides: [2, 2], auto_pad: "SAME_LOWER" },
    { w: zeros(4, 3, 3, 3) },
  ),
  one(
    "MaxPool with indices",
    "MaxPool",
    [image],
    { kernel_shape: [3, 3], strides: [2, 2] },
    {},
    { outputs: 2 },
  ),
  one("MaxPool rounded up", "MaxPool", [image], { kernel_shape: [2, 2], strides: [2, 2], ceil_mode: 1 }),
  one("MaxPool rounded up with padding", "MaxPool", [image], {
    kernel_shape: [2, 2],
    strides: [3, 3],
    pads: [1, 1, 1, 1],
    ceil_mode: 1,
  }),
  one("MaxPool with dilation", "MaxPool", [image], { kernel_shape: [3, 3], dilations: [2, 2] }),
  one("AveragePool", "AveragePool", [image], {
    kernel_shape: [3, 2],
    pads: [1, 0, 1, 0],
    count_include_pad: 1,
  }),
  one("AveragePool SAME_UPPER", "AveragePool", [image], {
    kernel_shape: [3, 3],
    strides: [2, 2],
    auto_pad: "SAME_UPPER",
  }),
  one("GlobalAveragePool", "GlobalAveragePool", [image], {}, {}, { symbolic: ["N", 4, 1, 1] }),
  one("GlobalMaxPool", "GlobalMaxPool", [image]),
  one(
    "BatchNormalization",
    "BatchNormalization",
    [image],
    {},
    { scale: zeros(4), b: zeros(4), mean: zeros(4), variance: zeros(4) },
  ),
  one("InstanceNormalization", "InstanceNormalization", [image], {}, { scale: zeros(4), b: zeros(4) }),
  one(
    "LayerNormalization",
    "LayerNormalization",
    [image],
    { axis: 2 },
    { scale: zeros(9, 10) },
    { outputs: 3 },
  ),
  one(
    "GroupNormalization",
    "GroupNormalization",
    [image],
    { num_groups: 2 },
    { scale: zeros(4), b: zeros(4) },
    { opset: 21 },
  ),
  one("Gemm", "Gemm", [["N", 5]], { transB: 1 }, { w: zeros(3, 5), b: zeros(3) }, { symbolic: ["N", 3] }),
  one("Gemm of transposed", "Gemm", [[5, "N"]], { transA: 1 }, { w: zeros(5, 3) }, { symbolic: ["N", 3] }),
  one("MatMul", "MatMul", [["N", 7, 5]], {}, { w: zeros(5, 3) }, { symbolic: ["N", 7, 3] }),
  one("MatMul of stacks", "MatMul", [
    ["N", 1, 7, 5],
    [4, 5, 2],
  ]),
  one("MatMul with a vector", "MatMul", [["N", 7, 5]], {}, { w: zeros(5) }),
  one("MatMul of vectors", "MatMul", [[5]], {}, { w: zeros(5) }),
  one(
    "Einsum",
    "Einsum",
    [
      ["N", 7, 5],
      ["N", 8, 5],
    ],
    { equation: "bij,bkj->bik" },
    {},
    { symbolic: ["N", 7, 8] },
  ),
  one(
    "Einsum with an ellipsis",
    "Einsum",
    [["N", 2, 7, 5]],
    { equation: "...ij,jk->...ik" },
    { w: zeros(5, 3) },
  ),
  one("Einsum without an arrow", "Einsum", [[7, 5]], { equation: "ij,jk" }, { w: zeros(5, 3) }),
  one("Add of other ranks", "Add", [image], {}, { w: zeros(10) }, { symbolic: image }),
  one("Mul of channels", "Mul", [image, ["N", 4, 1, 1]], {}, {}, { symbolic: image }),
  one("Sum of three", "Sum", [
    [3, 1],
    [1, 4],
    [2, 1, 1],
  ]),
  one("Pow", "Pow", [image], {}, { e: int64([], [2]) }),
  one("Greater", "Greater", [image], {}, { w: zeros() }),
  one("Clip", "Clip", [image], {}, { low: zeros(), high: zeros() }),
  one("Cast to float16", "Cast", [image], { to: 10 }),
  one("Dropout", "Dropout", [image], {}, {}, { outputs: 2 }),
  one("PRelu", "PRelu", [image], {}, { slope: zeros(4, 1, 1) }),
  one("Softmax", "Softmax", [image]),
  one("Reshape to the rest", "Reshape", [image], {}, { s: int64([2], [0, -1]) }, { symbolic: ["N", 360] }),
  one(
    "Reshape that folds the batch",
    "Reshape",
    [image],
    {},
    { s: int64([2], [-1, 10]) },
    { symbolic: ["36*N", 10] },
  ),
  one("Flatten", "Flatten", [image], { axis: 2 }, {}, { symbolic: ["4*N", 90] }),
  one("Flatten from the back", "Flatten", [image], { axis: -1 }),
  one("Squeeze", "Squeeze", [["N", 1, 3, 1]], {}, { axes: int64([2], [1, -1]) }, { symbolic: ["N", 3] }),
  one(
    "Squeeze by attribute",
    "Squeeze",
    [["N", 1, 3, 1]],
    { axes: [1] },
    {},
    { opset: 11, symbolic: ["N", 3, 1] },
  ),
  one("Squeeze of all", "Squeeze", [[1, 3, 1]]),
  one("Unsqueeze", "Unsqueeze", [["N", 3]], {}, { axes: int64([2], [0, -1]) }, { symbolic: [1, "N", 3, 1] }),
  one("Unsqueeze by attribute", "Unsqueeze", [["N", 3]], { axes: [1] }, {}, { opset: 11 }),
  one("Transpose", "Transpose", [image], { perm: [0, 2, 3, 1] }, {}, { symbolic: ["N", 9, 10, 4] }),
  one("Transpose of all", "Transpose", [image], {}, {}, { symbolic: [10, 9, 4, "N"] }),
  one("Concat", "Concat", [image, ["N", 2, 9, 10]], { axis: 1 }, {}, { symbolic: ["N", 6, 9, 10] }),
  one("Split by sizes", "Split", [image], { axis: 1 }, { sizes: int64([2], [1, 3]) }, { outputs: 2 }),
  one("Split by attribute", "Split", [image], { axis: 1, split: [1, 3] }, {}, { outputs: 2, opset: 11 }),
  one("Split in equal parts", "Split", [image], { axis: -1 }, {}, { outputs: 2 }),
  one("Split in unequal parts", "Split", [image], { axis: 2, num_outputs: 2 }, {}, { outputs: 2, opset: 18 }),
  one(
    "Slice",
    "Slice",
    [image],
    {},
    { s: int64([2], [1, -3]), e: int64([2], [9, 2 ** 40]), a: int64([2], [2, -1]), d: int64([2], [3, 1]) },
  ),
  one(
    "Slice backwards",
    "Slice",
    [image],
    {},
    { s: int64([1], [-1]), e: int64([1], [-(2 ** 40)]), a: int64([1], [1]), d: int64([1], [-2]) },
  ),
  one("Slice by attribute", "Slice", [image], { starts: [1], ends: [100], axes: [3] }, {}, { opset: 9 }),
  one(
    "Slice of the whole batch",
    "Slice",
    [image],
    {},
    { s: int64([1], [0]), e: int64([1], [2 ** 40]) },
    { symbolic: image },
  ),
  one("Gather", "Gather", [image], { axis: 1 }, { i: int64([], [0]) }, { symbolic: ["N", 9, 10] }),
  one("Gather of many", "Gather", [image], { axis: -1 }, { i: int64([2, 3], [0, 1, 2, 3, 4, 5]) }),
  one("GatherElements", "GatherElements", [[3, 2]], {}, { i: int64([1, 2], [0, 1]) }),
  one("GatherND", "GatherND", [[3, 2, 5]], {}, { i: int64([4, 2], [0, 1, 1, 1, 0, 0, 2, 1]) }),
  one("Expand", "Expand", [["N", 1, 5]], {}, { s: int64([3], [1, 4, 1]) }, { symbolic: ["N", 4, 5] }),
  one("Tile", "Tile", [["N", 2]], {}, { s: int64([2], [3, 2]) }, { symbolic: ["3*N", 4] }),
  one("Pad", "Pad", [image], {}, { p: int64([8], [0, 0, 1, 2, 0, 0, 3, 0]) }, { symbolic: ["N", 4, 13, 12] }),
  one("Pad by attribute", "Pad", [image], { pads: [0, 0, 1, 2, 0, 0, 3, 0] }, {}, { opset: 10 }),
  one(
    "Resize by scales of opset 10",
    "Resize",
    [image],
    { mode: "nearest" },
    { s: float32([4], [1, 1, 2, 1.5]) },
    { opset: 10 },
  ),
  one("Upsample", "Upsample", [image], {}, { s: float32([4], [1, 1, 2, 2]) }, { opset: 9 }),
  {
    title: "Resize by scales",
    inputs: [image],
    constants: { s: float32([4], [1, 1, 0.7, 2.3]) },
    nodes: [node("Resize", ["x", "", "s"], ["out"], { mode: "linear" })],
  },
  {
    title: "Resize to sizes, some axes",
    inputs: [image],
    constants: { s: int64([2], [17, 5]) },
    nodes: [node("Resize", ["x", "", "", "s"], ["out"], { mode: "linear", axes: [2, 3] })],
    opset: 18,
    symbolic: ["N", 4, 17, 5],
  },
  {
    title: "Resize that keeps the aspect ratio",
    inputs: [image],
    constants: { s: int64([2], [17, 5]) },
    nodes: [
      node("Resize", ["x", "", "", "s"], ["out"], {
        mode: "linear",
        axes: [2, 3],
        keep_aspect_ratio_policy: "not_larger",
      }),
    ],
    opset: 18,
  },
  one("DepthToSpace", "DepthToSpace", [image], { blocksize: 2 }, {}, { symbolic: ["N", 1, 18, 20] }),
  one("SpaceToDepth", "SpaceToDepth", [["N", 3, 6, 4]], { blocksize: 2 }, {}, { symbolic: ["N", 12, 3, 2] }),
  one("ReduceMean", "ReduceMean", [image], { axes: [2, -1] }, {}, { symbolic: ["N", 4, 1, 1] }),
  one(
    "ReduceMean without the axes",
    "ReduceMean",
    [image],
    { axes: [2, 3], keepdims: 0 },
    {},
    { symbolic: ["N", 4] },
  ),
  one("ReduceMax by input", "ReduceMax", [image], { keepdims: 0 }, { axes: int64([1], [1]) }, { opset: 18 }),
  one("ReduceSum of all", "ReduceSum", [image], { keepdims: 0 }),
  one("ReduceSum of nothing", "ReduceSum", [image], { noop_with_empty_axes: 1 }),
  one("ArgMax", "ArgMax", [image], { axis: 1, keepdims: 0 }, {}, { symbolic: ["N", 9, 10] }),
  one("TopK", "TopK", [["N", 9]], {}, { k: int64([1], [4]) }, { outputs: 2, symbolic: ["N", 4] }),
  one("NonZero", "NonZero", [image], {}, {}, { symbolic: [4, "?"] }),
  one(
    "Where",
    "Where",
    [],
    {},
    { c: { dtype: "bool", shape: [2, 1], data: Uint8Array.of(0, 1) }, a: zeros(3), b: zeros() },
  ),
  one("CumSum", "CumSum", [image], {}, { axis: int64([], [1]) }),
  one(
    "OneHot",
    "OneHot",
    [],
    { axis: 1 },
    { i: int64([2, 3], [0, 1, 2, 3, 4, 5]), depth: int64([], [7]), v: zeros(2) },
  ),
  one("Trilu", "Trilu", [image]),
  one("GridSample", "GridSample", [
    [2, 4, 9, 10],
    [2, 5, 6, 2],
  ]),
  one(
    "LSTM",
    "LSTM",
    [[7, "N", 5]],
    { hidden_size: 3 },
    { w: zeros(1, 12, 5), r: zeros(1, 12, 3) },
    { outputs: 3 },
  ),
  one("DynamicQuantizeLinear", "DynamicQuantizeLinear", [image], {}, {}, { outputs: 3 }),
  one(
    "QuantizeLinear to int8",
    "QuantizeLinear",
    [image],
    {},
    { s: float32([], [1]), z: { dtype: "int8", shape: [], data: Int8Array.of(0) } },
  ),
  one(
    "NonMaxSuppression",
    "NonMaxSuppression",
    [
      [1, 6, 4],
      [1, 2, 6],
    ],
    {},
    {},
    { symbolic: ["?", 3] },
  ),
  {
    title: "a reshape computed from the shape",
    inputs: [image],
    constants: {
      zero: int64([], [0]),
      axis: int64([1], [0]),
      rest: int64([2], [2, -1]),
      axes: int64([1], [0]),
    },
    nodes: [
      node("Shape", ["x"], ["shape"]),
      node("Gather", ["shape", "zero"], ["batch"]),
      node("Unsqueeze", ["batch", "axes"], ["batches"]),
      node("Concat", ["batches", "rest"], ["wanted"], { axis: 0 }),
      node("Reshape", ["x", "wanted"], ["out"]),
    ],
    symbolic: ["N", 2, 180],
  },
  {
    title: "the batch folded into the heads and out again",
    inputs: [["N", 5, 12]],
    constants: { fold: int64([3], [5, -1, 4]), unfold: int64([3], [5, -1, 12]), one: int64([1], [1]) },
    nodes: [
      node("Transpose", ["x"], ["t"], { perm: [1, 0, 2] }),
      node("Reshape", ["t", "fold"], ["folded"]),
      node("Relu", ["folded"], ["r"]),
      node("Reshape", ["r", "unfold"], ["out"]),
    ],
    symbolic: [5, "N", 12],
  },
  {
    title: "an expand to a computed shape with -1 replaced",
    inputs: [["N", 3]],
    constants: {
      token: zeros(1, 1, 4),
      minus: int64([3], [-1, -1, 4]),
      one: int64([1], [1]),
      rest: int64([2], [1, 4]),
      s: int64([1], [0]),
      e: int64([1], [1]),
    },
    nodes: [
      node("Shape", ["x"], ["shape"]),
      node("Slice", ["shape", "s", "e"], ["batch"]),
      node("Concat", ["batch", "rest"], ["wanted"], { axis: 0 }),
      node("Shape", ["wanted"], ["length"]),
      node("ConstantOfShape", ["length"], ["ones"], { value: int64([1], [1]) }),
      node("Equal", ["wanted", "minus"], ["isFree"]),
      node("Where", ["isFree", "ones", "wanted"], ["target"]),
      node("Expand", ["token", "target"], ["out"]),
    ],
    symbolic: ["N", 1, 4],
  },
  {
    title: "a resize to twice the computed size",
    inputs: [image],
    constants: { s: int64([1], [2]), e: int64([1], [4]), lead: int64([2], [2, 4]), two: float32([1], [2]) },
    nodes: [
      node("Shape", ["x"], ["shape"]),
      node("Slice", ["shape", "s", "e"], ["sides"]),
      node("Cast", ["sides"], ["real"], { to: 1 }),
      node("Mul", ["real", "two"], ["grown"]),
      node("Floor", ["grown"], ["whole"]),
      node("Cast", ["whole"], ["sizes"], { to: 7 }),
      node("Concat", ["lead", "sizes"], ["all"], { axis: 0 }),
      node("Resize", ["x", "", "", "all"], ["out"]),
    ],
    symbolic: [2, 4, 18, 20],
  },
  {
    title: "paddings turned over as a table",
    inputs: [image],
    constants: {
      p: int64([8], [1, 2, 3, 4, 0, 0, 0, 0]),
      pairs: int64([2], [-1, 2]),
      s: int64([1], [-1]),
      e: int64([1], [-(2 ** 40)]),
      a: int64([1], [0]),
      list: int64([1], [-1]),
    },
    nodes: [
      node("Reshape", ["p", "pairs"], ["table"]),
      node("Slice", ["table", "s", "e", "a", "s"], ["reversed"]),
      node("Transpose", ["reversed"], ["turned"], { perm: [1, 0] }),
      node("Reshape", ["turned", "list"], ["pads"]),
      node("Pad", ["x", "pads"], ["out"]),
    ],
    symbolic: ["N", 4, 16, 13],
  },
  {
    title: "a range as long as the batch",
    inputs: [["N", 3]],
    constants: { zero: int64([], [0]), one: int64([], [1]) },
    nodes: [
      node("Shape", ["x"], ["shape"]),
      node("Gather", ["shape", "zero"], ["batch"]),
      node("Range", ["zero", "batch", "one"], ["out"]),
    ],
    symbolic: ["N"],
  },
  {
    title: "branches that agree",
    inputs: [["N", 3]],
    constants: { yes: { dtype: "bool", shape: [], data: Uint8Array.of(1) } },
    nodes: [
      node("If", ["yes"], ["out"], {
        then_branch: graph("then", {
          nodes: [node("Relu", ["x"], ["a"])],
          inputs: [],
          outputs: [valueInfo("a", "float32")],
          weights: [],
        }),
        else_branch: graph("else", {
          nodes: [node("Neg", ["x"], ["b"])],
          inputs: [],
          outputs: [valueInfo("b", "float32")],
          weights: [],
        }),
      }),
    ],
    symbolic: ["N", 3],
  },
];

describe("inferTypes of one operator", () => {
  it.each(cases)("$title", async (each) => {
    const made = build(each);
    const last = each.nodes.at(-1)?.output[0] ?? "";
    const [output] = made.graph.output;
    // The runtime says what the output is; the declaration would only tell it what it should be.
    if (output) delete output.type;
    const types = inferTypes(made);
    const values = await observe(openModel, made, sampleInputs(made, 2));
    for (const [name, { dtype, shape }] of values) {
      const type = types.get(name);
      expect([name, type?.dtype]).toEqual([name, dtype]);
      const sizes = at(type?.shape ?? [], { N: 2 });
      expect([name, sizes.map((size, axis) => (size === "?" ? shape[axis] : size))]).toEqual([
        name,
        [...shape],
      ]);
      if (!each.symbolic?.includes("?")) expect([name, sizes.includes("?")]).toEqual([name, false]);
    }
    if (each.symbolic) expect(types.get(last)?.shape).toEqual(each.symbolic);
  });
});

describe("what cannot be known", () => {
  const declared = (nodes: readonly Node[], values: ReturnType<typeof valueInfo>[] = []) =>
    model(
      graph("g", {
        nodes,
        inputs: [valueInfo("x", "float32", ["N", "?", "?"])],
        outputs: [valueInfo("out", "float32")],
        weights: [weight("many", int64([1], [10_000_000]))],
        values,
      }),
    );

  it("is taken from the file's own declarations", () => {
    const custom = node("Mystery", ["x"], ["m"]);
    custom.domain = "example.com";
    const types = inferTypes(
      declared([custom, node("Relu", ["m"], ["out"])], [valueInfo("m", "float32", ["N", 7])]),
    );
    expect(types.get("out")).toEqual({ dtype: "float32", shape: ["N", 7] });
  });

  it("is absent or of unknown shape where the file says nothing either", () => {
    const custom = node("Mystery", ["x"], ["m"]);
    custom.domain = "example.com";
    const types = inferTypes(declared([custom, node("Relu", ["m"], ["out"])]));
    expect(types.has("m")).toBe(false);
    expect(types.get("out")).toEqual({ dtype: "float32", shape: undefined });
  });

  it("is not mixed up: two unnamed dimensions are not the same", () => {
    const types = inferTypes(
      declared([node("Flatten", ["x"], ["f"], { axis: 2 }), node("Relu", ["f"], ["out"])]),
    );
    expect(types.get("out")?.shape).toEqual(["?", "?"]);
  });

  it("is written without name, so that the runtime does not take unknowns for equal", () => {
    const info = valueInfo("x", "float32", ["N", "?", 3]).type?.value;
    const dims = info?.case === "tensorType" ? info.value.shape?.dim : [];
    expect(dims?.map(({ value }) => value.case)).toEqual(["dimParam", undefined, "dimValue"]);
  });

  it("costs nothing when a small file asks for much", () => {
    const types = inferTypes(
      declared([
        node("ConstantOfShape", ["many"], ["big"], { value: int64([1], [1]) }),
        node("Reshape", ["x", "big"], ["r"]),
        node("Expand", ["x", "big"], ["e"]),
        node("Concat", ["big", "big"], ["c"], { axis: 0 }),
        node("Relu", ["r"], ["out"]),
      ]),
    );
    expect(types.get("big")?.shape).toEqual([10_000_000]);
    expect(types.get("out")).toEqual({ dtype: "float32", shape: undefined });
  });
});

describe("a damaged model", () => {
  const attention = cases.find(({ title }) => title.startsWith("an expand"));
  const resize = cases.find(({ title }) => title.startsWith("a resize"));
  const files = [attention, resize]
    .filter((each) => each !== undefined)
    .map((each) => modelBytes(build(each)));

  it("gives types or a typed error, whatever byte is wrong", () => {
    fc.assert(
      fc.property(
        fc.constantFrom(...files),
        fc.double({ min: 0, max: 1, noNaN: true }),
        fc.nat(255),
        (good, place, byte) => {
          const bad = good.slice();
          bad[Math.min(good.length - 1, Math.floor(place * good.length))] = byte;
          try {
            for (const { shape } of inferTypes(parseModel(bad)).values()) {
              for (const size of shape ?? []) expect(typeof size === "string" || size >= 0).toBe(true);
            }
          } catch (thrown) {
            expect(thrown).toBeInstanceOf(PolyheadError);
          }
        },
      ),
      { numRuns: 3000 },
    );
  });

  it.each(cases)("$title: attributes of nonsense give an unknown shape, not a crash", (each) => {
    fc.assert(
      fc.property(fc.array(fc.integer(), { maxLength: 5 }), fc.integer(), (list, number) => {
        const made = build(each);
        for (const { attribute } of made.graph.node) {
          for (const one of attribute) {
            one.ints = list.map(BigInt);
            one.i = BigInt(number);
          }
        }
        inferTypes(made);
      }),
      { numRuns: 20 },
    );
  });
});
