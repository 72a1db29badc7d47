/** Graphs of several operators: arithmetic on shapes, open sizes, dilation in blocks, layouts that cancel out. */
import * as tf from "@tensorflow/tfjs-core";
import "@tensorflow/tfjs-backend-cpu";
import fc from "fast-check";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { importTfjsGraph } from "../../src/formats/index.js";
import { declaredType, type Model } from "../../src/onnx/model.js";
import type { Runtime } from "../../src/runtime/runtime.js";
import { float32, tensor } from "../../src/tensor/tensor.js";
import { type GraphSpec, graphFolder, ints, list, type NodeSpec, node, noise, scalar } from "./tfjs-graph.js";
import { expectAgreement, openRuntime } from "./tfjs-oracle.js";

let runtime: Runtime;
beforeAll(async () => {
  await tf.setBackend("cpu");
  runtime = await openRuntime();
});
afterAll(() => runtime.close());

const conv = (name: string, inputs: string[], padding = "SAME", strides = [1, 1, 1, 1]): NodeSpec =>
  node(name, "Conv2D", inputs, { strides, padding, dilations: [1, 1, 1, 1], data_format: "NHWC" });
const open = { x: { shape: [-1, -1, -1, 4] } };
const fixed = { x: { shape: [2, 8, 6, 4] } };
const count = (model: Model, op: string) => model.graph.node.filter(({ opType }) => opType === op).length;
const agree = (spec: GraphSpec, size = 5) =>
  expectAgreement(runtime, graphFolder(spec), "model.json", { open: size, tolerance: 1e-5 });

