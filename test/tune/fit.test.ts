/** The loop of a training: the same parameters whether it was interrupted or not, the best epoch, and what stops it. */
import { mkdtemp, readdir, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { gaussian, seededRandom } from "../../src/base/random.js";
import { arraySet } from "../../src/data/array-set.js";
import { ArrayRows } from "../../src/data/rows.js";
import { Checkpoints } from "../../src/files/checkpoint.js";
import { graph, model, node, valueInfo } from "../../src/onnx/model.js";
import { weight } from "../../src/onnx/weight.js";
import { OrtWorker } from "../../src/runtime/node/ort-worker.js";
import { Runtime } from "../../src/runtime/runtime.js";
import { bytesOf, float32, int64, type Tensor } from "../../src/tensor/tensor.js";
import { Network } from "../../src/train/network.js";
import { Trainer } from "../../src/train/trainer.js";
import { TrainingModel } from "../../src/train/training-model.js";
import { type FitOptions, type Fitted, fitModel } from "../../src/tune/fit.js";

let folder: string;
let runtime: Runtime;
beforeAll(async () => {
  folder = await mkdtemp(join(tmpdir(), "fit-"));
  runtime = await Runtime.open(() => OrtWorker.start());
});
afterAll(async () => {
  await runtime.close();
  await rm(folder, { recursive: true });
});

const random = seededRandom(3);
const classes = Array.from({ length: 48 }, (_, at) => at % 3);
const x = classes.flatMap((own) =>
  Array.from({ length: 6 }, (_, at) => gaussian(random) + (at === own ? 2 : 0)),
);
const rows = new ArrayRows(arraySet("made up", float32([48, 6], x), int64([48], classes)));

/** 6 -> 8 -> 3 with a Relu. */
function network(): TrainingModel {
  const draws = seededRandom(1);
  const random = (name: string, shape: readonly [number, number]) =>
    weight(
      name,
      float32(
        shape,
        Array.from({ length: shape[0] * shape[1] }, () => 0.4 * gaussian(draws)),
      ),
    );
  return new TrainingModel(
    model(
      graph("network", {
        nodes: [
          node("MatMul", ["x", "w1"], ["h"]),
          node("Relu", ["h"], ["r"]),
          node("MatMul", ["r", "w2"], ["logits"]),
        ],
        inputs: [valueInfo("x", "float32", ["batch", 6])],
        outputs: [valueInfo("logits", "float32", ["batch", 3])],
        weights: [random("w1", [6, 8]), random("w2", [8, 3])],
      }),
    ),
  );
}

/** 6 -> 8 -> 3 with a batch norm that takes the batch's statistics. */
function normed(): TrainingModel {
  const net = new Network(1);
  const hidden = net.relu("r", net.batchNorm("norm", net.linear("first", net.input("x", ["batch", 6]), 8)));
  return new TrainingModel(net.model("network", [net.linear("logits", hidden, 3)]), { norms: "batch" });
}

function options(changes: Partial<FitOptions<number>> = {}): FitOptions<number> {
  return {
    runtime,
    model: network(),
    rows,
    optimizer: { kind: "adam" },
    rate: 0.02,
    schedule: { kind: "cosine", warmup: 3 },
    batch: 10,
    epochs: 5,
    seed: 4,
    collate: (input, targets) => ({
      x: input,
      y: [{ loss: { kind: "cross-entropy" }, target: int64([targets.length], targets) }],
    }),
    ...changes,
  };
}

const bytes = (parameters: ReadonlyMap<string, Tensor>) =>
  Object.fromEntries(
    [...parameters].map(([name, value]) => [name, Buffer.from(bytesOf(value)).toString("hex")]),
  );

describe("a fit", () => {
  it("learns, and gives the same bits for the same seed only", async () => {
    const first = await fitModel(options());
    expect(first.losses).toHaveLength(20);
    expect(first.losses.at(-1)).toBeLessThan(0.7 * (first.losses[0] ?? 0));
    expect(first).toMatchObject({ epoch: 5, perEpoch: 4, qualities: [] });
    const again = await fitModel(options());
    expect(bytes(again.parameters)).toEqual(bytes(first.parameters));
    expect(bytes((await fitModel(options({ seed: 5 }))).parameters)).not.toEqual(bytes(first.parameters));
  });

  const alike = {};
  const norms = { ...{ average: 0.7, batch: 5, accumulate: 2 }, model: normed() };
  const averaged = { average: 0.7, groups: [{ names: "w1", rate: 0.1, weightDecay: 0.1 }] };

  it.each([
    ...[1, 4, 7, 13, 20].map((end) => [end, "one rate", alike] as const),
    ...[4, 7, 20].map((end) => [end, "groups and an average", averaged] as const),
    ...[1, 7, 20].map((end) => [end, "batch norms that follow, averaged", norms] as const),
  ])("goes on after an end in step %i as if nothing had been, with %s", async (end, name, settings) => {
    const judge = { judge: async () => 0, patience: 100, ...settings };
    const whole = await fitModel(options(judge));
    const own = join(folder, `end-${end} ${name}`);
    const checkpoints = () => new Checkpoints(own, { settings: {}, data: "d", model: "m" });
    const kept = { ...judge, checkpointSteps: 3 };
    const dies = fitModel(
      options({
        ...kept,
        checkpoints: checkpoints(),
        onStep: ({ step }) => {
          if (step === end) throw new Error("killed");
        },
      }),
    );
    await expect(dies).rejects.toThrow("killed");
    const resumed = await fitModel(options({ ...kept, checkpoints: checkpoints() }));
    expect(resumed.losses).toEqual(whole.losses);
    expect(bytes(resumed.parameters)).toEqual(bytes(whole.parameters));
    // What is over is not done again.
    let steps = 0;
    const over = await fitModel(options({ ...kept, checkpoints: checkpoints(), onStep: () => steps++ }));
    expect(steps).toBe(0);
    expect(bytes(over.parameters)).toEqual(bytes(whole.parameters));
    expect(await readdir(own)).toHaveLength(2);
  });

  it("gives, and judges, the average of the parameters where it is asked to", async () => {
    const seen: (number | undefined)[] = [];
    const first = (parameters: ReadonlyMap<string, Tensor>) => Number(parameters.get("w1")?.data[0]);
    const input = float32([1, 6], x.slice(0, 6));
    const answers: number[] = [];
    const course = (changes: Partial<FitOptions<number>>) => {
      const judge = async (trainer: Trainer) => {
        seen.push(first(await trainer.parameters()));
        answers.push(Number((await trainer.answers(new Map([["x", input]]))).get("logits")?.data[0]));
        return 0;
      };
      return fitModel(options({ batch: 48, epochs: 3, judge, ...changes }));
    };
    await course({});
    const [latest, plain] = [seen.splice(0), answers.splice(0)];
    const fitted = await course({ average: 0.75 });
    let expected = first(network().values(["w1"]));
    for (const [at, value] of latest.entries()) {
      expected = 0.75 * expected + 0.25 * (value ?? Number.NaN);
      expect(seen[at]).toBeCloseTo(expected, 5);
    }
    expect(first(fitted.parameters)).toBe(seen.at(-1));
    // After a step that changed much the average answers differently from the parameters themselves.
    expect(Math.abs((answers[0] ?? 0) - (plain[0] ?? 0))).toBeGreaterThan(1e-4);
  });

  it("judges in evaluation mode, and hands out statistics that followed, or those that it began with", async () => {
    const answers: string[] = [];
    const input = new Map([["x", float32([1, 6], x.slice(0, 6))]]);
    const judge = async (trainer: Trainer) => {
      answers.push(bytes(await trainer.answers(input)).logits ?? "");
      return -answers.length;
    };
    const model = normed();
    const { parameters } = await fitModel(options({ model, judge, epochs: 2 }));
    const statistics = ["norm.running_mean", "norm.running_var"];
    expect(model.statistics()).toEqual(statistics);
    const before = bytes(model.values(statistics));
    for (const name of statistics) expect(bytes(parameters)[name]).not.toBe(before[name]);
    expect(answers).toHaveLength(2);
    const written = new Trainer(runtime, new TrainingModel(model.withValues(parameters)), {
      optimizer: { kind: "sgd" },
    });
    expect(bytes(await written.answers(input)).logits).toBe(answers[1]);
    await written.close();
    const start = await fitModel(options({ model, judge, epochs: 2, patience: 2, mayKeepStart: true }));
    expect(start.epoch).toBe(0);
    expect(bytes(start.parameters)).toMatchObject(before);
  });

  it("leaves alone what has a rate of nothing, and knows every pattern", async () => {
    const before = network().values(["w1", "w2"]);
    const { parameters } = await fitModel(options({ groups: [{ names: "*1", rate: 0 }] }));
    expect(bytes(parameters).w1).toBe(bytes(before).w1);
    expect(bytes(parameters).w2).not.toBe(bytes(before).w2);
    await expect(fitModel(options({ groups: [{ names: "w", rate: 0 }] }))).rejects.toMatchObject({
      ...{ code: "NOT_FOUND", details: { pattern: "w", parameters: ["w1", "w2"] } },
    });
  });

  it("takes the same steps when batches are computed in parts", async () => {
    const sgd = { optimizer: { kind: "sgd" } } as const;
    const whole = await fitModel(options({ ...sgd, batch: 20 }));
    const inParts = await fitModel(options({ ...sgd, batch: 4, accumulate: 5 }));
    expect(inParts.perEpoch).toBe(whole.perEpoch);
    for (const [at, loss] of whole.losses.entries()) expect(inParts.losses[at]).toBeCloseTo(loss, 5);
    const numbers = (fitted: Fitted) =>
      [...fitted.parameters.values()].flatMap(({ data }) => [...data].map(Number));
    const expected = numbers(whole);
    for (const [at, value] of numbers(inParts).entries()) expect(value).toBeCloseTo(expected[at] ?? 0, 5);
    await expect(fitModel(options({ batch: 20, accumulate: 3 }))).rejects.toMatchObject({
      code: "INVALID_ARGUMENT",
    });
  });

  it("stops when it does not become better, with the parameters of the best epoch", async () => {
    const qualities = [0.5, 0.9, 0.8, 0.7, 0.95];
    const seen: string[] = [];
    const stopped = await fitModel(
      options({
        patience: 2,
        judge: async (trainer) => {
          seen.push(JSON.stringify(bytes(await trainer.parameters())));
          return qualities[seen.length - 1] ?? 0;
        },
      }),
    );
    expect(stopped).toMatchObject({ epoch: 2, qualities: [0.5, 0.9, 0.8, 0.7] });
    expect(JSON.stringify(bytes(stopped.parameters))).toBe(seen[1]);
  });

  it("keeps what it began with unless an epoch is better, also after an end in between", async () => {
    const judged = (qualities: readonly number[]) => {
      let at = 0;
      return { patience: 3, mayKeepStart: true, judge: async () => qualities[at++] ?? 0 };
    };
    const fitted = (qualities: readonly number[], changes: Partial<FitOptions<number>> = {}) =>
      fitModel(options({ ...judged(qualities), ...changes }));
    const kept = await fitted([0.5, 0.5, 0.4, 0.5]);
    expect(kept).toMatchObject({ epoch: 0, start: 0.5, qualities: [0.5, 0.4, 0.5] });
    const { parameters } = network();
    expect(bytes(kept.parameters)).toEqual(bytes(network().values(parameters)));
    const better = await fitted([0.5, 0.6, 0.4, 0.5, 0.6]);
    expect(better).toMatchObject({ epoch: 1, start: 0.5, qualities: [0.6, 0.4, 0.5, 0.6] });
    expect(bytes(better.parameters)).not.toEqual(bytes(kept.parameters));

    const checkpoints = () => new Checkpoints(join(folder, "start"), { settings: {}, data: "d", model: "m" });
    const onStep = ({ step }: { step: number }) => {
      if (step === 6) throw new Error("killed");
    };
    await expect(fitted([0.5, 0.5, 0.4], { checkpoints: checkpoints(), onStep })).rejects.toThrow("killed");
    const resumed = await fitted([0.4, 0.5], { checkpoints: checkpoints() });
    expect(resumed).toMatchObject({ epoch: 0, start: 0.5, qualities: [0.5, 0.4, 0.5] });
    expect(bytes(resumed.parameters)).toEqual(bytes(kept.parameters));
    const over = await fitted([], { checkpoints: checkpoints() });
    expect(over).toEqual(resumed);
  });

  it("ends with an error when the loss is no number, and when there is nothing to do", async () => {
    const lost = fitModel(options({ optimizer: { kind: "sgd" }, rate: 1e30 }));
    await expect(lost).rejects.toMatchObject({ code: "DIVERGED" });
    await expect(fitModel(options({ epochs: 0 }))).rejects.toMatchObject({ code: "INVALID_ARGUMENT" });
  });

  it("answers with the parameters as they are", async () => {
    let inside: ReadonlyMap<string, Tensor> = new Map();
    const input = float32([2, 6], x.slice(0, 12));
    const { parameters } = await fitModel(
      options({
        epochs: 1,
        judge: async (trainer) => {
          inside = await trainer.answers(new Map([["x", input]]));
          return 0;
        },
      }),
    );
    const [w1, w2] = ["w1", "w2"].map((name) => parameters.get(name)?.data as Float32Array);
    const expected = [0, 1].flatMap((row) => {
      const hidden = Array.from({ length: 8 }, (_, to) =>
        Math.max(
          0,
          Array.from(
            { length: 6 },
            (_, from) => (x[row * 6 + from] ?? 0) * (w1?.[from * 8 + to] ?? 0),
          ).reduce((a, b) => a + b),
        ),
      );
      return [0, 1, 2].map((to) =>
        hidden.reduce((sum, value, from) => sum + value * (w2?.[from * 3 + to] ?? 0), 0),
      );
    });
    const logits = inside.get("logits")?.data as Float32Array;
    expected.forEach((value, at) => {
      expect(logits[at]).toBeCloseTo(value, 4);
    });
  });
});
