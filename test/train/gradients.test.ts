/**
 * Gradients of whole networks against PyTorch's: the shared training fixtures with every element, other
 * torchvision families (scripts/fixtures/gradients.py) by length and two projections of each gradient.
 */
import { readFileSync } from "node:fs";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { loadModel } from "../../src/files/disk.js";
import { float, graph, model, node, valueInfo } from "../../src/onnx/model.js";
import { weight } from "../../src/onnx/weight.js";
import { OrtWorker } from "../../src/runtime/node/ort-worker.js";
import { Runtime } from "../../src/runtime/runtime.js";
import { readNpz } from "../../src/tensor/npz.js";
import { elementCount } from "../../src/tensor/shape.js";
import { float32, int64, type Tensor, toNumbers } from "../../src/tensor/tensor.js";
import { arrayBatches } from "../../src/train/array-batches.js";
import { differentiate } from "../../src/train/autodiff/differentiate.js";
import { batchGradients } from "../../src/train/gradients.js";
import { separateParameters } from "../../src/train/parameters.js";
import { trainBatches } from "../../src/train/train-batches.js";
import { Trainer } from "../../src/train/trainer.js";
import { TrainingModel } from "../../src/train/training-model.js";
import { fixturesDir, hasFixtures } from "../fixtures.js";
import { useRuntime } from "../onnx/runtime.js";

const open = useRuntime();
let runtime: Runtime;
beforeAll(async () => {
  runtime = await Runtime.open(() => OrtWorker.start());
});
afterAll(() => runtime.close());

const CROSS_ENTROPY = { kind: "cross-entropy" } as const;
const norm = (values: ArrayLike<number>) => Math.hypot(...Array.from(values));

describe.skipIf(!hasFixtures).each(["resnet_basic", "mobilenet_v2", "vit"])("%s", (name) => {
  const path = join(fixturesDir, "train", name);
  const arrays = hasFixtures ? readNpz(readFileSync(`${path}.npz`)) : new Map<string, Tensor>();
  const numbers = (key: string) => toNumbers(arrays.get(key) ?? float32([0], []));

  it("has PyTorch's gradient of every parameter", async () => {
    const trained = new TrainingModel(await loadModel(`${path}.onnx`));
    const [batch] = arrayBatches(trained, arrays, { loss: CROSS_ENTROPY });
    const { loss, gradients } = await batchGradients(
      open,
      trained,
      batch?.inputs ?? new Map(),
      batch?.terms ?? [],
    );
    expect(Math.abs(loss / (numbers("loss")[0] ?? 0) - 1)).toBeLessThan(1e-5);
    const expected = [...arrays.keys()].flatMap((key) => (key.startsWith("grad/") ? [key.slice(5)] : []));
    expect([...gradients.keys()].sort()).toEqual(expected.sort());
    for (const [parameter, value] of gradients) {
      const wanted = numbers(`grad/${parameter}`);
      const got = toNumbers(value);
      // Some fixtures hold the gradient's length only.
      const [a, b] =
        arrays.get(`grad/${parameter}`)?.shape.length === value.shape.length
          ? [got, wanted]
          : [Float64Array.of(norm(got)), wanted];
      const distance = norm(a.map((each, at) => each - (b[at] ?? 0)));
      expect(distance, parameter).toBeLessThan(Math.max(1e-9, 1e-4 * norm(b)));
    }
  });

  it("has PyTorch's losses over five steps of Adam", { timeout: 60_000 }, async () => {
    const trained = new TrainingModel(await loadModel(`${path}.onnx`));
    const trainer = new Trainer(runtime, trained, { optimizer: { kind: "adam" }, threads: 2 });
    const batches = arrayBatches(trained, arrays, { loss: CROSS_ENTROPY });
    const { losses, final } = await trainBatches(trainer, batches, { steps: 5, rate: 1e-3 });
    await trainer.close();
    const expected = [...numbers("loss"), ...numbers("final")];
    [...losses, final].forEach((loss, at) => {
      expect(Math.abs(loss / (expected[at] ?? 0) - 1), `loss ${at}`).toBeLessThan(1e-4);
    });
  });
});

interface Golden {
  readonly shape: readonly number[];
  readonly y: readonly number[];
  readonly loss: number;
  readonly gradients: Readonly<Record<string, readonly [number, number, number]>>;
}
const folder = fileURLToPath(new URL("../fixtures/gradients", import.meta.url));
const goldens: Readonly<Record<string, Golden>> = JSON.parse(
  readFileSync(join(folder, "gradients.json"), "utf8"),
);

describe.each(Object.entries(goldens))("%s", (name, golden) => {
  it("has PyTorch's gradient of every parameter", { timeout: 30_000 }, async () => {
    const trained = new TrainingModel(await loadModel(join(folder, `${name}.onnx`)));
    const x = Array.from(
      { length: elementCount(golden.shape) },
      (_, i) => ((31 * i * i + 17 * i) % 23) / 8 - 1,
    );
    const { loss, gradients } = await batchGradients(
      open,
      trained,
      new Map([["input", float32(golden.shape, x)]]),
      [{ loss: CROSS_ENTROPY, target: int64([golden.y.length], golden.y) }],
    );
    expect(Math.abs(loss / golden.loss - 1)).toBeLessThan(1e-4);
    const lacking = Object.keys(golden.gradients).filter((parameter) => !gradients.has(parameter));
    expect(lacking).toEqual([]);
    for (const [parameter, [length, first, second]] of Object.entries(golden.gradients)) {
      const g = toNumbers(gradients.get(parameter) ?? float32([0], []));
      const along = (f: (at: number) => number) => g.reduce((sum, value, at) => sum + value * f(at), 0);
      const off = [norm(g) - length, along(Math.cos) - first, along((at) => Math.sin(0.7 * at + 1)) - second];
      expect(Math.max(...off.map(Math.abs)), parameter).toBeLessThan(Math.max(1e-6, 1e-3 * length));
    }
  });
});

