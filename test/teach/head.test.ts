/** Taught heads: what ONNX Runtime computes with them, what they say of themselves, what is refused. */
import { InferenceSession, Tensor as OrtTensor } from "onnxruntime-node";
import { describe, expect, it } from "vitest";
import type { ErrorCode } from "../../src/base/errors.js";
import { readMetadata, type Tap } from "../../src/onnx/metadata.js";
import { parseModel } from "../../src/onnx/read.js";
import { modelBytes } from "../../src/onnx/write.js";
import {
  bestClasses,
  logitsOf,
  type Matrix,
  METHODS,
  matrixOf,
  poolingOf,
  row,
  selectRows,
  type TeachOptions,
  teachHead,
} from "../../src/teach/index.js";
import { clouds } from "./examples.js";
import { elementCount, softmax } from "./outside.js";

const labels = ["apple", "bean", "carrot"];

function tapOf(shape: readonly (number | string)[], name = "features"): Tap {
  return { name, dtype: "float32", shape, identity: "ab".repeat(32) };
}

/** A tap's value whose mean over the other axes are the given features. */
function spread(features: Matrix, shape: readonly number[], channelAxis: number): Float32Array {
  const channels = shape[channelAxis] ?? 1;
  const area = elementCount(shape) / channels;
  const inner = elementCount(shape.slice(channelAxis + 1));
  const data = new Float32Array(features.rows * elementCount(shape));
  data.forEach((_, at) => {
    const inRow = at % elementCount(shape);
    const channel = Math.floor(inRow / inner) % channels;
    const place = channelAxis === 0 ? inRow % inner : Math.floor(inRow / channels);
    const wave = area === 1 ? 0 : place % 2 === 0 ? 1 : -1;
    data[at] = (row(features, Math.floor(at / elementCount(shape)))[channel] ?? 0) + wave;
  });
  return data;
}

async function runHead(model: Uint8Array, name: string, data: Float32Array, shape: readonly number[]) {
  const session = await InferenceSession.create(model);
  const results = await session.run({ [name]: new OrtTensor("float32", data, shape) });
  await session.release();
  return results;
}

describe("a taught head in ONNX Runtime", () => {
  const { features, classes } = clouds([12, 12, 12], 10, 0.8);
  const shapes = [
    { shape: [10], channelAxis: 0 },
    { shape: [10, 4, 4], channelAxis: 0 },
    { shape: [4, 4, 10], channelAxis: 2 },
    { shape: [6, 10], channelAxis: 1 },
  ];

  it.each(METHODS.flatMap((method) => shapes.map((each) => ({ method, ...each }))))(
    "computes $method on a tap of shape $shape as the classifier does",
    async ({ method, shape, channelAxis }) => {
      const tap = tapOf(["batch", ...shape]);
      const { model, classifier } = teachHead({ features, classes, labels, tap, method });
      const expected = logitsOf(classifier, features);
      for (const rows of [1, 5]) {
        const part = selectRows(
          features,
          Array.from({ length: rows }, (_, at) => at * 7),
        );
        const results = await runHead(modelBytes(model), "features", spread(part, shape, channelAxis), [
          rows,
          ...shape,
        ]);
        expect(results.logits?.dims).toEqual([rows, 3]);
        const logits = results.logits?.data as Float32Array;
        const probabilities = results.probabilities?.data as Float32Array;
        for (let at = 0; at < rows; at++) {
          const truth = row(expected, at * 7);
          truth.forEach((value, each) => {
            expect(logits[at * 3 + each]).toBeCloseTo(value, 3);
          });
          softmax(truth).forEach((value, each) => {
            expect(probabilities[at * 3 + each]).toBeCloseTo(value, 4);
          });
        }
      }
    },
  );

  it("keeps names apart when the tap is called like an output", async () => {
    const { model, classifier } = teachHead({
      features,
      classes,
      labels,
      tap: tapOf(["batch", 10], "logits"),
    });
    const results = await runHead(modelBytes(model), "logits", Float32Array.from(features.data), [36, 10]);
    const best = bestClasses(logitsOf(classifier, features));
    const logits = Array.from((results.head_logits?.data ?? []) as Float32Array);
    expect(bestClasses(matrixOf(best.map((_, at) => logits.slice(at * 3, at * 3 + 3))))).toEqual(best);
  });

  it("says in its metadata what it reads, answers and is worth", () => {
    const tap = tapOf(["batch", 10]);
    const preprocessing = { height: 64, width: 64 };
    const { model, report } = teachHead({
      features,
      classes,
      labels,
      tap,
      preprocessing,
      provenance: { data: "veg" },
    });
    const metadata = readMetadata(parseModel(modelBytes(model)));
    expect(metadata).toMatchObject({
      role: "head",
      taps: [tap],
      task: "classification",
      activation: "softmax",
      labels,
      preprocessing,
    });
    expect(metadata.provenance).toMatchObject({ by: "polyhead teach", method: report.method, data: "veg" });
    expect(metadata.quality).toMatchObject({ accuracy: report.accuracy.mean, examples: 36, baseline: 1 / 3 });
  });

  it("is the same file for the same examples", () => {
    const tap = tapOf(["batch", 10]);
    const [one, two] = [1, 2].map(() =>
      modelBytes(teachHead({ features, classes, labels, tap, seed: 3 }).model),
    );
    expect(one).toEqual(two);
  });
});

