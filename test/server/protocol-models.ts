/** Small models for tests of the protocols, whose answers anybody can compute. */
import { readMetadata, withMetadata } from "../../src/onnx/metadata.js";
import { graph, type Model, model, node, valueInfo } from "../../src/onnx/model.js";
import { splitModel } from "../../src/onnx/split.js";
import { weight } from "../../src/onnx/weight.js";
import type { DType } from "../../src/tensor/dtype.js";
import { float32, int64 } from "../../src/tensor/tensor.js";

/** Dtypes that the protocols can carry. */
export const CARRIED: readonly DType[] = [
  "bool",
  "uint8",
  "uint16",
  "uint32",
  "uint64",
  "int8",
  "int16",
  "int32",
  "int64",
  "float16",
  "float32",
  "float64",
  "string",
  "bfloat16",
];

/** `y` is `x` times a factor; `count` is one number, 1, where it is wanted. */
export function times(factor: number, counted = false): Model {
  return model(
    graph("times", {
      nodes: [
        node("Mul", ["x", "factor"], ["y"]),
        ...(counted ? [node("Mul", ["one", "one"], ["count"])] : []),
      ],
      inputs: [valueInfo("x", "float32", ["batch", 2])],
      outputs: [
        valueInfo("y", "float32", ["batch", 2]),
        ...(counted ? [valueInfo("count", "int64", [1])] : []),
      ],
      weights: [
        weight("factor", float32([1, 1], [factor])),
        ...(counted ? [weight("one", int64([1], [1]))] : []),
      ],
    }),
  );
}

/** Inputs of some dtypes, called by them, that come back under the same names. */
export function echo(...dtypes: readonly DType[]): Model {
  return model(
    graph("echo", {
      nodes: dtypes.map((dtype) => node("Identity", [dtype], [`${dtype}_again`])),
      inputs: dtypes.map((dtype) => valueInfo(dtype, dtype, ["count"])),
      outputs: dtypes.map((dtype) => valueInfo(`${dtype}_again`, dtype, ["count"])),
      weights: [],
    }),
  );
}

/** The input of a model of images. */
interface ImageInput {
  readonly name: string;
  readonly side: number;
  readonly layout: "nchw" | "nhwc";
}
const SMALL: ImageInput = { name: "image", side: 4, layout: "nchw" };

const imageInput = ({ name, side, layout }: ImageInput) =>
  valueInfo(name, "float32", layout === "nchw" ? ["batch", 3, side, side] : ["batch", side, side, 3]);
const preprocessing = ({ side, layout }: ImageInput) => ({
  width: side,
  height: side,
  layout,
  range: [0, 1],
});

/** A classifier of images by their colour: the mean of each channel is its score. */
export function colour(input = SMALL): Model {
  const main = graph("colour", {
    nodes: [
      ...(input.layout === "nhwc"
        ? [node("Transpose", [input.name], ["planes"], { perm: [0, 3, 1, 2] })]
        : [node("Identity", [input.name], ["planes"])]),
      node("GlobalAveragePool", ["planes"], ["means"]),
      node("Flatten", ["means"], ["scores"]),
    ],
    inputs: [imageInput(input)],
    outputs: [valueInfo("scores", "float32", ["batch", 3])],
    weights: [],
  });
  return withMetadata(model(main), {
    task: "classification",
    labels: ["red", "green", "blue"],
    activation: "none",
    preprocessing: preprocessing(input),
  });
}

/** A detector that finds one box, a thing in the middle of every image, however that looks. */
export function middle(input = SMALL): Model {
  const main = graph("middle", {
    nodes: [
      node("ReduceMean", [input.name], ["average"]),
      node("Flatten", ["average"], ["mean"]),
      node("Sub", ["mean", "mean"], ["nothing"]),
      node("Add", ["nothing", "box"], ["found"]),
    ],
    inputs: [imageInput(input)],
    outputs: [valueInfo("found", "float32", [1, 1, 6])],
    weights: [weight("box", float32([1, 1, 6], [1, 1, 3, 3, 0.5, 0]))],
  });
  const decoding = {
    arrangement: "rows",
    rows: "found",
    boxColumn: 0,
    scoreColumn: 4,
    classColumn: 5,
    box: "x1y1x2y2",
    units: "pixels",
  };
  return withMetadata(model(main), {
    task: "detection",
    labels: ["thing"],
    decoding,
    preprocessing: preprocessing(input),
  });
}

/** A model of images that does not say how to read its output: the mean of each channel. */
export function means(): Model {
  const main = graph("means", {
    nodes: [node("GlobalAveragePool", ["image"], ["means"])],
    inputs: [imageInput(SMALL)],
    outputs: [valueInfo("means", "float32", ["batch", 3, 1, 1])],
    weights: [],
  });
  return withMetadata(model(main), { preprocessing: preprocessing(SMALL) });
}

/** `scores` is `image` times a factor; `names` says which of its three columns is the highest. */
export function food(factor: number): Model {
  const names = ["first ä", "second ä", "third ä"];
  const main = graph("food", {
    nodes: [
      node("Mul", ["image", "factor"], ["scores"]),
      node("ArgMax", ["image"], ["highest"], { axis: 1, keepdims: 0 }),
      node("Gather", ["table", "highest"], ["names"]),
    ],
    inputs: [valueInfo("image", "float32", ["batch", 3])],
    outputs: [valueInfo("scores", "float32", ["batch", 3]), valueInfo("names", "string", ["batch"])],
    weights: [
      weight("factor", float32([1, 1], [factor])),
      weight("table", { dtype: "string", shape: [names.length], data: names }),
    ],
  });
  return withMetadata(model(main), { task: "classification", labels: names });
}

/** `model/boxes` is `image` plus one. */
export function coco(): Model {
  return model(
    graph("coco", {
      nodes: [node("Add", ["image", "one"], ["model/boxes"])],
      inputs: [valueInfo("image", "float32", ["batch", 3])],
      outputs: [valueInfo("model/boxes", "float32", ["batch", 3])],
      weights: [weight("one", float32([1, 1], [1]))],
    }),
  );
}

/** A backbone whose tap `pool` is the magnitude of `image`. */
export async function net(): Promise<Model> {
  const main = graph("net", {
    nodes: [node("Abs", ["image"], ["pool"]), node("Neg", ["pool"], ["y"])],
    inputs: [valueInfo("image", "float32", ["batch", 3])],
    outputs: [valueInfo("y", "float32", ["batch", 3])],
    weights: [],
  });
  return (await splitModel(model(main), { at: ["pool"] })).backbone;
}

/** A head on {@link net}: its tap, negative. */
export function headOf(backbone: Model): Model {
  const main = graph("head", {
    nodes: [node("Neg", ["pool"], ["y"])],
    inputs: [valueInfo("pool", "float32", ["batch", 3])],
    outputs: [valueInfo("y", "float32", ["batch", 3])],
    weights: [],
  });
  return withMetadata(model(main), { role: "head", taps: readMetadata(backbone).taps ?? [] });
}