describe("models of older operator sets", () => {
  const older = fileURLToPath(new URL("../fixtures/architectures", import.meta.url));

  it.each(["resnext", "efficientnet-v2", "regnet", "densenet"])(
    "are trained all the same: %s",
    async (name) => {
      const trained = new TrainingModel(await loadModel(join(older, `${name}.onnx`)));
      const goldens = readNpz(readFileSync(join(older, `${name}.npz`)));
      const [input, logits] = ["input", "logits"].map((key) => goldens.get(key) ?? float32([0], []));
      const { loss, gradients } = await batchGradients(
        open,
        trained,
        new Map([["input", input ?? float32([0], [])]]),
        [{ loss: { kind: "mean-squared" }, target: logits ?? float32([0], []) }],
      );
      // PyTorch's own logits are the target, so that hardly anything is left of the loss.
      expect(loss).toBeLessThan(1e-8);
      expect([...gradients.keys()].sort()).toEqual([...trained.parameters].sort());
    },
  );

  it("are refused when they are too old", async () => {
    const old = graph("old", {
      nodes: [node("Relu", ["x"], ["y"])],
      inputs: [valueInfo("x", "float32", ["N", 2])],
      outputs: [valueInfo("y", "float32", ["N", 2])],
      weights: [],
    });
    expect(() => new TrainingModel(model(old, 6))).toThrow(/operator set 6; training takes 16/);
  });
});

describe("parameters", () => {
  const zeros = weight("zeros", float32([2], [0, 0]));
  const first = weight("first", float32([2, 2], [1, 2, 3, 4]));
  const second = weight("second", float32([2, 2], [4, 3, 2, 1]));
  const network = (nodes: readonly ReturnType<typeof node>[], output: string) =>
    model(
      graph("layers", {
        nodes,
        inputs: [valueInfo("x", "float32", ["N", 2])],
        outputs: [valueInfo(output, "float32", ["N", 2])],
        weights: [zeros, first, second],
      }),
    );

  it("behind Identity nodes are separate, under the names that the nodes give", () => {
    const { names } = separateParameters(
      network(
        [
          node("Identity", ["zeros"], ["second.bias"]),
          node("Identity", ["first"], ["first.copy"]),
          node("Gemm", ["x", "first", "zeros"], ["a"]),
          node("Gemm", ["a", "second", "second.bias"], ["b"]),
          node("MatMul", ["b", "first.copy"], ["c"]),
        ],
        "c",
      ),
    );
    expect([...names].sort()).toEqual(["first", "first.copy", "second", "second.bias", "zeros"]);
  });

  it("that are equal throughout are separate in different layers, and one where a layer is used twice", () => {
    const layers = (again: string) =>
      network(
        [
          node("MatMul", ["x", "first"], ["a"]),
          node("Add", ["a", "zeros"], ["b"]),
          node("Relu", ["b"], ["c"]),
          node("MatMul", ["c", again], ["d"]),
          node("Add", ["d", "zeros"], ["e"]),
          node("MatMul", ["e", "second"], ["f"]),
        ],
        "f",
      );
    expect([...separateParameters(layers("second")).names].sort()).toEqual([
      "first",
      "second",
      "zeros",
      "zeros@e",
    ]);
    expect([...separateParameters(layers("first")).names].sort()).toEqual(["first", "second", "zeros"]);
  });
});

describe("differentiate", () => {
  const scalar = (nodes: readonly ReturnType<typeof node>[]) =>
    model(
      graph("loss", {
        nodes,
        inputs: [valueInfo("x", "float32", [2, 3])],
        outputs: [valueInfo("loss", "float32", [])],
        weights: [weight("w", float32([3], [1, 2, 3])), weight("v", float32([3], [1, 1, 1]))],
      }),
    );

  it("names all nodes without a rule at once, and only those on the way", () => {
    const whole = scalar([
      node("NonZero", ["x"], ["aside"]),
      node("Mul", ["x", "w"], ["a"]),
      node("Det", ["a"], ["b"]),
      node("Bernoulli", ["a"], ["c"]),
      node("Mul", ["b", "c"], ["d"]),
      node("Mul", ["d", "v"], ["e"]),
      node("ReduceSum", ["e"], ["loss"], { keepdims: 0 }),
    ]);
    expect(() => differentiate(whole, { of: "loss", withRespectTo: ["w"] })).toThrow(
      /2 of its nodes.*Det "b" \(no rule\), Bernoulli "c" \(no rule\)/,
    );
    expect([...differentiate(whole, { of: "loss", withRespectTo: ["v"] }).gradients.keys()]).toEqual(["v"]);
  });

  it("writes nothing for what is not asked for", () => {
    const whole = scalar([
      node("Mul", ["x", "w"], ["a"]),
      node("Elu", ["a"], ["b"], { alpha: float(0.5) }),
      node("Mul", ["b", "v"], ["c"]),
      node("ReduceSum", ["c"], ["loss"], { keepdims: 0 }),
    ]);
    const size = (names: readonly string[]) =>
      differentiate(whole, { of: "loss", withRespectTo: names }).model.graph.node.length;
    expect(size(["v"])).toBeLessThan(size(["w"]));
    expect(size(["w"])).toBeLessThan(size(["w", "v"]));
    expect(size([])).toBe(4);
  });
});