describe("teaching", () => {
  const { features, classes } = clouds([8, 8, 3], 4, 1);
  const good: TeachOptions = { features, classes, labels, tap: tapOf(["batch", 4]) };

  it("says which classes are missing in some folds", () => {
    const { report } = teachHead(good);
    expect(report.folds).toBe(5);
    expect(report.notes).toEqual([expect.stringMatching(/no example of: carrot/)]);
  });

  it("works with two examples of each of two classes", () => {
    const few = matrixOf([
      [0, 1],
      [0, 2],
      [5, 1],
      [6, 2],
    ]);
    const { classifier } = teachHead({
      ...good,
      features: few,
      classes: [0, 0, 1, 1],
      labels: ["a", "b"],
      tap: tapOf(["batch", 2]),
    });
    expect(bestClasses(logitsOf(classifier, few))).toEqual([0, 0, 1, 1]);
  });

  const broken = { ...features, data: features.data.map((value, at) => (at === 9 ? Number.NaN : value)) };
  const refused: [string, ErrorCode, Partial<TeachOptions>][] = [
    ["one class", "INVALID_ARGUMENT", { labels: ["apple"], classes: classes.map(() => 0) }],
    ["two classes of one name", "INVALID_ARGUMENT", { labels: ["apple", "bean", "apple"] }],
    ["a class that is none", "INVALID_ARGUMENT", { classes: classes.map((each) => each + 1) }],
    [
      "a class with one example",
      "DATA_MALFORMED",
      { labels: [...labels, "date"], classes: [3, ...classes.slice(1)] },
    ],
    ["a class without examples", "DATA_MALFORMED", { labels: [...labels, "date"] }],
    ["features that are not numbers", "DATA_MALFORMED", { features: broken }],
    ["features of another width than the tap", "INVALID_ARGUMENT", { tap: tapOf(["batch", 5]) }],
    ["fewer classes than rows", "INVALID_ARGUMENT", { classes: classes.slice(1) }],
    ["one fold", "INVALID_ARGUMENT", { folds: 1 }],
    ["half a fold", "INVALID_ARGUMENT", { folds: 2.5 }],
    ["a tap of rank 1", "MODEL_UNSUPPORTED", { tap: tapOf(["batch"]) }],
    ["a tap of unknown width", "MODEL_UNSUPPORTED", { tap: tapOf(["batch", "width"]) }],
  ];
  it.each(refused)("refuses %s", (_, code, change) => {
    expect(() => teachHead({ ...good, ...change })).toThrow(expect.objectContaining({ code }));
  });
});

describe("the channels of a tap", () => {
  it.each([
    [[1, 512], { axes: [], channels: 512 }],
    [[1, 197, 768], { axes: [1], channels: 768 }],
    [[1, 512, 7, 7], { axes: [2, 3], channels: 512 }],
    [[1, 7, 7, 512], { axes: [1, 2], channels: 512 }],
    [[1, 8, 8, 8], { axes: [2, 3], channels: 8 }],
  ])("of shape %j are pooled over the rest", (shape, expected) => {
    expect(poolingOf(shape)).toEqual(expected);
  });

  it("are where the caller says when the shape does not tell", () => {
    expect(poolingOf([1, 4, 6, 8], undefined, "last").axes).toEqual([1, 2]);
    expect(poolingOf([1, 7, 7, 512], "first").axes).toEqual([2, 3]);
    expect(poolingOf([1, 20, 30], "first")).toEqual({ axes: [2], channels: 20 });
  });
});
