/** A detector that reads a map, and backbones that have the same to say in maps of other strides and layouts. */
import { gaussian, seededRandom } from "../../src/base/random.js";
import {
  graph,
  type Model,
  model,
  node,
  readMetadata,
  type Tap,
  valueInfo,
  withMetadata,
} from "../../src/onnx/index.js";
import { copyOf } from "../../src/onnx/model.js";
import { weight, weightTensor } from "../../src/onnx/weight.js";
import { float32 } from "../../src/tensor/index.js";
import { randomBackbone } from "../teach/photos.js";

const backbone = randomBackbone();
const random = seededRandom(3);
/** Normal numbers, other ones whenever they are asked for. */
export const numbers = (shape: readonly number[], size = 1) =>
  float32(
    shape,
    Array.from({ length: shape.reduce((a, b) => a * b, 1) }, () => size * gaussian(random)),
  );

/** An anchor-free detector of two classes on one map, with random weights. */
export function centreDetector(tap: Tap): Model {
  const main = graph("detector", {
    nodes: [
      node("Conv", ["in", "w_scores"], ["scores"], { pads: [1, 1, 1, 1] }),
      node("Sigmoid", ["scores"], ["heat"]),
      node("Conv", ["in", "w_size"], ["raw_size"]),
      node("Exp", ["raw_size"], ["size"]),
      node("Conv", ["in", "w_offset"], ["raw_offset"]),
      node("Sigmoid", ["raw_offset"], ["offset"]),
    ],
    inputs: [valueInfo("in", "float32", tap.shape)],
    outputs: ["heat", "size", "offset"].map((name) => valueInfo(name, "float32", ["batch", 2, 12, 12])),
    weights: [
      weight("w_scores", numbers([2, 16, 3, 3], 0.3)),
      weight("w_size", numbers([2, 16, 1, 1], 0.1)),
      weight("w_offset", numbers([2, 16, 1, 1])),
    ],
  });
  return withMetadata(model(main), {
    role: "head",
    taps: [tap],
    task: "detection",
    labels: ["bowl", "plate"],
    decoding: { arrangement: "centres", heat: "heat", size: "size", offset: "offset", stride: 4 },
  });
}

/**
 * A backbone that computes nothing of the first one (its picture is doubled and its filters halved) and has the same to
 * say: channels in another order and scaled, at another size, in another layout.
 */
export function remade(size: "same" | "finer" | "coarser", layout: "nchw" | "nhwc" = "nchw"): Model {
  const kernel = (channels: number) =>
    weight(
      `mix${channels}`,
      float32(
        [channels, channels, 1, 1],
        Array.from({ length: channels ** 2 }, (_, at) => {
          const [to, from] = [Math.floor(at / channels), at % channels];
          return from === (to * 5 + 3) % channels ? 1 + to / 8 : 0;
        }),
      ),
    );
  const mixed = [
    node("Conv", ["c1", "mix16"], ["m1"]),
    node("Conv", ["c2", "mix32"], ["m2"]),
    ...(["m1", "m2"] as const).map((name) => {
      const sized = `s${name}`;
      if (size === "finer") return node("Resize", [name, "", "twice"], [sized], { mode: "nearest" });
      if (size === "same") return node("Identity", [name], [sized]);
      return node("AveragePool", [name], [sized], { kernel_shape: [2, 2], strides: [2, 2] });
    }),
    ...[1, 2].map((at) =>
      layout === "nchw"
        ? node("Identity", [`sm${at}`], [`n${at}`])
        : node("Transpose", [`sm${at}`], [`n${at}`], { perm: [0, 2, 3, 1] }),
    ),
  ];
  const factor = { same: 1, finer: 2, coarser: 0.5 }[size];
  const shape = (channels: number, side: number) =>
    layout === "nchw"
      ? [1, channels, side * factor, side * factor]
      : [1, side * factor, side * factor, channels];
  const [first, ...others] = backbone.graph.node;
  const halved = backbone.graph.initializer.map((each) => {
    if (each.name !== "w1") return each;
    const { shape: sizes, data: values } = weightTensor(each);
    return weight(
      "w1",
      float32(
        sizes,
        Float32Array.from(values as Float32Array, (value) => value / 2),
      ),
    );
  });
  if (!first) throw new Error("no first convolution");
  const doubled = [
    node("Add", ["image", "image"], ["bright"]),
    copyOf(first, { input: ["bright", ...first.input.slice(1)] }),
  ];
  const main = graph("remade", {
    nodes: [...doubled, ...others, ...mixed],
    inputs: backbone.graph.input,
    outputs: [valueInfo("n1", "float32", shape(16, 12)), valueInfo("n2", "float32", shape(32, 6))],
    weights: [...halved, kernel(16), kernel(32), weight("twice", float32([4], [1, 1, 2, 2]))],
  });
  const { preprocessing } = readMetadata(backbone);
  return withMetadata(model(main), { role: "backbone", preprocessing });
}
