/** Canaries on trial: limits of errors, latency and agreement, judged from the day that the route was pointed at them. */
import fc from "fast-check";
import { afterEach, describe, expect, it } from "vitest";
import { readMetadata, withMetadata } from "../../src/onnx/metadata.js";
import { graph, type Model, model, node, valueInfo } from "../../src/onnx/model.js";
import { weight } from "../../src/onnx/weight.js";
import { modelBytes } from "../../src/onnx/write.js";
import type { Deployment } from "../../src/server/deployment.js";
import type { CanaryLimits } from "../../src/server/service.js";
import { type Observation, Trials } from "../../src/server/trials.js";
import { float32 } from "../../src/tensor/tensor.js";
import { backbone, deploy, endDeployments, head, image, newFolder, scoresOf } from "./small-deployment.js";

afterEach(endDeployments);

const author = { by: "test" };
/** A row whose means are 9 and 0. */
const other = float32([1, 2, 2, 2], [9, 9, 9, 9, 0, 0, 0, 0]);

/** Looks the means up in a table of four, and fails for larger ones. */
function table(of: Model): Model {
  const main = graph("table", {
    nodes: [
      node("Flatten", ["mean"], ["flat"]),
      node("Cast", ["flat"], ["places"], { to: 7n }),
      node("Gather", ["values", "places"], ["scores"]),
    ],
    inputs: [valueInfo("mean", "float32", ["n", 2, 1, 1])],
    outputs: [valueInfo("scores", "float32", ["n", 2])],
    weights: [weight("values", float32([4], [0, 1, 2, 3]))],
  });
  return withMetadata(model(main), { role: "head", taps: readMetadata(of).taps ?? [], labels: ["a", "b"] });
}

/** A route `food` with a canary that gets next to all requests. */
async function trial(canaryOf: (trunk: Model) => Model, limits: CanaryLimits) {
  const trunk = await backbone();
  const running = await deploy(await newFolder());
  await running.addModel(modelBytes(trunk), "trunk", author);
  const main = await running.addModel(modelBytes(head(trunk, [1, 0, 0, 1])), "food", author);
  const canary = await running.addModel(modelBytes(canaryOf(trunk)), "food", author);
  const revisions = [
    { revision: main, weight: 1 },
    { revision: canary, weight: 1e9 },
  ];
  const begin = () => running.setTargets({ food: { revisions, shadows: [], limits } }, author);
  await begin();
  return { running, main, canary, begin };
}

const ask = (of: Deployment, row = image) =>
  of.infer({ routes: ["food"], inputs: { image: row }, cache: false });

/** Behind whatever changes are under way, because changes go one after the other. */
const settled = (of: Deployment) => of.setTargets({}, author);