describe("open sizes", () => {
  it("a batch that the model leaves open stays open and is called batch", async () => {
    const spec = {
      inputs: { x: { shape: [-1, 8, 6, 4] } },
      constants: {
        f: noise([3, 3, 4, 2]),
        axes: list(1, 2),
        target: list(-1, 12),
        w: noise([96, 3]),
        target2: list(-1, 96),
      },
      nodes: [
        conv("c", ["x", "f"]),
        node("flat", "Reshape", ["c", "target2"]),
        node("y", "MatMul", ["flat", "w"], { transpose_a: false, transpose_b: false }),
      ],
      outputs: ["y"],
    };
    const { model } = await agree(spec, 3);
    expect(model.graph.input.map(declaredType)).toEqual([{ dtype: "float32", shape: ["batch", 8, 6, 4] }]);
    expect(model.graph.output.map(declaredType)).toEqual([{ dtype: "float32", shape: ["batch", 3] }]);
  });

  it("sizes computed from Shape: an image flattened and restored", async () => {
    const { model } = await agree({
      inputs: open,
      constants: {
        zero: list(0),
        one: list(1),
        two: list(2),
        three: list(3),
        four: scalar(4),
        minus: scalar(-1),
        f: noise([3, 3, 4, 4]),
      },
      nodes: [
        conv("c", ["x", "f"]),
        node("shape", "Shape", ["c"], { out_type: "DT_INT32" }),
        node("n", "StridedSlice", ["shape", "zero", "one", "one"], { shrink_axis_mask: 1 }),
        node("h", "StridedSlice", ["shape", "one", "two", "one"], { shrink_axis_mask: 1 }),
        node("w", "StridedSlice", ["shape", "two", "three", "one"], { shrink_axis_mask: 1 }),
        node("hw", "Mul", ["h", "w"]),
        node("flatShape", "Pack", ["n", "hw", "four"], { axis: 0, N: 3 }),
        node("flat", "Reshape", ["c", "flatShape"]),
        node("soft", "Softmax", ["flat"]),
        node("shapeAgain", "Pack", ["n", "h", "w", "four"], { axis: 0, N: 4 }),
        node("y", "Reshape", ["soft", "shapeAgain"]),
      ],
      outputs: ["y"],
    });
    expect(count(model, "Reshape")).toBeGreaterThan(0);
  });

  it("an image made twice as large as it happens to be", async () => {
    for (const op of ["ResizeBilinear", "ResizeNearestNeighbor"]) {
      await agree({
        inputs: open,
        constants: {
          one: list(1),
          three: list(3),
          step: list(1),
          factor: list(2, 2),
          f: noise([3, 3, 4, 4]),
        },
        nodes: [
          conv("c", ["x", "f"]),
          node("shape", "Shape", ["c"]),
          node("hw", "StridedSlice", ["shape", "one", "three", "step"]),
          node("large", "Mul", ["hw", "factor"]),
          node("y", op, ["c", "large"], { align_corners: false, half_pixel_centers: true }),
        ],
        outputs: ["y"],
      });
    }
  });

  it("strides over sizes that are open", async () => {
    for (const padding of ["SAME", "VALID"]) {
      await agree(
        {
          inputs: open,
          constants: { f: noise([3, 3, 4, 5]), axes: list(1, 2) },
          nodes: [
            conv("c", ["x", "f"], padding, [1, 2, 2, 1]),
            node("p", "MaxPool", ["c"], { strides: [1, 1, 1, 1], ksize: [1, 2, 2, 1], padding }),
            node("y", "Mean", ["p", "axes"], { keep_dims: false }),
          ],
          outputs: ["y", "p"],
        },
        9,
      );
    }
  });

  it("slices whose bounds are computed by the model", async () => {
    await agree({
      inputs: { x: { shape: [3, 8, 4] }, i: { shape: [3], dtype: "DT_INT32" } },
      constants: {
        hundred: ints([], [120]),
        zeros: list(0, 0, 0),
        sizes: list(-1, 2, -1),
        steps: list(1, 1, 1),
        most: list(1, 1, 1),
        ends: list(3, 7, 3),
      },
      nodes: [
        node("small", "FloorDiv", ["i", "hundred"]),
        node("start", "Minimum", ["small", "most"]),
        node("a", "Slice", ["x", "start", "sizes"]),
        node("b", "StridedSlice", ["x", "start", "ends", "steps"]),
        node("c", "StridedSlice", ["x", "start", "ends", "steps"], { shrink_axis_mask: 2, end_mask: 4 }),
      ],
      outputs: ["a", "b", "c"],
    });
  });

  it("shapes, paddings and repetitions that are computed by the model", async () => {
    await agree({
      inputs: { x: { shape: [2, 6] }, i: { shape: [2], dtype: "DT_INT32" } },
      constants: {
        big: scalar(1000),
        one: list(1, 1),
        pads: ints([2, 2], [1, 0, 2, 1]),
        zero: list(0, 0),
        target: list(3, 4),
        value: scalar(2.5, "float32"),
        two: scalar(2),
      },
      nodes: [
        node("none", "FloorDiv", ["i", "big"]),
        node("repetitions", "Add", ["none", "one"]),
        node("tiled", "Tile", ["x", "repetitions"]),
        node("margins", "Add", ["pads", "none"]),
        node("padded", "Pad", ["tiled", "margins"]),
        node("shape", "Add", ["target", "none"]),
        node("y", "Reshape", ["x", "shape"]),
        node("filled", "Fill", ["shape", "value"], { T: "DT_FLOAT" }),
        node("z", "Add", ["y", "filled"]),
      ],
      outputs: ["padded", "z"],
    });
  });
});

