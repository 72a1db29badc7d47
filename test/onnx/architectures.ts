/**
 * Small networks of the kinds that vision models are made of, built by hand. Each takes `x` [batch, 4, 8, 8] and
 * ends in `features`, which the classifier behind it reads; as exporters do, one with a fixed batch has 1 in its
 * reshapes where an open one has 0 or -1.
 */
import { graph, type Model, model, type Node, node, valueInfo, type Weight } from "../../src/onnx/model.js";
import { weight } from "../../src/onnx/weight.js";
import { elementCount } from "../../src/tensor/shape.js";
import { float32, int64 } from "../../src/tensor/tensor.js";

/** Number of classes of the classifier. */
export const CLASSES = 5;

/** Collects nodes and weights. */
export class Builder {
  readonly nodes: Node[] = [];
  readonly weights: Weight[] = [];
  #made = 0;

  /** Adds a node and gives the name of its output. */
  op(opType: string, inputs: string[], attributes: Parameters<typeof node>[3] = {}, output?: string): string {
    const name = output ?? `${opType}_${this.#made++}`;
    this.nodes.push(node(opType, inputs, [name], attributes));
    return name;
  }

  /** A weight of repeatable, irregular values. */
  random(...shape: number[]): string {
    const name = `w_${this.#made++}`;
    const seed = this.#made;
    const values = Float32Array.from(
      { length: elementCount(shape) },
      (_, at) => Math.sin(at * 12.9898 + seed * 78.233) / 2,
    );
    this.weights.push(weight(name, float32(shape, values)));
    return name;
  }

  /** A constant list of whole numbers. */
  ints(...values: number[]): string {
    const name = `i_${this.#made++}`;
    this.weights.push(weight(name, int64([values.length], values)));
    return name;
  }

  /** A constant number. */
  number(value: number): string {
    const name = `n_${this.#made++}`;
    this.weights.push(weight(name, float32([], [value])));
    return name;
  }
}

type Batch = "N" | 1;
type Body = (to: Builder, x: string, batch: Batch) => { value: string; width: number };

const pooled = (to: Builder, x: string, width: number) => ({
  value: to.op("Flatten", [to.op("GlobalAveragePool", [x])]),
  width,
});
/** First dimension of a reshape that keeps rows apart. */
const rows = (batch: Batch, perRow = 1) => (batch === "N" ? (perRow === 1 ? 0 : -1) : perRow);

