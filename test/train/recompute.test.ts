/** Activations that are computed again: what comes out is the same, and less memory is taken meanwhile. */
import { readFileSync } from "node:fs";
import { join } from "node:path";
import fc from "fast-check";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { sha256 } from "../../src/base/sha256.js";
import { loadModel } from "../../src/files/disk.js";
import { rowDemand } from "../../src/onnx/memory.js";
import { graph, type Model, model, type Node, node, valueInfo, type Weight } from "../../src/onnx/model.js";
import { inferTypes } from "../../src/onnx/shapes.js";
import { weight } from "../../src/onnx/weight.js";
import { OrtWorker } from "../../src/runtime/node/ort-worker.js";
import { Runtime } from "../../src/runtime/runtime.js";
import { readNpz } from "../../src/tensor/npz.js";
import { rowOf } from "../../src/tensor/rows.js";
import { elementCount, type Shape } from "../../src/tensor/shape.js";
import { bytesOf, float32, int64, type Tensor, toNumbers } from "../../src/tensor/tensor.js";
import { differentiate } from "../../src/train/autodiff/differentiate.js";
import { withLoss } from "../../src/train/losses.js";
import { recomputed } from "../../src/train/recompute.js";
import { type Batch, Trainer, type TrainerOptions } from "../../src/train/trainer.js";
import { TrainingModel } from "../../src/train/training-model.js";
import { fixturesDir, hasFixtures } from "../fixtures.js";
import { useRuntime } from "../onnx/runtime.js";

const open = useRuntime();
let runtime: Runtime;
beforeAll(async () => {
  runtime = await Runtime.open(() => OrtWorker.start());
});
afterAll(() => runtime.close());

const CHANNELS = 4;
const KINDS = ["convolution", "tanh", "residual", "joined", "pooled", "norm", "branched"] as const;
type Kind = (typeof KINDS)[number];

const seeded = (shape: Shape, seed: number) =>
  float32(
    shape,
    Array.from({ length: elementCount(shape) }, (_, at) => Math.sin((at + 1) * 0.37 + seed) / 2),
  );

/** A network of layers over images of 8 x 8 with four channels; its last value is `y`. */
function networkOf(kinds: readonly Kind[]): Model {
  const nodes: Node[] = [];
  const weights: Weight[] = [weight("yes", { dtype: "bool", shape: [], data: Uint8Array.of(1) })];
  const values = ["x"];
  const convolution = (from: string, to: string, channels: number) => {
    weights.push(weight(`${to}.w`, seeded([CHANNELS, channels, 3, 3], weights.length)));
    nodes.push(node("Conv", [from, `${to}.w`], [to], { pads: [1, 1, 1, 1] }));
  };
  kinds.forEach((kind, at) => {
    const [last = "", to] = [values.at(-1), `v${at}`];
    if (kind === "convolution") {
      convolution(last, `${to}.c`, CHANNELS);
      nodes.push(node("Relu", [`${to}.c`], [to]));
    } else if (kind === "tanh") nodes.push(node("Tanh", [last], [to]));
    else if (kind === "residual") {
      convolution(last, `${to}.c`, CHANNELS);
      nodes.push(node("Add", [`${to}.c`, values.at(-2) ?? last], [to]));
    } else if (kind === "joined") {
      nodes.push(node("Concat", [last, values[0] ?? last], [`${to}.j`], { axis: 1 }));
      convolution(`${to}.j`, to, 2 * CHANNELS);
    } else if (kind === "pooled") {
      nodes.push(node("MaxPool", [last], [to], { kernel_shape: [3, 3], pads: [1, 1, 1, 1] }));
    } else if (kind === "norm") {
      for (const [part, seed] of Object.entries({ scale: 1, bias: 2, mean: 3 }))
        weights.push(weight(`${to}.${part}`, seeded([CHANNELS], seed)));
      weights.push(weight(`${to}.variance`, float32([CHANNELS], [1, 0.5, 2, 1])));
      const inputs = ["scale", "bias", "mean", "variance"].map((part) => `${to}.${part}`);
      nodes.push(node("BatchNormalization", [last, ...inputs], [to]));
    } else {
      const outputs = [valueInfo(`${to}.n`, "float32")];
      const nodesInside = [node("Neg", ["x"], [`${to}.n`])];
      const branch = graph("same", { nodes: nodesInside, inputs: [], outputs, weights: [] });
      nodes.push(node("If", ["yes"], [`${to}.i`], { then_branch: branch, else_branch: branch }));
      nodes.push(node("Mul", [last, last], [`${to}.s`]), node("Sub", [`${to}.s`, `${to}.i`], [to]));
    }
    values.push(to);
  });
  nodes.push(node("GlobalAveragePool", [values.at(-1) ?? ""], ["mean"]), node("Flatten", ["mean"], ["y"]));
  return model(
    graph("layers", {
      nodes,
      inputs: [valueInfo("x", "float32", ["N", CHANNELS, 8, 8])],
      outputs: [valueInfo("y", "float32", ["N", CHANNELS])],
      weights,
    }),
  );
}

const batch = (rows: number): Batch => ({
  inputs: new Map([["x", seeded([rows, CHANNELS, 8, 8], rows)]]),
  terms: [
    {
      loss: { kind: "cross-entropy" },
      target: int64(
        [rows],
        Array.from({ length: rows }, (_, at) => at % CHANNELS),
      ),
    },
  ],
});

