/** Opening a batch: what keeps rows apart takes any number of them, what mixes rows stays at one. */
import fc from "fast-check";
import { describe, expect, it } from "vitest";
import { importTfjsGraph } from "../../src/formats/index.js";
import { dynamicBatch } from "../../src/onnx/batch.js";
import { identify } from "../../src/onnx/identity.js";
import { readMetadata } from "../../src/onnx/metadata.js";
import {
  declaredType,
  float,
  graph,
  type Model,
  model,
  type Node,
  node,
  valueInfo,
} from "../../src/onnx/model.js";
import { inferTypes } from "../../src/onnx/shapes.js";
import { splitModel } from "../../src/onnx/split.js";
import { proveBatch, proveSplit } from "../../src/onnx/verify.js";
import { weight } from "../../src/onnx/weight.js";
import { float32, int64, type Tensor } from "../../src/tensor/tensor.js";
import { humanFolder } from "../formats/tfjs-oracle.js";
import { ARCHITECTURES, architecture } from "./architectures.js";
import { useRuntime } from "./runtime.js";

const open = useRuntime();

/** A graph from x [1, 2, 3, 4] to y with constants by name. */
function over(
  nodes: Node[],
  constants: Record<string, Tensor> = {},
  output: number[] = [1],
  x = [1, 2, 3, 4],
): Model {
  return model(
    graph("g", {
      nodes,
      inputs: [valueInfo("x", "float32", x)],
      outputs: [valueInfo("y", "float32", output)],
      weights: Object.entries(constants).map(([name, value]) => weight(name, value)),
    }),
  );
}

const opened = (of: Model) => dynamicBatch(of, inferTypes(of));
const list = (...values: number[]) => int64([values.length], values);