describe("a canary", () => {
  it("is rolled back when too few of its rows agree with the main revision, which runs beside it", async () => {
    const { running, main, canary } = await trial((trunk) => head(trunk, [0, 1, 1, 0]), {
      requests: 3,
      agreement: 0.9,
    });
    for (let at = 0; at < 2; at++) {
      const { routes } = await ask(running);
      expect([routes.food?.revision, scoresOf(routes.food?.outputs)]).toEqual([canary, [3, 1]]);
    }
    await settled(running);
    expect(running.route("food").revisions).toHaveLength(2);
    expect(running.route("food").comparisons).toMatchObject([
      { revision: canary, rows: 2, agreement: 0, meanDifference: 2, maxDifference: 2, failed: 0 },
    ]);
    expect(running.metrics()).toContain(
      `polyhead_shadow_agreement{route="food",revision="${canary.slice(0, 12)}"} 0\n`,
    );
    await ask(running);
    await settled(running);
    expect(running.route("food").revisions).toEqual([{ revision: main, weight: 1 }]);
    expect(running.history("food")[0]).toMatchObject({
      by: "polyhead",
      action: "rollback",
      reason: expect.stringMatching(
        /crossed its limits: its 3 rows agree to 0 % with the main revision's, less than 90 %/,
      ),
    });
    expect((await ask(running)).routes.food?.revision).toBe(main);
  });

  it("stays while it agrees, and nothing runs beside it without a limit of agreement", async () => {
    const { running, canary, begin } = await trial((trunk) => head(trunk, [2, 0, 0, 2]), {
      requests: 1,
      agreement: 1,
      errorRate: 0,
    });
    for (let at = 0; at < 5; at++) await ask(running);
    await settled(running);
    expect(running.route("food").revisions[1]?.revision).toBe(canary);
    expect(running.route("food").comparisons).toMatchObject([{ rows: 5, agreement: 1 }]);
    const [first, second] = running.route("food").revisions;
    if (!first || !second) throw new Error("no canary");
    await running.setTargets(
      { food: { revisions: [first, second], shadows: [], limits: { requests: 1, errorRate: 0 } } },
      author,
    );
    await ask(running);
    expect(running.route("food").comparisons).toEqual([]);
    await begin();
    expect(running.route("food").comparisons).toMatchObject([{ rows: 5 }]);
  });

  it("is rolled back when it fails too often, and begins anew when it is tried again", async () => {
    const { running, main, canary, begin } = await trial(table, { requests: 4, errorRate: 0.5 });
    for (let at = 0; at < 3; at++)
      await expect(ask(running, other)).rejects.toMatchObject({ code: "RUN_FAILED" });
    await settled(running);
    expect(running.route("food").revisions).toHaveLength(2);
    await ask(running);
    await settled(running);
    expect(running.route("food").revisions).toEqual([{ revision: main, weight: 1 }]);
    expect(running.history("food")[0]?.reason).toMatch(/3 of 4 requests failed, more than 50 %/);
    await begin();
    for (let at = 0; at < 4; at++) expect((await ask(running)).routes.food?.revision).toBe(canary);
    await settled(running);
    expect(running.route("food").revisions).toHaveLength(2);
  });

  it("of a head that neither classifies nor embeds has no limit of agreement", async () => {
    await expect(
      trial((trunk) => head(trunk, [3, 0, 0, 3]), { requests: 1, agreement: 0.5 }),
    ).resolves.toBeDefined();
    const trunk = await backbone();
    const running = await deploy(await newFolder());
    await running.addModel(modelBytes(trunk), "trunk", author);
    const tasked = (factor: number) =>
      modelBytes(withMetadata(head(trunk, [factor, 0, 0, 1]), { task: "detection" }));
    const main = await running.addModel(tasked(1), "boxes", author);
    const canary = await running.addModel(tasked(2), "boxes", author);
    const revisions = [
      { revision: main, weight: 1 },
      { revision: canary, weight: 1 },
    ];
    const limits = { requests: 1, agreement: 0.5 };
    await expect(
      running.setTargets({ boxes: { revisions, shadows: [], limits } }, author),
    ).rejects.toMatchObject({ code: "INVALID_ARGUMENT", message: expect.stringMatching(/agreement/) });
  });
});

describe("a trial", () => {
  const [main, canary] = ["a".repeat(64), "b".repeat(64)];
  const observation = fc.record({
    milliseconds: fc.nat(100),
    failed: fc.boolean(),
    compared: fc.nat(3),
    agreed: fc.nat(3),
  });

  it("judges exactly what stands in its limits, once there are requests enough", () => {
    fc.assert(
      fc.property(
        fc.array(observation, { maxLength: 40 }),
        fc.integer({ min: 1, max: 20 }),
        fc.double({ min: 0, max: 1, noNaN: true }),
        fc.integer({ min: 1, max: 100 }),
        fc.double({ min: 0, max: 1, noNaN: true }),
        (given, minRequests, maxErrorRate, maxLatency, minAgreement) => {
          const seen = given.map(
            (each): Observation => ({ ...each, agreed: Math.min(each.agreed, each.compared) }),
          );
          const trials = new Trials();
          const limits = { minRequests, maxErrorRate, maxLatency, minAgreement };
          const targets = [main, canary].map((revision) => ({ revision, weight: 1 }));
          trials.follow(new Map([["food", { targets, limits }]]));
          for (const each of seen) trials.observe("food", canary, each);
          trials.observe("food", main, { milliseconds: 1e6, failed: true, compared: 1, agreed: 0 });
          const sum = (value: (each: Observation) => number) =>
            seen.reduce((total, each) => total + value(each), 0);
          const times = seen.filter(({ failed }) => !failed).map(({ milliseconds }) => milliseconds);
          const slowest = times.sort((a, b) => a - b)[Math.floor(0.99 * (times.length - 1))] ?? 0;
          const isOver =
            seen.length >= minRequests &&
            (sum(({ failed }) => Number(failed)) / seen.length > maxErrorRate ||
              slowest > maxLatency ||
              sum(({ agreed }) => agreed) < minAgreement * sum(({ compared }) => compared));
          expect(trials.verdict("food", canary) !== undefined).toBe(isOver);
          expect(trials.verdict("food", main)).toBeUndefined();
        },
      ),
    );
  });
});
