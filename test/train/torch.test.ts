/** Losses and optimisers against PyTorch's; scripts/fixtures/gradients.py made the numbers. */
import { readFileSync } from "node:fs";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { graph, model, node, valueInfo } from "../../src/onnx/model.js";
import { weight } from "../../src/onnx/weight.js";
import { OrtWorker } from "../../src/runtime/node/ort-worker.js";
import { Runtime } from "../../src/runtime/runtime.js";
import { float32, int64, toNumbers } from "../../src/tensor/tensor.js";
import { differentiate } from "../../src/train/autodiff/differentiate.js";
import { batchGradients } from "../../src/train/gradients.js";
import { type Loss, withLoss } from "../../src/train/losses.js";
import type { Optimizer } from "../../src/train/optimizers.js";
import { rateFactor } from "../../src/train/schedules.js";
import { Trainer } from "../../src/train/trainer.js";
import { TrainingModel } from "../../src/train/training-model.js";
import { useRuntime } from "../onnx/runtime.js";

interface LossCase {
  readonly loss: Loss;
  readonly shape: readonly number[];
  readonly x: readonly number[];
  readonly target: {
    readonly dtype: "int64" | "float32";
    readonly shape: readonly number[];
    readonly values: readonly number[];
  };
  readonly value: number;
  readonly gradient: readonly number[];
}
interface Course {
  readonly optimizer: Optimizer;
  readonly clipNorm?: number;
  readonly groups?: boolean;
  readonly average?: number;
  readonly accumulate?: number;
  readonly losses: readonly number[];
  readonly weight: readonly number[];
  readonly bias: readonly number[];
}
const torch: {
  readonly losses: readonly LossCase[];
  readonly optimizers: {
    readonly weight: readonly number[];
    readonly bias: readonly number[];
    readonly x: readonly number[];
    readonly y: readonly (readonly number[])[];
    readonly rate: number;
    readonly courses: readonly Course[];
  };
} = JSON.parse(readFileSync(new URL("../fixtures/gradients/torch.json", import.meta.url), "utf8"));

const open = useRuntime();
let runtime: Runtime;
beforeAll(async () => {
  runtime = await Runtime.open(() => OrtWorker.start());
});
afterAll(() => runtime.close());

const farthest = (a: ArrayLike<number>, b: ArrayLike<number>) =>
  Math.max(...Array.from(a, (each, at) => Math.abs(each - (b[at] ?? Number.NaN))));

describe("losses", () => {
  it.each(torch.losses.map((each) => [JSON.stringify(each.loss), each.target.dtype, each] as const))(
    "%s of %s",
    async (_, __, of) => {
      const { shape, target } = of;
      const identity = model(
        graph("logits", {
          nodes: [node("Identity", ["x"], ["logits"])],
          inputs: [valueInfo("x", "float32", shape)],
          outputs: [valueInfo("logits", "float32", shape)],
          weights: [],
        }),
      );
      const term = { loss: of.loss, target: "y", dtype: target.dtype, shape: target.shape };
      const { model: whole, loss } = withLoss(identity, [term]);
      const { model: both, gradients } = differentiate(whole, { of: loss, withRespectTo: ["x"] });
      const session = await open(both, "all");
      const y =
        target.dtype === "int64" ? int64(target.shape, target.values) : float32(target.shape, target.values);
      const got = await session.run(
        new Map([
          ["x", float32(shape, of.x)],
          ["y", y],
        ]),
      );
      await session.close();
      expect(Number(got.get(loss)?.data[0])).toBeCloseTo(of.value, 5);
      const gradient = got.get(gradients.get("x") ?? "");
      expect(farthest(of.gradient, gradient ? toNumbers(gradient) : [])).toBeLessThan(1e-5);
    },
  );

  it("refuses targets that do not fit, and says what would", () => {
    const logits = model(
      graph("logits", {
        nodes: [node("Identity", ["x"], ["logits"])],
        inputs: [valueInfo("x", "float32", [4, 3])],
        outputs: [valueInfo("logits", "float32", [4, 3])],
        weights: [],
      }),
    );
    const term = (loss: Loss, shape: readonly number[]) =>
      withLoss(logits, [{ loss, target: "y", dtype: "int64", shape }]);
    expect(() => term({ kind: "cross-entropy" }, [5])).toThrow(/\[5\].*takes \[4\]/);
    expect(() => term({ kind: "mean-squared" }, [4])).toThrow(/takes \[4, 3\]/);
    expect(() => term({ kind: "cross-entropy", classWeights: [1, 2] }, [4])).toThrow(/2 class weights for 3/);
  });
});