describe("opening a batch", () => {
  it.each(ARCHITECTURES)("of %s gives for two rows what they give alone", async (name) => {
    const single = architecture(name, 1);
    const made = opened(single);
    expect(made.fixed).toEqual([]);
    expect(made.model.graph.output.map((info) => declaredType(info)?.shape?.[0])).toEqual(["batch"]);
    expect((await proveBatch(single, made, open)).relative).toBeLessThan(1e-5);
  });

  it.each<[string, Node[], Record<string, Tensor>, number[]]>([
    [
      "a class token",
      [node("Concat", ["token", "x"], ["y"], { axis: 1 })],
      { token: float32([1, 1, 3, 4], Array(12).fill(7)) },
      [1, 3, 3, 4],
    ],
    [
      "written sizes",
      [node("Resize", ["x", "", "", "to"], ["y"], { mode: "nearest" })],
      { to: list(1, 2, 6, 8) },
      [1, 2, 6, 8],
    ],
    ["an expansion", [node("Expand", ["x", "to"], ["y"])], { to: list(1, 2, 3, 4) }, [1, 2, 3, 4]],
    ["a reshape with a guess", [node("Reshape", ["x", "to"], ["y"])], { to: list(1, -1) }, [1, 24]],
    [
      "a shape computed in the graph",
      [
        node("Shape", ["x"], ["s"]),
        node("Slice", ["s", "from", "to"], ["head"]),
        node("Concat", ["head", "rest"], ["new"], { axis: 0 }),
        node("Reshape", ["x", "new"], ["y"]),
      ],
      { from: list(0), to: list(2), rest: list(12) },
      [1, 2, 12],
    ],
    [
      "sequence first and heads beside the batch",
      [
        node("Reshape", ["x", "tokens"], ["t"]),
        node("Transpose", ["t"], ["first"], { perm: [1, 0, 2] }),
        node("Reshape", ["first", "heads"], ["h"]),
        node("Transpose", ["h"], ["q"], { perm: [1, 0, 2] }),
        node("Transpose", ["q"], ["k"], { perm: [0, 2, 1] }),
        node("MatMul", ["q", "k"], ["scores"]),
        node("Softmax", ["scores"], ["weights"], { axis: -1 }),
        node("MatMul", ["weights", "q"], ["mixed"]),
        node("Transpose", ["mixed"], ["back"], { perm: [1, 0, 2] }),
        node("Reshape", ["back", "merged"], ["m"]),
        node("Transpose", ["m"], ["y"], { perm: [1, 0, 2] }),
      ],
      { tokens: list(1, 6, 4), heads: list(6, 2, 2), merged: list(6, 1, 4) },
      [1, 6, 4],
    ],
    [
      "a batch that is taken away and put back",
      [
        node("Squeeze", ["x", "zero"], ["s"]),
        node("Unsqueeze", ["s", "zero"], ["u"]),
        node("Neg", ["u"], ["y"]),
      ],
      { zero: list(0) },
      [1, 2, 3, 4],
    ],
    [
      "a quantity of each row",
      [node("ReduceMax", ["x"], ["m"], { axes: [1, 2, 3] }), node("Div", ["x", "m"], ["y"])],
      {},
      [1, 2, 3, 4],
    ],
    [
      "a slice and a padding",
      [node("Slice", ["x", "from", "to", "along"], ["s"]), node("Pad", ["s", "pads"], ["y"])],
      { from: list(1), to: list(3), along: list(2), pads: list(0, 0, 1, 0, 0, 0, 0, 2) },
      [1, 2, 3, 6],
    ],
  ])("goes through %s", async (_, nodes, constants, output) => {
    const single = over(nodes, constants, output);
    const made = opened(single);
    expect(made.fixed).toEqual([]);
    expect((await proveBatch(single, made, open)).relative).toBeLessThan(1e-5);
  });

  it.each<[string, Node[], Record<string, Tensor>, string]>([
    [
      "taking the first row",
      [node("Gather", ["x", "zero"], ["y"], { axis: 0 })],
      { zero: int64([], [0]) },
      "Gather",
    ],
    ["squeezing the batch away", [node("Squeeze", ["x", "axes"], ["y"])], { axes: list(0) }, "Squeeze"],
    ["a softmax over all of it", [node("Softmax", ["x"], ["y"], { axis: 0 })], {}, "Softmax"],
    ["the mean over everything", [node("ReduceMean", ["x"], ["y"])], {}, "ReduceMean"],
    [
      "a number that counts rows",
      [node("Shape", ["x"], ["s"]), node("Cast", ["s"], ["y"], { to: 1 })],
      {},
      "Shape",
    ],
    [
      "rows met by what has rows of its own",
      [node("Reshape", ["x", "to"], ["r"]), node("Add", ["r", "two"], ["y"])],
      { to: list(2, 12), two: float32([2, 12], Array(24).fill(1)) },
      "Add",
    ],
    ["batch moved to the end", [node("Transpose", ["x"], ["y"])], {}, "Transpose"],
    [
      "a normalisation of the batch",
      [node("MeanVarianceNormalization", ["x"], ["y"])],
      {},
      "MeanVarianceNormalization",
    ],
  ])("stops at %s", (_, nodes, constants, opType) => {
    const made = opened(over(nodes, constants));
    expect(made.fixed).toMatchObject([{ output: "y", opType }]);
    expect(made.notes).toEqual([expect.stringContaining('"x"'), expect.stringContaining(opType)]);
  });

  it("changes nothing in a model whose batch is open, or is more than one", () => {
    for (const first of ["N", 2]) {
      const made = model(
        graph("g", {
          nodes: [node("Relu", ["x"], ["y"])],
          inputs: [valueInfo("x", "float32", [first, 4])],
          outputs: [valueInfo("y", "float32", [first, 4])],
          weights: [],
        }),
      );
      expect(opened(made).model).toBe(made);
    }
  });

  it("is right about any chain of layouts that it lets through", async () => {
    const step = fc.oneof(
      fc.record({ kind: fc.constant("transpose" as const), seed: fc.nat() }),
      fc.record({ kind: fc.constant("reshape" as const), seed: fc.nat() }),
      fc.record({ kind: fc.constant("softmax" as const), seed: fc.nat() }),
      fc.record({ kind: fc.constant("reduce" as const), seed: fc.nat() }),
    );
    let proved = 0;
    await fc.assert(
      fc.asyncProperty(fc.array(step, { minLength: 1, maxLength: 5 }), async (steps) => {
        const { nodes, constants, shape } = chainOf(steps);
        const single = over(nodes, constants, shape);
        const made = opened(single);
        if (made.fixed.length > 0) return;
        proved++;
        expect((await proveBatch(single, made, open)).relative).toBeLessThan(1e-5);
      }),
      { numRuns: 150 },
    );
    expect(proved).toBeGreaterThan(10);
  });
});

