/** Networks in blocked layout answer what they answer without, and so do the gradients of all their weights. */
import fc from "fast-check";
import { beforeAll, describe, expect, it } from "vitest";
import { PolyheadError } from "../../src/base/errors.js";
import { float, graph, type Model, model, type Node, node, valueInfo } from "../../src/onnx/model.js";
import type { OpenModel } from "../../src/onnx/runner.js";
import { weight } from "../../src/onnx/weight.js";
import { elementCount, type Shape } from "../../src/tensor/shape.js";
import { float32, type Tensor, toNumbers } from "../../src/tensor/tensor.js";
import { differentiate } from "../../src/train/autodiff/differentiate.js";
import { inBatchMode, withBatchStatistics } from "../../src/train/batch-norms.js";
import { blockWidth } from "../../src/train/block-width.js";
import { blockedLayout } from "../../src/train/blocked-layout.js";
import { useRuntime } from "../onnx/runtime.js";

const open = useRuntime();
let width: number | undefined;
beforeAll(async () => {
  width = await blockWidth(open);
});

const layer = fc.oneof(
  fc.record({
    kind: fc.constant("conv" as const),
    filters: fc.constantFrom(5, 16, 24, 32, 48),
    kernel: fc.constantFrom(1, 2, 3),
    stride: fc.constantFrom(1, 2),
    dilation: fc.constantFrom(1, 2),
    pad: fc.constantFrom(0, 1),
    bias: fc.boolean(),
  }),
  fc.record({
    kind: fc.constant("depthwise" as const),
    kernel: fc.constantFrom(1, 3),
    stride: fc.constantFrom(1, 2),
    dilation: fc.constantFrom(1, 2),
    pad: fc.constantFrom(0, 1),
    bias: fc.boolean(),
  }),
  fc.record({
    kind: fc.constantFrom(
      ...(["relu", "clip", "sigmoid", "swish", "residual", "scale", "shift", "drop", "norm"] as const),
      ...(["pool", "average", "turn"] as const),
    ),
  }),
);
type Layer = typeof layer extends fc.Arbitrary<infer L> ? L : never;

const network = fc.record({
  layers: fc.array(layer, { minLength: 1, maxLength: 7 }),
  images: fc.constantFrom(1, 2, 3),
  channels: fc.constantFrom(3, 8, 16, 32),
  size: fc.integer({ min: 5, max: 11 }),
  takesBatch: fc.boolean(),
});

/** A model whose loss is the mean of squares of what its last layer makes. */
class Network {
  readonly nodes: Node[] = [];
  readonly weights = new Map<string, Tensor>();
  readonly input: Shape;
  #shape: [number, number, number, number];
  #value = "x";
  #seed = 1;

  constructor(images: number, channels: number, size: number) {
    this.#shape = [images, channels, size, size];
    this.input = this.#shape;
  }