describe("optimisers", () => {
  const { optimizers } = torch;
  const linear = () =>
    new TrainingModel(
      model(
        graph("linear", {
          nodes: [node("Gemm", ["x", "weight", "bias"], ["logits"], { transB: 1 })],
          inputs: [valueInfo("x", "float32", ["N", 4])],
          outputs: [valueInfo("logits", "float32", ["N", 3])],
          weights: [
            weight("weight", float32([3, 4], optimizers.weight)),
            weight("bias", float32([3], optimizers.bias)),
          ],
        }),
      ),
    );
  const batch = (at: number) => {
    const place = at % optimizers.y.length;
    return {
      inputs: new Map([["x", float32([6, 4], optimizers.x.slice(place * 24, (place + 1) * 24))]]),
      terms: [{ loss: { kind: "cross-entropy" } as const, target: int64([6], optimizers.y[place] ?? []) }],
    };
  };
  const trainerOf = (course: Course, more = {}) =>
    new Trainer(runtime, linear(), {
      ...course,
      groupOf: (name) => (!course.groups ? {} : name === "weight" ? { rate: 0.1 } : { weightDecay: 0.1 }),
      ...more,
    });
  const named = optimizers.courses.map((course) => {
    const { losses, weight, bias, ...settings } = course;
    return [JSON.stringify(settings), course] as const;
  });

  it.each(named)("%s", async (_, course) => {
    const trainer = trainerOf(course);
    const count = course.accumulate ?? 1;
    for (const [step, expected] of course.losses.entries()) {
      const batches = Array.from({ length: count }, (_, part) => batch(step * count + part));
      expect(await trainer.step(batches, optimizers.rate)).toBeCloseTo(expected, 4);
    }
    const parameters = await trainer.parameters();
    await trainer.close();
    for (const key of ["weight", "bias"] as const) {
      const value = parameters.get(key);
      expect(farthest(course[key], value ? toNumbers(value) : []), key).toBeLessThan(1e-4);
    }
  });

  it.each(named)("goes on from its state as if it had never stopped: %s", async (_, course) => {
    const count = course.accumulate ?? 1;
    const step = (trainer: Trainer, at: number) =>
      trainer.step(
        Array.from({ length: count }, (_, part) => batch(at * count + part)),
        optimizers.rate,
      );
    const through = trainerOf(course);
    for (let at = 0; at < 6; at++) await step(through, at);
    const first = trainerOf(course);
    for (let at = 0; at < 3; at++) await step(first, at);
    const second = trainerOf(course, { state: await first.state(), steps: first.steps });
    for (let at = 3; at < 6; at++) await step(second, at);
    expect(await second.state()).toEqual(await through.state());
    for (const each of [through, first, second]) await each.close();
  });

  it("says when the loss is no number any more", async () => {
    const trainer = new Trainer(runtime, linear(), { optimizer: { kind: "sgd" } });
    await trainer.step(batch(0), 1e38);
    await expect(
      (async () => {
        for (let at = 1; at < 5; at++) await trainer.step(batch(at), 1e38);
      })(),
    ).rejects.toMatchObject({ code: "DIVERGED" });
    await trainer.close();
  });

  it.each([3, -1])("refuse targets that name class %d of 3", async (wrong) => {
    const trainer = new Trainer(runtime, linear(), { optimizer: { kind: "sgd" } });
    const { inputs } = batch(0);
    const terms = (kind: "cross-entropy" | "focal") => [
      { loss: { kind }, target: int64([6], [0, 1, 2, 0, 1, wrong]) },
    ];
    const refused = { code: "INPUT_MISMATCH", details: { got: wrong, expected: 3 } };
    for (const kind of ["cross-entropy", "focal"] as const) {
      await expect(trainer.step({ inputs, terms: terms(kind) }, 0.1)).rejects.toMatchObject(refused);
      await expect(batchGradients(open, linear(), inputs, terms(kind))).rejects.toMatchObject(refused);
    }
    await trainer.step(batch(0), 0.1);
    await trainer.close();
  });

  it("train initializers that a caller could replace as any other", async () => {
    const [plain, replaceable] = [linear(), linear()];
    for (const name of plain.parameters)
      replaceable.model.graph.input.push(valueInfo(name, "float32", plain.values([name]).get(name)?.shape));
    const course = async (trained: TrainingModel) => {
      const trainer = new Trainer(runtime, trained, { optimizer: { kind: "adam" } });
      const loss = await trainer.step(batch(0), 0.1);
      const found = [loss, await trainer.loss(batch(1)), await trainer.parameters()];
      await trainer.close();
      return found;
    };
    expect(await course(new TrainingModel(replaceable.model))).toEqual(await course(plain));
  });

  it("gives back what it took from the runtime", async () => {
    const before = runtime.stats.sessions;
    const trainer = new Trainer(runtime, linear(), { optimizer: { kind: "adam" } });
    await trainer.step([batch(0), batch(1)], 0.1);
    await trainer.step(batch(2), 0.1);
    expect(runtime.stats.sessions).toBeGreaterThan(before);
    await trainer.close();
    expect(runtime.stats.sessions).toBe(before);
  });
});

describe("schedules", () => {
  it("rise, stay, fall", () => {
    const course = (schedule: Parameters<typeof rateFactor>[0], steps: number) =>
      Array.from({ length: steps }, (_, step) => Number(rateFactor(schedule, step, steps).toFixed(3)));
    expect(course({}, 3)).toEqual([1, 1, 1]);
    expect(course({ warmup: 4 }, 6)).toEqual([0.25, 0.5, 0.75, 1, 1, 1]);
    expect(course({ kind: "cosine" }, 4)).toEqual([1, 0.854, 0.5, 0.146]);
    expect(course({ kind: "cosine", warmup: 2, end: 0.1 }, 4)).toEqual([0.5, 1, 1, 0.55]);
    expect(course({ kind: "step", milestones: [1, 3], factor: 0.5 }, 4)).toEqual([1, 0.5, 0.5, 0.25]);
  });
});
