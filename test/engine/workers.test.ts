/** What happens between an engine and its workers: loads beside runs, several workers, workers that die. */
import { afterEach, describe, expect, it } from "vitest";
import { Engine } from "../../src/engine/index.js";
import { readMetadata, withMetadata } from "../../src/onnx/metadata.js";
import { graph, type Model, model, node, valueInfo } from "../../src/onnx/model.js";
import { splitModel } from "../../src/onnx/split.js";
import { weight } from "../../src/onnx/weight.js";
import { Runtime } from "../../src/runtime/runtime.js";
import { float32, type Tensor, toNumbers } from "../../src/tensor/tensor.js";
import { Gate } from "./gated.js";

/** One row of four features, whose values are the image's mean over each channel. */
async function backbone(): Promise<Model> {
  const main = graph("backbone", {
    nodes: [node("Relu", ["image"], ["positive"]), node("GlobalAveragePool", ["positive"], ["mean"])],
    inputs: [valueInfo("image", "float32", ["n", 4, 2, 2])],
    outputs: [valueInfo("mean", "float32", ["n", 4, 1, 1])],
    weights: [],
  });
  return (await splitModel(model(main), { at: ["positive"] })).backbone;
}

/** A head whose only class scores `factor` times the sum of all channels' means. */
function sumHead(of: Model, factor: number, classes = 1): Model {
  const main = graph("head", {
    nodes: [
      node("GlobalAveragePool", ["positive"], ["mean"]),
      node("Flatten", ["mean"], ["flat"]),
      node("Gemm", ["flat", "weight"], ["scores"]),
    ],
    inputs: [valueInfo("positive", "float32", ["n", 4, 2, 2])],
    outputs: [valueInfo("scores", "float32", ["n", classes])],
    weights: [weight("weight", float32([4, classes], new Float32Array(4 * classes).fill(factor)))],
  });
  return withMetadata(model(main), { role: "head", taps: readMetadata(of).taps ?? [] });
}

const image = float32([1, 4, 2, 2], new Float32Array(16).fill(1));
const score = (outputs: Readonly<Record<string, Tensor>>) => {
  const { scores } = outputs;
  if (!scores) throw new Error("no scores");
  return Number(toNumbers(scores)[0]);
};

let engine: Engine | undefined;
afterEach(() => engine?.close());

async function open(gate: Gate, workers: number): Promise<Engine> {
  engine = await Engine.open(await Runtime.open(gate.start, { workers }), { cacheBytes: 0 });
  return engine;
}

describe("an engine and its workers", () => {
  it("loads a head of a known form and switches to it while the worker is in the middle of a run", async () => {
    const gate = new Gate();
    const running = await open(gate, 1);
    const trunk = await backbone();
    await running.add("trunk", trunk);
    await running.add("sum", sumHead(trunk, 1));
    await running.add("other", sumHead(trunk, 2)); // now the mean, which all of them take, stands by itself
    gate.shut();
    const before = running.run(["sum"], image);
    const second = await running.load(sumHead(trunk, 10));
    await running.switch({ sum: second });
    expect(gate.waiting).toBe(1);
    const after = running.run(["sum"], image);
    gate.open();
    expect(score((await before).routes.sum.outputs)).toBe(4);
    expect(score((await after).routes.sum.outputs)).toBe(40);
    expect((await after).routes.sum.revision).toBe(second);
  });

  it("compiles heads of one form once, and gives their tensors back", async () => {
    const gate = new Gate();
    const running = await open(gate, 1);
    const trunk = await backbone();
    await running.add("trunk", trunk);
    await running.add("a", sumHead(trunk, 1));
    await running.add("b", sumHead(trunk, 2));
    const [worker] = gate.workers;
    const made = worker?.creations;
    const revisions = [];
    for (let factor = 3; factor < 40; factor++) revisions.push(await running.load(sumHead(trunk, factor)));
    expect(worker?.creations).toBe(made);
    await running.load(sumHead(trunk, 1, 5)); // another shape is another form
    expect(worker?.creations).toBe((made ?? 0) + 1);
    for (const revision of revisions) await running.unload(revision);
    expect(score((await running.run(["b"], image)).routes.b.outputs)).toBe(8);
  });

  it("answers from a worker that took a dead one's place, with every head's own weights", async () => {
    const gate = new Gate();
    const running = await open(gate, 2);
    const trunk = await backbone();
    await running.add("trunk", trunk);
    for (let factor = 1; factor <= 8; factor++) await running.add(`x${factor}`, sumHead(trunk, factor));
    const routes = Array.from({ length: 8 }, (_, at) => `x${at + 1}`);
    gate.shut();
    const cut = Array.from({ length: 4 }, () => running.run(routes, image));
    for (const worker of gate.workers) worker.die();
    gate.open();
    const outcomes = await Promise.allSettled(cut);
    // What a dead worker had begun fails and says so; what waited is answered by its successor.
    expect(outcomes.filter(({ status }) => status === "rejected")).toHaveLength(2);
    for (const each of outcomes)
      if (each.status === "rejected") expect(each.reason).toMatchObject({ code: "WORKER_LOST" });
    const late = await running.load(sumHead(trunk, 9));
    await running.switch({ x8: late });
    const answers = await Promise.all(Array.from({ length: 6 }, () => running.run(routes, image)));
    for (const { routes: got } of answers)
      for (const [at, route] of routes.entries())
        expect(score(got[route]?.outputs ?? {})).toBe(4 * (route === "x8" ? 9 : at + 1));
    expect(gate.workers.length).toBeGreaterThan(2);
  });
});