describe("layouts", () => {
  it("a chain of convolutions, branches and joins keeps one transpose at each end", async () => {
    const { model } = await agree({
      inputs: fixed,
      constants: {
        f: noise([3, 3, 4, 4]),
        g: noise([3, 3, 8, 4]),
        bias: noise([4]),
        axes: list(1, 2),
        axis: scalar(3),
        size: list(8, 6),
        pads: ints([4, 2], [0, 0, 1, 1, 1, 1, 0, 0]),
      },
      nodes: [
        conv("c1", ["x", "f"]),
        node("b1", "BiasAdd", ["c1", "bias"]),
        node("r1", "Relu", ["b1"]),
        node("pool", "Mean", ["r1", "axes"], { keep_dims: true }),
        node("gate", "Sigmoid", ["pool"]),
        node("gated", "Mul", ["r1", "gate"]),
        node("p1", "MaxPool", ["gated"], { strides: [1, 2, 2, 1], ksize: [1, 2, 2, 1], padding: "SAME" }),
        node("up", "ResizeBilinear", ["p1", "size"], { align_corners: false, half_pixel_centers: false }),
        node("join", "ConcatV2", ["up", "r1", "axis"], { N: 2 }),
        node("padded", "Pad", ["join", "pads"]),
        conv("c2", ["padded", "g"], "VALID"),
        node("y", "AddV2", ["c2", "r1"]),
      ],
      outputs: ["y"],
    });
    expect(count(model, "Transpose")).toBe(2);
  });

  it("transposes between NCHW and NHWC around convolutions disappear", async () => {
    const { model } = await agree({
      inputs: { x: { shape: [2, 4, 8, 6] } },
      constants: {
        f: noise([3, 3, 4, 4]),
        there: list(0, 2, 3, 1),
        back: list(0, 3, 1, 2),
        slope: noise([4, 1, 1]),
      },
      nodes: [
        node("t1", "Transpose", ["x", "there"]),
        conv("c1", ["t1", "f"]),
        node("t2", "Transpose", ["c1", "back"]),
        node("scaled", "Mul", ["t2", "slope"]),
        node("t3", "Transpose", ["scaled", "there"]),
        conv("c2", ["t3", "f"]),
        node("y", "Transpose", ["c2", "back"]),
      ],
      outputs: ["y"],
    });
    expect(count(model, "Transpose")).toBe(0);
  });

  it("a convolution between SpaceToBatchND and BatchToSpaceND becomes a dilated one", async () => {
    for (const [pads, crops] of [
      [
        [2, 2, 2, 2],
        [0, 0, 0, 0],
      ],
      [
        [2, 3, 2, 4],
        [0, 1, 0, 2],
      ],
    ]) {
      const { model } = await agree({
        inputs: { x: { shape: [2, 9, 8, 4] } },
        constants: {
          f: noise([3, 3, 4, 1]),
          block: list(2, 2),
          pads: ints([2, 2], pads?.[1] === 2 ? [2, 3, 2, 2] : (pads ?? [])),
          crops: ints([2, 2], pads?.[1] === 2 ? [0, 1, 0, 0] : (crops ?? [])),
        },
        nodes: [
          node("s", "SpaceToBatchND", ["x", "block", "pads"]),
          node("c", "DepthwiseConv2dNative", ["s", "f"], {
            strides: [1, 1, 1, 1],
            padding: "VALID",
            dilations: [1, 1, 1, 1],
            data_format: "NHWC",
          }),
          node("y", "BatchToSpaceND", ["c", "block", "crops"]),
        ],
        outputs: ["y"],
      });
      expect(count(model, "Conv")).toBe(1);
      expect(count(model, "Reshape")).toBe(0);
    }
  });

  it("one value is transposed once, however many read it", async () => {
    const { model } = await agree({
      inputs: fixed,
      constants: { f: noise([1, 1, 4, 4]), shape: list(2, -1), g: noise([1, 1, 4, 3]) },
      nodes: [
        conv("a", ["x", "f"]),
        conv("b", ["x", "g"]),
        node("flat", "Reshape", ["a", "shape"]),
        node("again", "Reshape", ["a", "shape"]),
        node("sum", "Add", ["flat", "again"]),
      ],
      outputs: ["sum", "b"],
    });
    expect(count(model, "Transpose")).toBe(3);
  });
});