  add(layer: Layer): void {
    const [images, channels, height, columns] = this.#shape;
    const name = `v${this.nodes.length}`;
    if (layer.kind === "conv" || layer.kind === "depthwise") {
      const filters = layer.kind === "conv" ? layer.filters : channels;
      const reach = (layer.kernel - 1) * layer.dilation + 1;
      if (Math.min(height, columns) + 2 * layer.pad < reach) return;
      const own = layer.kind === "conv" ? channels : 1;
      const inputs = [
        this.#value,
        this.#weight([filters, own, layer.kernel, layer.kernel]),
        ...(layer.bias ? [this.#weight([filters])] : []),
      ];
      const made = node("Conv", inputs, [name], {
        kernel_shape: [layer.kernel, layer.kernel],
        strides: [layer.stride, layer.stride],
        dilations: [layer.dilation, layer.dilation],
        pads: new Array<number>(4).fill(layer.pad),
        group: layer.kind === "conv" ? 1 : channels,
      });
      const size = (all: number) => Math.floor((all + 2 * layer.pad - reach) / layer.stride) + 1;
      this.#push(made, [images, filters, size(height), size(columns)]);
    } else if (layer.kind === "relu" || layer.kind === "sigmoid") {
      const opType = layer.kind === "relu" ? "Relu" : "Sigmoid";
      this.#push(node(opType, [this.#value], [name]), this.#shape);
    } else if (layer.kind === "clip") {
      this.#push(node("Clip", [this.#value, "low", "high"], [name]), this.#shape);
    } else if (layer.kind === "swish") {
      const before = this.#value;
      this.#push(node("Sigmoid", [before], [name]), this.#shape);
      this.#push(node("Mul", [before, name], [`${name}x`]), this.#shape);
    } else if (layer.kind === "residual") {
      const before = this.nodes.at(-1)?.input[0] ?? "";
      const other = this.nodes.find(({ output }) => output[0] === before) ? before : this.#value;
      if (this.shapeOf(other) !== String(this.#shape)) return;
      this.#push(node("Add", [this.#value, other], [name]), this.#shape);
    } else if (layer.kind === "scale") {
      this.#push(node("Mul", [this.#value, this.#weight([channels, 1, 1])], [name]), this.#shape);
    } else if (layer.kind === "shift" || layer.kind === "drop") {
      const own = this.#weight([1, channels, 1, 1]);
      const operands = layer.kind === "shift" ? [own, this.#value] : [this.#value, own];
      this.#push(node(layer.kind === "shift" ? "Add" : "Sub", operands, [name]), this.#shape);
    } else if (layer.kind === "norm") {
      if (images * height * columns < 8) return;
      const [scale, bias, mean] = [0, 1, 2].map(() => this.#weight([channels]));
      const variance = this.#weight([channels], (value) => 0.5 + value ** 2);
      const operands = [this.#value, ...[scale, bias, mean].map(String), variance];
      this.#push(node("BatchNormalization", operands, [name], { epsilon: float(1e-3) }), this.#shape);
    } else if (layer.kind === "turn") {
      this.#push(node("Transpose", [this.#value], [name], { perm: [0, 1, 3, 2] }), [
        images,
        channels,
        columns,
        height,
      ]);
    } else if (Math.min(height, columns) >= 2) {
      const opType = layer.kind === "pool" ? "MaxPool" : "AveragePool";
      const made = node(opType, [this.#value], [name], { kernel_shape: [2, 2], strides: [2, 2] });
      this.#push(made, [images, channels, Math.floor(height / 2), Math.floor(columns / 2)]);
    }
  }

  readonly #shapes = new Map<string, string>();
  shapeOf(name: string): string | undefined {
    return this.#shapes.get(name);
  }

  #push(made: Node, shape: [number, number, number, number]): void {
    this.nodes.push(made);
    this.#shape = shape;
    this.#value = made.output[0] ?? "";
    this.#shapes.set(this.#value, String(shape));
  }

  #weight(shape: Shape, of: (value: number) => number = (value) => value): string {
    const name = `w${this.weights.size}`;
    const scale = 1 / Math.sqrt(elementCount(shape.slice(1)));
    this.weights.set(
      name,
      float32(
        shape,
        Array.from({ length: elementCount(shape) }, () => of(scale * Math.sin(this.#seed++ * 1.7))),
      ),
    );
    return name;
  }

  done(): Model {
    const ends = [
      node("Mul", [this.#value, this.#value], ["square"]),
      node("ReduceMean", ["square"], ["y"], { keepdims: 0 }),
    ];
    const constants = [weight("low", float32([], [-0.5])), weight("high", float32([], [0.5]))];
    return model(
      graph("network", {
        nodes: [...this.nodes, ...ends],
        inputs: [valueInfo("x", "float32", this.input)],
        outputs: [valueInfo("y", "float32", []), valueInfo(this.#value, "float32", this.#shape)],
        weights: [...constants, ...[...this.weights].map(([name, value]) => weight(name, value))],
      }),
    );
  }
}

async function outputs(of: Model, input: Tensor): Promise<ReadonlyMap<string, Tensor>> {
  const opened = await open(of, "all");
  try {
    return await opened.run(new Map([["x", input]]));
  } finally {
    await opened.close();
  }
}

const inDomain = (of: Model) =>
  of.graph.node.filter(({ domain }) => domain === "com.microsoft.nchwc").map(({ opType }) => opType);

/** @param share of the largest number of all, against which what should be 0 is rounding */
function expectSame(got: ReadonlyMap<string, Tensor>, wanted: ReadonlyMap<string, Tensor>, share = 0): void {
  expect([...got.keys()]).toEqual([...wanted.keys()]);
  const all = [...wanted.values()].flatMap((value) => Array.from(toNumbers(value), Math.abs));
  const least = Math.max(1e-3, share * Math.max(...all));
  for (const [name, value] of wanted) {
    const [a, b] = [toNumbers(got.get(name) ?? float32([0], [])), toNumbers(value)];
    expect(got.get(name)?.shape, name).toEqual(value.shape);
    const largest = Math.max(least, ...Array.from(b, Math.abs));
    const farthest = Math.max(...Array.from(b, (each, at) => Math.abs(each - (a[at] ?? Number.NaN))));
    expect(farthest / largest, name).toBeLessThan(1e-4);
  }
}

const seeded = (shape: Shape) =>
  float32(
    shape,
    Array.from({ length: elementCount(shape) }, (_, at) => Math.sin(at * 0.37)),
  );

describe("blocked layout", () => {
  it("changes neither answers nor gradients of random networks", { timeout: 120_000 }, async ({ skip }) => {
    if (width === undefined) return skip("this processor has no blocked layout");
    const blocks = width;
    let rewritten = 0;
    await fc.assert(
      fc.asyncProperty(network, async ({ layers, images, channels, size, takesBatch }) => {
        const made = new Network(images, channels, size);
        for (const each of layers) made.add(each);
        fc.pre(made.nodes.length > 0);
        const plain = made.done();
        const statistics = plain.graph.node.flatMap(({ opType, input }) =>
          opType === "BatchNormalization" ? input.slice(3) : [],
        );
        const trained = [...made.weights.keys()].filter((name) => !takesBatch || !statistics.includes(name));
        const { model: bound, norms } = takesBatch
          ? inBatchMode(plain, trained)
          : { model: plain, norms: [] };
        const { model: written, gradients } = differentiate(bound, { of: "y", withRespectTo: trained });
        const step = withBatchStatistics(written, norms);
        const infos = [...gradients.values()].map((name) => valueInfo(name, "float32"));
        step.graph.output.push(...infos);
        const blocked = blockedLayout(step, blocks);
        rewritten += inDomain(blocked).filter((opType) => opType === "Conv").length;
        const x = seeded(made.input);
        // What only shifts or stretches before a norm that takes the batch's statistics has no gradient.
        expectSame(await outputs(blocked, x), await outputs(step, x), takesBatch ? 0.1 : 0);
      }),
      { numRuns: 60 },
    );
    expect(rewritten).toBeGreaterThan(20);
  });

  it.for([
    ["upper automatic padding", { auto_pad: "SAME_UPPER", strides: [2, 2] }, [3, 3], [4, 4]],
    ["lower automatic padding", { auto_pad: "SAME_LOWER", strides: [2, 2] }, [2, 2], [4, 4]],
    ["no padding, said so", { auto_pad: "VALID" }, [3, 3], [5, 5]],
    ["another padding on each side", { pads: [0, 1, 1, 0], strides: [2, 1] }, [3, 3], [3, 6]],
    ["a flat kernel", { pads: [1, 0, 1, 0] }, [3, 1], [7, 7]],
  ] as const)("has convolutions with %s", async ([_, attributes, kernel, places], { skip }) => {
    if (width === undefined) return skip("this processor has no blocked layout");
    const channels = 2 * width;
    for (const group of [1, channels]) {
      const w = weight("w", seeded([channels, channels / group, ...kernel]));
      const plain = model(
        graph("one", {
          nodes: [node("Conv", ["x", "w"], ["y"], { ...attributes, group })],
          inputs: [valueInfo("x", "float32", [2, channels, 7, 7])],
          outputs: [valueInfo("y", "float32", [2, channels, ...places])],
          weights: [w],
        }),
      );
      const blocked = blockedLayout(plain, width);
      expect(inDomain(blocked)).toContain("Conv");
      const x = seeded([2, channels, 7, 7]);
      expectSame(await outputs(blocked, x), await outputs(plain, x));
    }
  });

  it("has gradients tile by tile", { timeout: 60_000 }, async ({ skip }) => {
    if (width === undefined) return skip("this processor has no blocked layout");
    const channels = Math.ceil(48 / width) * width;
    for (const [images, size] of [
      [2, 8],
      [3, 9],
    ] as const) {
      const made = new Network(images, channels, size);
      const conv = { kernel: 3, stride: 1, dilation: 1, pad: 1, bias: true } as const;
      made.add({ kind: "conv", filters: channels, ...conv } as Layer);
      made.add({ kind: "relu" });
      made.add({ kind: "conv", filters: channels, ...conv } as Layer);
      const { model: step, gradients } = differentiate(made.done(), {
        of: "y",
        withRespectTo: [...made.weights.keys()],
      });
      step.graph.output.push(...[...gradients.values()].map((name) => valueInfo(name, "float32")));
      const blocked = blockedLayout(step, width);
      const left = blocked.graph.node.filter(({ opType, domain }) => /^Conv/.test(opType) && domain === "");
      expect(left.map(({ opType }) => opType)).toEqual([]);
      const x = seeded(made.input);
      expectSame(await outputs(blocked, x), await outputs(step, x));
    }
  });

  it("leaves values in blocks from one convolution to the next", ({ skip }) => {
    if (width === undefined) return skip("this processor has no blocked layout");
    const made = new Network(2, 2 * width, 8);
    const conv = { kernel: 3, stride: 1, dilation: 1, pad: 1, bias: true } as const;
    made.add({ kind: "conv", filters: 2 * width, ...conv } as Layer);
    made.add({ kind: "relu" });
    made.add({ kind: "depthwise", ...conv });
    made.add({ kind: "sigmoid" });
    made.add({ kind: "residual" });
    made.add({ kind: "conv", filters: 2 * width, ...conv } as Layer);
    const blocked = blockedLayout(made.done(), width);
    expect(inDomain(blocked)).toEqual([
      // The input and weights, those over all channels twice: then nothing until the two outputs.
      "ReorderInput",
      "ReorderInput",
      "ReorderInput",
      "Conv",
      "ReorderInput",
      "Conv",
      "ReorderInput",
      "ReorderInput",
      "Conv",
      "ReorderOutput",
      "ReorderOutput",
    ]);
    expect(blocked.graph.node.map(({ opType }) => opType)).not.toContain("Relu");
  });

  it("leaves values in blocks through norms that take the batch's statistics, and back", ({ skip }) => {
    if (width === undefined) return skip("this processor has no blocked layout");
    const made = new Network(2, 2 * width, 8);
    const conv = { kernel: 1, stride: 1, dilation: 1, pad: 0, bias: false } as const;
    made.add({ kind: "conv", filters: 2 * width, ...conv } as Layer);
    made.add({ kind: "norm" });
    made.add({ kind: "relu" });
    made.add({ kind: "conv", filters: 2 * width, ...conv } as Layer);
    const trained = ["w0", "w1", "w2", "w5"];
    const { model: bound, norms } = inBatchMode(made.done(), trained);
    const { model: written } = differentiate(bound, { of: "y", withRespectTo: trained });
    const blocked = blockedLayout(withBatchStatistics(written, norms), width);
    const left = blocked.graph.node.filter(({ domain }) => domain === "").map(({ opType }) => opType);
    expect(left).not.toContain("BatchNormalization");
    expect(left).not.toContain("Relu");
  });

  it("leaves a model without such convolutions as it is", () => {
    const made = new Network(2, 3, 8);
    made.add({ kind: "sigmoid" });
    const plain = made.done();
    expect(blockedLayout(plain, 16)).toBe(plain);
  });
});

describe("the width of a block", () => {
  const answering =
    (answer: (asked: Model) => Tensor): OpenModel =>
    async (asked) => ({ run: async () => new Map([["y", answer(asked)]]), close: async () => {} });
  const isBlocked = (asked: Model) => inDomain(asked).includes("Conv");

  it("is none where the runtime does not know the layout", async () => {
    const refusing: OpenModel = () => Promise.reject(new PolyheadError("LOAD_FAILED", "No.", {}));
    expect(await blockWidth(refusing)).toBeUndefined();
    const narrow = answering(() => float32([1, 4, 1, 1], [1, 2, 3, 4]));
    expect(await blockWidth(narrow)).toBeUndefined();
  });

  it("is none where both layouts do not answer the same", async () => {
    const shape = [1, 16, 1, 1];
    const ones = new Float32Array(16).fill(1);
    const same = answering(() => float32(shape, ones));
    expect(await blockWidth(same)).toBe(16);
    const other = answering((asked) =>
      float32(shape, isBlocked(asked) ? ones.map((each) => each + 1e-3) : ones),
    );
    expect(await blockWidth(other)).toBeUndefined();
  });

  it("does not hide that a worker was lost", async () => {
    const lost: OpenModel = () => Promise.reject(new PolyheadError("WORKER_LOST", "Gone.", {}));
    await expect(blockWidth(lost)).rejects.toMatchObject({ code: "WORKER_LOST" });
  });
});