const BODIES: Readonly<Record<string, Body>> = {
  "grouped and depthwise convolutions": (to, x) => {
    const grouped = to.op("Relu", [
      to.op("Conv", [x, to.random(8, 2, 3, 3)], { group: 2, pads: [1, 1, 1, 1] }),
    ]);
    const deep = to.op("Conv", [grouped, to.random(8, 1, 3, 3), to.random(8)], { group: 8, strides: [2, 2] });
    return pooled(to, to.op("HardSwish", [deep]), 8);
  },
  "channel shuffle": (to, x, batch) => {
    const mixed = to.op("Conv", [x, to.random(8, 4, 1, 1)]);
    const apart = to.op("Reshape", [mixed, to.ints(rows(batch), 2, 4, 8, 8)]);
    const turned = to.op("Transpose", [apart], { perm: [0, 2, 1, 3, 4] });
    const back = to.op("Reshape", [turned, to.ints(rows(batch), 8, 8, 8)]);
    return pooled(to, to.op("Conv", [back, to.random(6, 4, 3, 3)], { group: 2 }), 6);
  },
  "squeeze and excite": (to, x) => {
    const wide = to.op("Conv", [x, to.random(6, 4, 3, 3)]);
    const squeezed = to.op("ReduceMean", [wide], { axes: [2, 3], keepdims: 1 });
    const gate = to.op("Sigmoid", [to.op("Conv", [squeezed, to.random(6, 6, 1, 1)])], {}, "gate");
    return pooled(to, to.op("Mul", [wide, gate]), 6);
  },
  "dense concatenation": (to, x) => {
    const first = to.op("Relu", [to.op("Conv", [x, to.random(3, 4, 3, 3)], { pads: [1, 1, 1, 1] })]);
    const both = to.op("Concat", [x, first], { axis: 1 });
    const second = to.op("Relu", [to.op("Conv", [both, to.random(3, 7, 3, 3)], { pads: [1, 1, 1, 1] })]);
    return pooled(to, to.op("Concat", [both, second], { axis: 1 }), 10);
  },
  "upsampled pyramid": (to, x) => {
    const low = to.op("MaxPool", [to.op("Conv", [x, to.random(4, 4, 1, 1)])], {
      kernel_shape: [2, 2],
      strides: [2, 2],
    });
    const scales = to.random(4);
    to.weights[to.weights.length - 1] = weight(scales, float32([4], [1, 1, 2, 2]));
    const high = to.op("Resize", [low, "", scales], { mode: "nearest" });
    return pooled(to, to.op("Add", [x, high]), 4);
  },
  "transformer block": (to, x, batch) => {
    const tokens = to.op("Transpose", [to.op("Reshape", [x, to.ints(rows(batch), 4, 64)])], {
      perm: [0, 2, 1],
    });
    const attended = attention(to, tokens, [batch, 64, 4], 2);
    const residual = to.op("Add", [tokens, attended]);
    const normal = to.op("LayerNormalization", [residual, to.random(4), to.random(4)]);
    const inner = to.op("Relu", [to.op("Add", [to.op("MatMul", [normal, to.random(4, 8)]), to.random(8)])]);
    const out = to.op("Add", [residual, to.op("MatMul", [inner, to.random(8, 4)])]);
    return { value: to.op("ReduceMean", [out], { axes: [1], keepdims: 0 }), width: 4 };
  },
  "windowed attention": (to, x, batch) => {
    const last = to.op("Transpose", [x], { perm: [0, 2, 3, 1] });
    const tiles = to.op("Reshape", [last, to.ints(rows(batch), 2, 4, 2, 4, 4)]);
    const turned = to.op("Transpose", [tiles], { perm: [0, 1, 3, 2, 4, 5] });
    const windows = to.op("Reshape", [turned, to.ints(rows(batch, 4), 16, 4)]);
    const attended = attention(to, windows, [batch === "N" ? "N" : 4, 16, 4], 2);
    const apart = to.op("Reshape", [attended, to.ints(rows(batch, 1) || -1, 2, 2, 4, 4, 4)]);
    const together = to.op("Transpose", [apart], { perm: [0, 1, 3, 2, 4, 5] });
    const map = to.op("Reshape", [together, to.ints(rows(batch), 64, 4)]);
    return { value: to.op("ReduceMean", [map], { axes: [1], keepdims: 0 }), width: 4 };
  },
};

/** Self-attention as exporters write it: one projection to queries, keys and values, taken apart by Gather. */
function attention(
  to: Builder,
  x: string,
  [batch, length, width]: [Batch | number, number, number],
  heads: number,
): string {
  const first = batch === "N" ? 0 : batch;
  const all = to.op("MatMul", [x, to.random(width, 3 * width)]);
  const apart = to.op("Reshape", [all, to.ints(first, length, 3, heads, width / heads)]);
  const turned = to.op("Transpose", [apart], { perm: [2, 0, 3, 1, 4] });
  const [q = "", k = "", v = ""] = [0, 1, 2].map((at) => {
    const place = to.ints(at);
    to.weights[to.weights.length - 1] = weight(place, int64([], [at]));
    return to.op("Gather", [turned, place], { axis: 0 });
  });
  const keys = to.op("Transpose", [k], { perm: [0, 1, 3, 2] });
  const scores = to.op("Mul", [to.op("MatMul", [q, keys]), to.number((width / heads) ** -0.5)]);
  const mixed = to.op("MatMul", [to.op("Softmax", [scores], { axis: -1 }), v]);
  const merged = to.op("Reshape", [
    to.op("Transpose", [mixed], { perm: [0, 2, 1, 3] }),
    to.ints(first, length, width),
  ]);
  return to.op("MatMul", [merged, to.random(width, width)]);
}

/** Names of the networks. */
export const ARCHITECTURES = Object.keys(BODIES);

/** A network with an open or a fixed batch. */
export function architecture(name: string, batch: Batch): Model {
  const to = new Builder();
  const { value, width } = BODIES[name]?.(to, "x", batch) ?? { value: "x", width: 0 };
  to.op("Identity", [value], {}, "features");
  to.op("Gemm", ["features", to.random(CLASSES, width), to.random(CLASSES)], { transB: 1 }, "logits");
  return model(
    graph(name, {
      nodes: to.nodes,
      inputs: [valueInfo("x", "float32", [batch, 4, 8, 8])],
      outputs: [valueInfo("logits", "float32", [batch, CLASSES])],
      values: [valueInfo("features", "float32", [batch, width])],
      weights: to.weights,
    }),
  );
}
