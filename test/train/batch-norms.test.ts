/**
 * Batch norms in batch mode against PyTorch's training mode: losses, parameters, running statistics and the answers of the
 * written model (scripts/fixtures/batch-norms.py made the numbers); whose statistics are whose, and what is refused.
 */
import { readFileSync } from "node:fs";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { loadModel } from "../../src/files/disk.js";
import { float, graph, type Model, model, type Node, node, valueInfo } from "../../src/onnx/model.js";
import { weight, weightTensor } from "../../src/onnx/weight.js";
import { OrtWorker } from "../../src/runtime/node/ort-worker.js";
import { Runtime } from "../../src/runtime/runtime.js";
import { elementCount } from "../../src/tensor/shape.js";
import { bytesOf, float32, int64, type Tensor, toNumbers } from "../../src/tensor/tensor.js";
import { batchGradients } from "../../src/train/gradients.js";
import type { Optimizer } from "../../src/train/optimizers.js";
import { separateParameters } from "../../src/train/parameters.js";
import { type Batch, Trainer } from "../../src/train/trainer.js";
import { TrainingModel } from "../../src/train/training-model.js";
import { useRuntime } from "../onnx/runtime.js";

interface Course {
  readonly network: string;
  readonly file: string;
  readonly optimizer: Optimizer;
  readonly rate: number;
  readonly accumulate?: number;
  readonly average?: number;
  readonly shape: readonly number[];
  readonly y: readonly (readonly number[])[];
  readonly losses: readonly number[];
  readonly final: number;
  readonly logits: readonly number[];
  /** Length and two projections of the value, and of what the training changed. */
  readonly state: Readonly<Record<string, readonly number[]>>;
}
const fixtures = fileURLToPath(new URL("../fixtures", import.meta.url));
const courses: readonly Course[] = JSON.parse(
  readFileSync(join(fixtures, "batch-norms", "courses.json"), "utf8"),
);
const named = courses.map((course) => {
  const { network, optimizer, accumulate, average } = course;
  return [`${network} ${JSON.stringify({ optimizer, accumulate, average })}`, course] as const;
});

const open = useRuntime();
let runtime: Runtime;
beforeAll(async () => {
  runtime = await Runtime.open(() => OrtWorker.start());
});
afterAll(() => runtime.close());

/** Batch `at` of the formula in batch-norms.py. */
function images(shape: readonly number[], at: number): Tensor {
  const count = elementCount(shape);
  const values = Float32Array.from({ length: count }, (_, place) => {
    const i = place + at * count;
    return ((((i * i) % 65537) * 2654435761) % 2 ** 32) / 2 ** 31 - 1;
  });
  return float32(shape, values);
}

function batchOf({ shape, y }: Pick<Course, "shape" | "y">, at: number): Batch {
  const classes = y[at] ?? [];
  return {
    inputs: new Map([["input", images(shape, at)]]),
    terms: [{ loss: { kind: "cross-entropy" }, target: int64([classes.length], classes) }],
  };
}

const trainingModel = async ({ file }: Pick<Course, "file">) =>
  new TrainingModel(await loadModel(join(fixtures, `${file}.onnx`)), { norms: "batch" });

function trainerOf(course: Course, trained: TrainingModel, more = {}) {
  const { optimizer, average } = course;
  return new Trainer(runtime, trained, { optimizer, average, threads: 2, ...more });
}

/** Steps from one to before another. */
async function steps(trainer: Trainer, course: Course, from: number, to: number): Promise<number[]> {
  const { accumulate = 1 } = course;
  const losses: number[] = [];
  for (let step = from; step < to; step++) {
    const parts = Array.from({ length: accumulate }, (_, part) => batchOf(course, step * accumulate + part));
    losses.push(await trainer.step(parts, course.rate));
  }
  return losses;
}

function summary(values: ArrayLike<number>): number[] {
  const along = (f: (at: number) => number) =>
    Array.from(values).reduce((sum, value, at) => sum + value * f(at), 0);
  return [Math.hypot(...Array.from(values)), along(Math.cos), along((at) => Math.sin(0.7 * at + 1))];
}

const bytes = (values: ReadonlyMap<string, Tensor>) =>
  Object.fromEntries([...values].map(([name, value]) => [name, Buffer.from(bytesOf(value)).toString("hex")]));