/** Random layout operators over [1, 2, 3, 4], ending in a shape whose first dimension is 1. */
function chainOf(steps: readonly { kind: "transpose" | "reshape" | "softmax" | "reduce"; seed: number }[]) {
  let shape = [1, 2, 3, 4];
  let value = "x";
  const constants: Record<string, Tensor> = {};
  const nodes = steps.map(({ kind, seed }, at) => {
    const next = `v${at}`;
    const given = value;
    value = next;
    if (kind === "transpose") {
      const perm = shape.map((_, axis) => axis).sort((a, b) => ((a * 7 + seed) % 5) - ((b * 7 + seed) % 5));
      shape = perm.map((axis) => shape[axis] ?? 1);
      return node("Transpose", [given], [next], { perm });
    }
    if (kind === "reshape") {
      const total = shape.reduce((a, b) => a * b, 1);
      const divisors = [1, 2, 3, 4, 6].filter((each) => total % each === 0);
      const first = divisors[seed % divisors.length] ?? 1;
      shape =
        seed % 3 === 0
          ? [first, total / first]
          : seed % 3 === 1
            ? [1, first, total / first]
            : [first, 1, total / first];
      constants[`to${at}`] = list(...shape);
      return node("Reshape", [given, `to${at}`], [next]);
    }
    const axis = seed % shape.length;
    if (kind === "softmax") return node("Softmax", [given], [next], { axis });
    shape = shape.with(axis, 1);
    return node("ReduceMax", [given], [next], { axes: [axis] });
  });
  return { nodes: [...nodes, node("Elu", [value], ["y"], { alpha: float(0.5) })], constants, shape };
}

/** Published TF.js models of batch one, with a cut before the decoding of boxes or joints. */
const PUBLISHED = [
  ["blazeface", [], undefined],
  ["handlandmark-lite", [], undefined],
  ["centernet", ["tower_0/detections"], "tower_0/CenternetHead/mul"],
  [
    "movenet-lightning",
    ["Identity"],
    "StatefulPartitionedCall/center_net_mobile_net_v2fpn_feature_extractor/model_1/re_lu_2/Relu",
  ],
] as const;

describe("published models of batch one", () => {
  it.each(PUBLISHED)("%s takes several rows, up to its decoding", async (name, fixed, at) => {
    const { model: single } = await importTfjsGraph(humanFolder(name), `${name}.json`);
    const made = opened(single);
    expect(made.fixed.map(({ output }) => output)).toEqual(fixed);
    if (at === undefined) {
      expect((await proveBatch(single, made, open, { inputs: 1 })).relative).toBeLessThan(1e-5);
      return;
    }
    const split = await splitModel(single, { at: [at] });
    expect(split.taps[0]?.shape[0]).toBe("batch");
    expect(split.heads[0]?.model.graph.input.map((info) => declaredType(info)?.shape?.[0])).toEqual([1]);
    const proof = await proveSplit(single, split, open, { inputs: 1, batches: [1, 2] });
    expect(proof).toMatchObject({ inputs: 2, batches: [1, 2] });
  });
});

describe("a split of a model with a fixed batch", () => {
  it.each(ARCHITECTURES)("of %s takes several rows, backbone and head", async (name) => {
    const single = architecture(name, 1);
    const split = await splitModel(single, { at: ["features"] });
    expect(split.taps.map(({ shape }) => shape[0])).toEqual(["batch"]);
    expect(await proveSplit(single, split, open)).toMatchObject({ batches: [1, 3], bitwise: true });
  });

  /** A backbone that keeps rows apart and a decoding that takes the first row. */
  const detector = over(
    [
      node("Conv", ["x", "filters"], ["c5"]),
      node("Sigmoid", ["c5"], ["scores"]),
      node("Squeeze", ["scores", "zero"], ["flat"]),
      node("ReduceMax", ["flat"], ["best"], { axes: [0], keepdims: 0 }),
      node("Unsqueeze", ["best", "zero"], ["y"]),
    ],
    { filters: float32([3, 2, 1, 1], [1, -1, 2, 0.5, -0.25, 1]), zero: list(0) },
    [1, 3, 4],
  );

  it("opens the trunk and leaves the decoding at one row", async () => {
    const split = await splitModel(detector, { at: ["c5"] });
    const head = split.heads[0]?.model ?? detector;
    expect(split.taps[0]?.shape).toEqual(["batch", 3, 3, 4]);
    expect(readMetadata(head).taps?.[0]?.shape).toEqual([1, 3, 3, 4]);
    expect(head.graph.input.map((info) => declaredType(info)?.shape)).toEqual([[1, 3, 3, 4]]);
    expect(readMetadata(head).taps?.[0]?.identity).toBe(split.taps[0]?.identity);
    expect(await proveSplit(detector, split, open)).toMatchObject({ batches: [1, 3] });
  });

  it("stays at one row where a tap lies after the decoding, and where it is asked to", async () => {
    for (const options of [{ at: ["flat"] }, { at: ["c5"], keepBatch: true }]) {
      const split = await splitModel(detector, options);
      expect(split.backbone.graph.input.map((info) => declaredType(info)?.shape?.[0])).toEqual([1]);
      expect(split.taps[0]?.identity).toBe((await identify(detector)).get(options.at[0] ?? ""));
      expect(await proveSplit(detector, split, open)).toMatchObject({ batches: [1] });
    }
  });
});