describe("other operators", () => {
  it("instance normalisation, as networks for styles write it", async () => {
    await agree({
      inputs: open,
      constants: {
        f: noise([3, 3, 4, 4]),
        axes: list(1, 2),
        epsilon: scalar(1e-3, "float32"),
        scale: noise([4]),
        shift: noise([4], 3),
        pads: ints([4, 2], [0, 0, 1, 1, 1, 1, 0, 0]),
      },
      nodes: [
        node("padded", "MirrorPad", ["x", "pads"], { mode: "REFLECT" }),
        conv("c", ["padded", "f"], "VALID"),
        node("mean", "Mean", ["c", "axes"], { keep_dims: true }),
        node("difference", "SquaredDifference", ["c", "mean"]),
        node("variance", "Mean", ["difference", "axes"], { keep_dims: true }),
        node("sum", "AddV2", ["variance", "epsilon"]),
        node("factor", "Rsqrt", ["sum"]),
        node("centred", "Sub", ["c", "mean"]),
        node("normal", "Mul", ["centred", "factor"]),
        node("scaled", "Mul", ["normal", "scale"]),
        node("y", "AddV2", ["scaled", "shift"]),
      ],
      outputs: ["y"],
    });
  });

  it("values made from constants, and older forms of operators", async () => {
    await agree({
      inputs: { x: { shape: [2, 3] } },
      constants: {
        start: scalar(1),
        stop: scalar(7),
        step: scalar(2),
        low: scalar(0, "float32"),
        high: scalar(1, "float32"),
        three: scalar(3),
        shape: list(2, 3),
        value: scalar(1.5, "float32"),
        axis: scalar(1),
        rows: list(1, 0, 1),
        flags: tensor("bool", [2], Uint8Array.of(0, 1)),
        place: ints([1, 1], [1]),
        row: noise([1, 3]),
        shape2: list(3, 2, 3),
        shape1: list(2, 1),
      },
      nodes: [
        node("range", "Range", ["start", "stop", "step"], { Tidx: "DT_INT32" }),
        node("line", "LinSpace", ["low", "high", "three"]),
        node("filled", "Fill", ["shape", "value"], { T: "DT_FLOAT" }),
        node("a", "Add", ["x", "line"]),
        node("b", "Add", ["a", "filled"]),
        node("old", "Concat", ["axis", "b", "x"], { N: 2 }),
        node("rowsOf", "Gather", ["b", "rows"]),
        node("turned", "Reverse", ["b", "flags"]),
        // On a value of its own, because TF.js' CPU backend writes the update into its argument.
        node("own", "Sub", ["b", "filled"]),
        node("updated", "TensorScatterUpdate", ["own", "place", "row"]),
        node("target", "BroadcastArgs", ["shape2", "shape1"]),
        node("wide", "BroadcastTo", ["b", "target"]),
        node("ranged", "Identity", ["range"]),
      ],
      outputs: ["old", "rowsOf", "turned", "updated", "wide", "ranged"],
    });
  });

  it("suppression of overlapping boxes", async () => {
    const boxes = float32(
      [6, 4],
      [0, 0, 1, 1, 0, 0.1, 1, 1.1, 0, -0.1, 1, 0.9, 0, 10, 1, 11, 0, 10.1, 1, 11.1, 0, 100, 1, 101],
    );
    const inputs = ["moved", "scores", "limit", "overlap", "least"];
    await agree({
      inputs: { x: { shape: [1] } },
      constants: {
        boxes,
        scores: float32([6], [0.9, 0.75, 0.6, 0.95, 0.5, 0.3]),
        limit: scalar(4),
        overlap: scalar(0.5, "float32"),
        least: scalar(0.4, "float32"),
        sigma: scalar(0, "float32"),
      },
      nodes: [
        node("moved", "Add", ["boxes", "x"]),
        node("v3", "NonMaxSuppressionV3", inputs),
        node("v4", "NonMaxSuppressionV4", inputs, { pad_to_max_output_size: true, T: "DT_FLOAT" }),
        node("v5", "NonMaxSuppressionV5", [...inputs, "sigma"]),
        node("count", "Identity", ["v4:1"]),
        node("best", "Identity", ["v5:1"]),
      ],
      outputs: ["v3", "v4", "count", "v5", "best"],
    });
  });

  it("SpaceToDepth, which TF.js lacks, undoes DepthToSpace", async () => {
    const attributes = { block_size: 2, data_format: "NHWC" };
    const same: GraphSpec = { inputs: fixed, nodes: [node("y", "Identity", ["x"])], outputs: ["y"] };
    const there = {
      ...same,
      nodes: [node("d", "DepthToSpace", ["x"], attributes), node("y", "SpaceToDepth", ["d"], attributes)],
    };
    const { model } = await importTfjsGraph(graphFolder(there), "model.json");
    expect(count(model, "SpaceToDepth")).toBe(1);
    expect(model.graph.output.map(declaredType)).toEqual([{ dtype: "float32", shape: [2, 8, 6, 4] }]);
  });
});