describe("training with batch statistics", () => {
  it.each(named)("does what PyTorch does: %s", { timeout: 60_000 }, async (_, course) => {
    const trained = await trainingModel(course);
    const trainer = trainerOf(course, trained);
    const losses = await steps(trainer, course, 0, course.losses.length);
    const first = batchOf(course, 0);
    const answers = (await trainer.answers(first.inputs)).get("logits");
    losses.push(await trainer.loss(first));
    const parameters = await trainer.parameters();
    await trainer.close();

    [...course.losses, course.final].forEach((expected, at) => {
      expect(Math.abs((losses[at] ?? 0) / expected - 1), `loss ${at}`).toBeLessThan(2e-3);
    });
    expect([...parameters.keys()].sort()).toEqual(Object.keys(course.state).sort());
    const before = trained.values([...parameters.keys()]);
    for (const [name, value] of parameters) {
      const old = toNumbers(before.get(name) ?? float32([0], []));
      const now = toNumbers(value);
      const got = [...summary(now), ...summary(now.map((each, at) => each - (old[at] ?? 0)))];
      const wanted = course.state[name] ?? [];
      const [length = 0, , , change = 0] = wanted;
      const off = Math.max(...got.map((each, at) => Math.abs(each - (wanted[at] ?? Number.NaN))));
      // Rounding depends on the processor and goes through the statistics of every layer: 2.2e-3 was seen without AVX-512.
      expect(off, name).toBeLessThan(Math.max(1e-6, 4e-3 * Math.min(length, change)));
    }

    // The written model answers as PyTorch does in evaluation mode, and as the trainer did.
    const session = await open(trained.withValues(parameters), "all");
    const served = (await session.run(first.inputs)).get("logits");
    await session.close();
    const size = Math.max(...course.logits.map(Math.abs));
    for (const found of [answers, served]) {
      const numbers = toNumbers(found ?? float32([0], []));
      const off = course.logits.map((each, at) => Math.abs(each - (numbers[at] ?? Number.NaN)));
      expect(Math.max(...off)).toBeLessThan(2e-3 * size);
    }
  });
});

describe("the state of batch norms", () => {
  const course = (wanted: Partial<Course>): Course => {
    const found = courses.find((each) =>
      Object.entries(wanted).every(([key, value]) => each[key as keyof Course] === value),
    );
    if (!found) throw new Error(`no course ${JSON.stringify(wanted)}`);
    return found;
  };

  it.each([
    ["plain", course({ network: "two-norms" })],
    ["accumulated and averaged", course({ accumulate: 2, average: 0.8 })],
    ["tied", course({ network: "tied" })],
  ])("goes on where it was, bit for bit: %s", async (_, of) => {
    const trained = await trainingModel(of);
    const through = trainerOf(of, trained);
    const losses = await steps(through, of, 0, 5);
    const first = trainerOf(of, trained);
    const before = await steps(first, of, 0, 2);
    const second = trainerOf(of, trained, { state: await first.state(), steps: first.steps });
    expect([...before, ...(await steps(second, of, 2, 5))]).toEqual(losses);
    expect(bytes(await second.state())).toEqual(bytes(await through.state()));
    const input = batchOf(of, 0).inputs;
    expect(bytes(await second.answers(input))).toEqual(bytes(await through.answers(input)));
    for (const each of [through, first, second]) await each.close();
  });

  it("is left alone before what is trained, and where norms are frozen", async () => {
    const of = course({ network: "resnet" });
    const trained = await trainingModel(of);
    const last = trained.parameters.filter((name) => /^(layer4|fc)/.test(name));
    const trainer = trainerOf(of, trained, { parameters: last });
    await steps(trainer, of, 0, 1);
    const renewed = await trainer.parameters();
    await trainer.close();
    const statistics = [...renewed.keys()].filter((name) => name.includes("running"));
    expect(statistics.every((name) => name.startsWith("layer4"))).toBe(true);
    expect(statistics.sort()).toEqual(trained.statistics(last).sort());
    const old = bytes(trained.values(statistics));
    for (const name of statistics) expect(bytes(renewed)[name], name).not.toBe(old[name]);

    const frozen = new TrainingModel(await loadModel(join(fixtures, `${of.file}.onnx`)));
    const shapes = new Map([["input", of.shape]]);
    const step = frozen.boundForStep(shapes, frozen.parameters);
    expect(step).toEqual({ model: frozen.bound(shapes), norms: [] });
    expect(frozen.statistics()).toEqual([]);
    const other = trainerOf(of, frozen);
    await steps(other, of, 0, 1);
    expect([...(await other.parameters()).keys()].sort()).toEqual([...frozen.parameters].sort());
    await other.close();
  });

  it("is refused where a batch has one value a channel, which PyTorch refuses as well", async () => {
    const of = course({ network: "two-norms" });
    const { inputs, terms } = batchOf({ ...of, shape: [1, 3, 32, 32], y: [[1]] }, 0);
    const trained = await trainingModel(of);
    const refused = { code: "INPUT_MISMATCH", details: { got: [1, 8] } };
    const trainer = trainerOf(of, trained);
    await expect(trainer.step({ inputs, terms }, 0.1)).rejects.toMatchObject(refused);
    await expect(batchGradients(open, trained, inputs, terms)).rejects.toMatchObject(refused);
    // Answers are those of evaluation, for any number of images.
    expect((await trainer.answers(inputs)).get("logits")?.shape).toEqual([1, 5]);
    await trainer.close();
  });
});