/** Loss and gradients of all parameters, shapes bound. */
function withGradients(training: TrainingModel, inputs: ReadonlyMap<string, Tensor>, target: Tensor) {
  const shapes = new Map([...inputs].map(([name, { shape }]) => [name, shape]));
  const term = {
    loss: { kind: "cross-entropy" },
    target: "t",
    dtype: target.dtype,
    shape: target.shape,
  } as const;
  const { model: whole, loss } = withLoss(training.bound(shapes), [term]);
  return { loss, model: differentiate(whole, { of: loss, withRespectTo: training.parameters }).model };
}

function demandOf(of: Model): number {
  const types = inferTypes(of);
  return rowDemand(of, (name) => types.get(name));
}

async function results(of: Model, given: ReadonlyMap<string, Tensor>) {
  const session = await open(of, "all");
  try {
    return await session.run(given);
  } finally {
    await session.close();
  }
}

/** Last bits differ where the runtime joins operators of the first computation, whose values nobody else reads now. */
function requireClose(made: ReadonlyMap<string, Tensor>, expected: ReadonlyMap<string, Tensor>): void {
  expect([...made.keys()]).toEqual([...expected.keys()]);
  for (const [name, value] of expected) {
    const [wanted, got] = [toNumbers(value), toNumbers(made.get(name) ?? value)];
    const largest = Math.max(...wanted.map(Math.abs));
    const farthest = Math.max(...wanted.map((each, at) => Math.abs(each - (got[at] ?? Number.NaN))));
    expect(farthest, name).toBeLessThanOrEqual(1e-5 * largest);
  }
}

/** Digests, which say as much as the bytes and can be read. */
const bits = (values: ReadonlyMap<string, Tensor>) =>
  Object.fromEntries([...values].map(([name, value]) => [name, sha256(bytesOf(value)).slice(0, 12)]));

describe("recomputed", () => {
  it("gives the same gradients, whatever the layers", { timeout: 120_000 }, async () => {
    let changed = 0;
    const layers = fc.array(fc.constantFrom(...KINDS), { minLength: 3, maxLength: 12 });
    await fc.assert(
      fc.asyncProperty(layers, async (kinds) => {
        const { inputs, terms } = batch(3);
        const target = terms[0]?.target ?? int64([0], []);
        const { model: once, loss } = withGradients(new TrainingModel(networkOf(kinds)), inputs, target);
        const again = recomputed(once, loss, 1);
        if (again === once) return;
        changed++;
        expect(demandOf(again)).toBeLessThan(demandOf(once));
        const given = new Map([...inputs, ["t", target] as const]);
        requireClose(await results(again, given), await results(once, given));
      }),
      { numRuns: 40 },
    );
    expect(changed).toBeGreaterThan(5);
  });

  it("keeps much less of a deep network", () => {
    const deep = new TrainingModel(
      networkOf(Array.from({ length: 48 }, (_, at): Kind => (at % 6 === 0 ? "convolution" : "tanh"))),
    );
    const { inputs, terms } = batch(8);
    const { model: once, loss } = withGradients(deep, inputs, terms[0]?.target ?? int64([0], []));
    expect(demandOf(recomputed(once, loss))).toBeLessThan(0.5 * demandOf(once));
  });

  it("leaves a network alone that has nothing to gain", () => {
    const { inputs, terms } = batch(8);
    const shallow = new TrainingModel(networkOf(["convolution"]));
    const { model: once, loss } = withGradients(shallow, inputs, terms[0]?.target ?? int64([0], []));
    expect(recomputed(once, loss)).toBe(once);
  });

  it.for(["mobilenet_v2", "vit"])(
    "gives the gradients of %s",
    { timeout: 120_000 },
    async (name, { skip }) => {
      if (!hasFixtures) skip(`${fixturesDir} is missing`);
      const folder = join(fixturesDir, "train");
      const training = new TrainingModel(await loadModel(join(folder, `${name}.onnx`)));
      const arrays = readNpz(readFileSync(join(folder, `${name}.npz`)));
      const [input = ""] = training.inputs;
      const [x, y] = ["x", "y"].map((each) => {
        const { shape, ...first } = rowOf(arrays.get(each) ?? float32([1], [0]), 0);
        return { ...first, shape: shape.slice(1) };
      });
      if (!x || !y) throw new Error("The fixture has no batch.");
      const inputs = new Map([[input, x]]);
      const { model: once, loss } = withGradients(training, inputs, y);
      const again = recomputed(once, loss, 1);
      expect(again).not.toBe(once);
      const given = new Map([...inputs, ["t", y] as const]);
      requireClose(await results(again, given), await results(once, given));
    },
  );
});

describe("a trainer that recomputes", () => {
  const kinds = Array.from({ length: 12 }, (): Kind[] => ["convolution", "norm", "tanh"]).flat();
  const trained = async (options: Partial<TrainerOptions>, norms: "frozen" | "batch", together: number) => {
    const trainer = new Trainer(runtime, new TrainingModel(networkOf(kinds), { norms }), {
      optimizer: { kind: "adam" },
      ...options,
    });
    const losses: number[] = [];
    for (let step = 0; step < 3; step++)
      losses.push(
        await trainer.step(
          Array.from({ length: together }, (_, at) => batch(4 + at)),
          1e-3,
        ),
      );
    const state = bits(await trainer.state());
    await trainer.close();
    return { losses, state };
  };

  it.for([
    ["frozen", 1],
    ["frozen", 2],
    ["batch", 1],
    ["batch", 2],
  ] as const)(
    "comes to the same weights: norms %s, batches a step %i",
    { timeout: 120_000 },
    async ([norms, together]) => {
      const again = await trained({ recompute: true, clipNorm: 1, average: 0.9 }, norms, together);
      expect(again).toEqual(await trained({ clipNorm: 1, average: 0.9 }, norms, together));
    },
  );
});