describe("properties", () => {
  const size = fc.integer({ min: 1, max: 9 });
  it("windows of any size, stride and dilation fit as in TF.js", async () => {
    const geometry = fc.record({
      h: size,
      w: size,
      kh: fc.integer({ min: 1, max: 4 }),
      kw: fc.integer({ min: 1, max: 4 }),
      sh: fc.integer({ min: 1, max: 3 }),
      sw: fc.integer({ min: 1, max: 3 }),
      d: fc.integer({ min: 1, max: 3 }),
      isOpen: fc.boolean(),
      seed: fc.integer(),
    });
    await fc.assert(
      fc.asyncProperty(geometry, async ({ h, w, kh, kw, sh, sw, d, isOpen, seed }) => {
        const dilation = sh === 1 && sw === 1 ? d : 1;
        const attributes = {
          strides: [1, sh, sw, 1],
          dilations: [1, dilation, dilation, 1],
          padding: "SAME",
          data_format: "NHWC",
        };
        await agree(
          {
            inputs: { x: { shape: isOpen ? [-1, -1, -1, 2] : [2, h, w, 2] } },
            constants: { f: noise([kh, kw, 2, 3], seed), g: noise([kh, kw, 2, 1], seed) },
            nodes: [
              node("a", "Conv2D", ["x", "f"], attributes),
              node("b", "DepthwiseConv2dNative", ["x", "g"], {
                ...attributes,
                strides: [1, sh, sh, 1],
                dilations: [1, 1, 1, 1],
              }),
              node("c", "AvgPool", ["x"], {
                strides: [1, sh, sw, 1],
                ksize: [1, Math.max(kh, sh), Math.max(kw, sw), 1],
                padding: "SAME",
              }),
            ],
            outputs: ["a", "b", "c"],
          },
          h,
        );
      }),
      { numRuns: 40 },
    );
  });

  it("slices with any bounds, strides and masks are cut as in TF.js", async () => {
    const bound = fc.integer({ min: -9, max: 9 });
    const mask = fc.integer({ min: 0, max: 7 });
    const plan = fc.record({
      begin: fc.tuple(bound, bound, bound),
      end: fc.tuple(bound, bound, bound),
      strides: fc.tuple(...Array.from({ length: 3 }, () => fc.constantFrom(1, 2, -1, -2))),
      beginMask: mask,
      endMask: mask,
    });
    await fc.assert(
      fc.asyncProperty(plan, async ({ begin, end, strides, beginMask, endMask }) => {
        fc.pre(isCut(begin, end, strides, beginMask, endMask));
        await agree({
          inputs: { x: { shape: [5, 6, 4, 3] } },
          constants: {
            begin: list(...begin),
            end: list(...end),
            strides: list(...strides),
            zero: scalar(0, "float32"),
          },
          nodes: [
            node("part", "StridedSlice", ["x", "begin", "end", "strides"], {
              begin_mask: beginMask,
              end_mask: endMask,
            }),
            node("y", "Add", ["part", "zero"]),
          ],
          outputs: ["y"],
        });
      }),
      { numRuns: 60 },
    );
  });
});

/** Whether TF.js cuts out anything; it fails on some empty slices, and gives others the shape of nothing at all. */
function isCut(
  begin: number[],
  end: number[],
  strides: number[],
  beginMask: number,
  endMask: number,
): boolean {
  try {
    return tf.tidy(
      () => tf.stridedSlice(tf.zeros([5, 6, 4, 3]), begin, end, strides, beginMask, endMask).size > 0,
    );
  } catch {
    return false;
  }
}