describe("statistics", () => {
  const ones = weight("ones", float32([2], [1, 1]));
  const zeros = weight("zeros", float32([2], [0, 0]));
  const [first, second] = ["first", "second"].map((name, at) =>
    weight(name, float32([2, 2], [1 + at, 2, 3, 4])),
  );
  const [scale, spread] = ["scale", "spread"].map((name) => weight(name, float32([2], [1.5, 0.5])));
  const norm = (x: string, operands: readonly string[], name: string) => {
    const made = node("BatchNormalization", [x, ...operands], [name], { momentum: float(0.5) });
    made.name = name;
    return made;
  };
  const network = (nodes: readonly Node[], output: string): Model =>
    model(
      graph("norms", {
        nodes,
        inputs: [valueInfo("x", "float32", ["N", 2])],
        outputs: [valueInfo(output, "float32", ["N", 2])],
        weights: [ones, zeros, first, second, scale, spread].flatMap((each) => each ?? []),
      }),
    );
  const statisticsIn = (of: Model) =>
    of.graph.node.flatMap(({ opType, input }) => (opType === "BatchNormalization" ? [input.slice(3)] : []));

  it("that were stored once with what else is equal become each norm's own", () => {
    const { model: apart, names } = separateParameters(
      network(
        [
          node("MatMul", ["x", "first"], ["a"]),
          norm("a", ["ones", "zeros", "zeros", "ones"], "b"),
          norm("b", ["scale", "zeros", "zeros", "spread"], "c"),
          node("MatMul", ["c", "second"], ["d"]),
          norm("d", ["spread", "zeros", "zeros", "spread"], "e"),
        ],
        "e",
      ),
    );
    const found = statisticsIn(apart);
    expect(new Set(found.flat()).size).toBe(6);
    expect(found.flat().filter((name) => names.includes(name))).toEqual([]);
    const weights = new Map(apart.graph.initializer.map((each) => [each.name, each]));
    for (const [mean = "", variance = ""] of found) {
      const values = [mean, variance].map((name) => weights.get(name));
      expect(values.map((each) => each && [...weightTensor(each).data])).toEqual([
        [0, 0],
        variance.startsWith("ones") ? [1, 1] : [1.5, 0.5],
      ]);
    }
  });

  it("of one norm that is used twice stay one", () => {
    const twice = network(
      [
        node("MatMul", ["x", "first"], ["a"]),
        norm("a", ["scale", "first.bias", "zeros", "spread"], "b"),
        node("MatMul", ["b", "first"], ["c"]),
        norm("c", ["scale", "first.bias", "zeros", "spread"], "d"),
      ],
      "d",
    );
    twice.graph.initializer.push(weight("first.bias", float32([2], [0.1, 0.2])));
    expect(statisticsIn(separateParameters(twice).model)).toEqual([
      ["zeros", "spread"],
      ["zeros", "spread"],
    ]);
  });

  it("that are computed cannot follow; without batch norms batch mode is refused", () => {
    const computed = network(
      [node("Abs", ["spread"], ["v"]), norm("x", ["scale", "zeros", "ones", "v"], "y")],
      "y",
    );
    expect(() => new TrainingModel(computed, { norms: "batch" }).statistics()).toThrow(
      expect.objectContaining({ code: "MODEL_UNSUPPORTED", details: expect.objectContaining({ node: "y" }) }),
    );
    const none = network([node("MatMul", ["x", "first"], ["y"])], "y");
    const refused = expect.objectContaining({ code: "MODEL_UNSUPPORTED" });
    expect(() => new TrainingModel(none, { norms: "batch" }).requireNorms()).toThrow(refused);
    new TrainingModel(none).requireNorms();
  });
});
