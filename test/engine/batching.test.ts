/** Requests that run together: what they share, what they must not share, who comes first, who is refused. */
import fc from "fast-check";
import { afterEach, describe, expect, it } from "vitest";
import { type Answer, Engine, type EngineOptions } from "../../src/engine/index.js";
import { readMetadata, withMetadata } from "../../src/onnx/metadata.js";
import { graph, type Model, model, type Node, node, valueInfo, type Weight } from "../../src/onnx/model.js";
import { splitModel } from "../../src/onnx/split.js";
import { weight } from "../../src/onnx/weight.js";
import { Runtime } from "../../src/runtime/runtime.js";
import { float32, type Tensor, toNumbers } from "../../src/tensor/tensor.js";
import { Gate } from "./gated.js";

const WIDTH = 6;

/** Features of a small picture: a convolution, and its maximum over the picture. */
async function trunkModel(): Promise<Model> {
  const kernel = Float32Array.from({ length: WIDTH * 3 * 9 }, (_, at) => Math.sin(at * 1.3));
  const main = graph("trunk", {
    nodes: [
      node("Conv", ["image", "kernel"], ["maps"], { pads: [1, 1, 1, 1] }),
      node("Relu", ["maps"], ["features"]),
      node("GlobalMaxPool", ["features"], ["top"]),
    ],
    inputs: [valueInfo("image", "float32", ["n", 3, 5, 5])],
    outputs: [valueInfo("top", "float32", ["n", WIDTH, 1, 1])],
    weights: [weight("kernel", float32([WIDTH, 3, 3, 3], kernel))],
  });
  return (await splitModel(model(main), { at: ["features"] })).backbone;
}

function headModel(
  of: Model,
  nodes: readonly Node[],
  weights: readonly Weight[],
  rows: string | number = "n",
): Model {
  const main = graph("head", {
    nodes: [...nodes],
    inputs: [valueInfo("features", "float32", [rows, WIDTH, 5, 5])],
    outputs: [valueInfo("scores", "float32")],
    weights: [...weights],
  });
  return withMetadata(model(main), { role: "head", taps: readMetadata(of).taps ?? [] });
}

function linear(of: Model, seed: number, rows: string | number = "n"): Model {
  const numbers = Float32Array.from({ length: WIDTH * 3 }, (_, at) => Math.cos(seed * 11 + at));
  const nodes = [
    node("GlobalAveragePool", ["features"], ["mean"]),
    node("Flatten", ["mean"], ["flat"]),
    node("Gemm", ["flat", "w"], ["scores"]),
  ];
  return headModel(of, nodes, [weight("w", float32([WIDTH, 3], numbers))], rows);
}

/** A head that mixes rows: the softmax is over the batch. */
const mixing = (of: Model) =>
  headModel(
    of,
    [
      node("ReduceMean", ["features"], ["m"], { axes: [2, 3] }),
      node("Softmax", ["m"], ["scores"], { axis: 0 }),
    ],
    [],
  );

/** A head that computes on zeros, with which it is tried out, and fails on anything else: no shape fits then. */
const failing = (of: Model) =>
  headModel(
    of,
    [
      node("ReduceMax", ["features"], ["max"], { keepdims: 0 }),
      node("Mul", ["max", "many"], ["more"]),
      node("Add", ["more", "size"], ["sum"]),
      node("Cast", ["sum"], ["count"], { to: 7 }),
      node("Reshape", ["features", "count"], ["scores"]),
    ],
    [weight("many", float32([1], [1e4])), weight("size", float32([1], [WIDTH * 25]))],
  );

const picture = (rows: number, seed: number) =>
  float32(
    [rows, 3, 5, 5],
    Float32Array.from({ length: rows * 75 }, (_, at) => Math.sin(seed * 37 + at * 0.7)),
  );

const scores = (of: Answer, route: string): number[] => {
  const value: Tensor | undefined = of.routes[route]?.outputs.scores;
  if (!value) throw new Error(`no scores of ${route}`);
  return [...toNumbers(value)];
};

function expectClose(got: readonly number[], expected: readonly number[]): void {
  expect(got.length).toBe(expected.length);
  for (const [at, value] of got.entries()) expect(value).toBeCloseTo(expected[at] ?? Number.NaN, 4);
}

const open: Engine[] = [];
afterEach(async () => {
  for (const each of open.splice(0)) await each.close();
});

async function start(gate: Gate, options: EngineOptions = {}): Promise<{ engine: Engine; trunk: Model }> {
  const engine = await Engine.open(await Runtime.open(gate.start), { cacheBytes: 0, ...options });
  open.push(engine);
  const trunk = await trunkModel();
  await engine.add("trunk", trunk);
  return { engine, trunk };
}

/** Makes the pace known, so that batches may be large, and then lets requests pile up behind a run. */
async function block(engine: Engine, gate: Gate): Promise<{ readonly done: Promise<unknown> }> {
  await engine.run(["trunk"], picture(1, 99));
  gate.shut();
  return { done: engine.run(["trunk"], picture(1, 98), { cache: false }) };
}

describe("requests that wait together", () => {
  it("get what they would have got alone, whatever mix of routes, rows and equal inputs they are", async () => {
    const gate = new Gate();
    const { engine, trunk } = await start(gate, { batchMilliseconds: 60_000, cacheBytes: 1e6 });
    await engine.add("a", linear(trunk, 1));
    await engine.add("b", linear(trunk, 2));
    await engine.add("single", linear(trunk, 3, 1)); // takes one row at a time
    await engine.add("mixing", mixing(trunk));
    const routes = ["a", "b", "single", "mixing", "trunk"] as const;
    const request = fc.record({
      routes: fc.uniqueArray(fc.constantFrom(...routes), { minLength: 1, maxLength: 4 }),
      rows: fc.integer({ min: 1, max: 4 }),
      seed: fc.nat(6),
      digest: fc.boolean(),
    });
    let batched = 0;
    await fc.assert(
      fc.asyncProperty(fc.array(request, { minLength: 2, maxLength: 12 }), async (requests) => {
        const alone = [];
        for (const each of requests) {
          alone.push(await engine.run(each.routes, picture(each.rows, each.seed), { cache: false }));
        }
        const blocked = await block(engine, gate);
        const together = requests.map(({ routes: names, rows, seed, digest }) =>
          engine.run(names, picture(rows, seed), digest ? { digest: `${seed} ${rows}` } : { cache: false }),
        );
        await new Promise((resolve) => setTimeout(resolve, 1));
        gate.open();
        await blocked.done;
        for (const [at, got] of (await Promise.all(together)).entries()) {
          const expected = alone[at];
          if (!expected) throw new Error("no answer");
          for (const name of requests[at]?.routes ?? []) {
            expect(got.routes[name]?.revision).toBe(expected.routes[name]?.revision);
            for (const [output, value] of Object.entries(expected.routes[name]?.outputs ?? {})) {
              expect(got.routes[name]?.outputs[output]?.shape).toEqual(value.shape);
              expectClose([...toNumbers(got.routes[name]?.outputs[output] ?? value)], [...toNumbers(value)]);
            }
          }
          if (got.batchRows > (requests[at]?.rows ?? 0)) batched++;
        }
      }),
      { numRuns: 40 },
    );
    expect(batched).toBeGreaterThan(40);
  });

  it("share one run of the backbone, and one row where their inputs are the same", async () => {
    const gate = new Gate();
    const { engine, trunk } = await start(gate, { batchMilliseconds: 60_000, cacheBytes: 1e6 });
    for (let at = 0; at < 4; at++) await engine.add(`h${at}`, linear(trunk, at));
    const blocked = await block(engine, gate);
    const same = [0, 1, 2, 3].map((at) => engine.run([`h${at}`], picture(1, 5), { digest: "five" }));
    const other = engine.run(["h0"], picture(1, 6), { digest: "six" });
    await new Promise((resolve) => setTimeout(resolve, 5));
    gate.open();
    await blocked.done;
    for (const each of await Promise.all(same)) expect(each.batchRows).toBe(2);
    expect((await other).batchRows).toBe(2);
    expect((await engine.run(["h1"], picture(1, 5), { digest: "five" })).cached).toBe(true);
  });

  it("are kept in the cache from their second time on when they come while all workers are busy", async () => {
    const gate = new Gate();
    const { engine, trunk } = await start(gate, { cacheBytes: 1e6 });
    await engine.add("h", linear(trunk, 1));
    const behindARun = async (seed: number) => {
      const blocked = await block(engine, gate);
      const waiting = engine.run(["h"], picture(1, seed));
      await new Promise((resolve) => setTimeout(resolve, 5));
      gate.open();
      await blocked.done;
      return (await waiting).cached;
    };
    expect([await behindARun(1), await behindARun(1), await behindARun(1)]).toEqual([false, false, true]);
    expect(await behindARun(2)).toBe(false);
    // A picture that comes when nothing runs is kept at once.
    await engine.run(["h"], picture(1, 3));
    expect(await behindARun(3)).toBe(true);
  });

  it("are moved rather than copied where their owner allows it, and answered alike", async () => {
    const { engine, trunk } = await start(new Gate(), { cacheBytes: 0 });
    await engine.add("h", linear(trunk, 1));
    const large = () => picture(300, 7);
    const expected = scores(await engine.run(["h"], large()), "h");
    const [kept, given] = [large(), large()];
    expect(scores(await engine.run(["h"], kept), "h")).toEqual(expected);
    expect(scores(await engine.run(["h"], given, { owned: true }), "h")).toEqual(expected);
    expect([kept.data.length, given.data.length]).toEqual([300 * 75, 0]);
  });

  it("do not fail with a neighbour's head", async () => {
    const gate = new Gate();
    const { engine, trunk } = await start(gate, { batchMilliseconds: 60_000 });
    await engine.add("good", linear(trunk, 1));
    await engine.add("bad", failing(trunk));
    const expected = scores(await engine.run(["good"], picture(1, 1)), "good");
    const blocked = await block(engine, gate);
    const [good, failed] = [engine.run(["good"], picture(1, 1)), engine.run(["bad"], picture(1, 2))];
    gate.open();
    await blocked.done;
    expectClose(scores(await good, "good"), expected);
    await expect(failed).rejects.toMatchObject({ code: "RUN_FAILED", details: { route: "bad" } });
  });

  it("are served in turns of their routes, however many one route sends", async () => {
    const gate = new Gate();
    const { engine, trunk } = await start(gate, { batchRows: 1 });
    await engine.add("busy", linear(trunk, 1));
    await engine.add("quiet", linear(trunk, 2));
    const blocked = await block(engine, gate);
    const order: string[] = [];
    const send = (route: string, seed: number) =>
      engine.run([route], picture(1, seed)).then(() => order.push(route));
    const sent = Array.from({ length: 20 }, (_, at) => send("busy", at));
    for (let at = 0; at < 3; at++) sent.push(send("quiet", at));
    gate.open();
    await blocked.done;
    await Promise.all(sent);
    const last = order.lastIndexOf("quiet");
    expect(last).toBeLessThan(8);
  });
});

describe("routes with weights", () => {
  it("get rows in proportion while requests wait", async () => {
    const gate = new Gate();
    const { engine, trunk } = await start(gate, { batchRows: 1, weights: { heavy: 3, absent: 9 } });
    await engine.add("heavy", linear(trunk, 1));
    await engine.add("light", linear(trunk, 2));
    const blocked = await block(engine, gate);
    const order: string[] = [];
    const send = (route: string, seed: number) =>
      engine.run([route], picture(1, seed)).then(() => order.push(route));
    const sent = Array.from({ length: 24 }, (_, at) => [send("light", at), send("heavy", at)]).flat();
    gate.open();
    await blocked.done;
    await Promise.all(sent);
    const early = order.slice(0, 24).filter((route) => route === "heavy").length;
    expect(early).toBeGreaterThanOrEqual(17);
    expect(early).toBeLessThanOrEqual(19);
  });

  it("are refused when they are not positive", async () => {
    await expect(start(new Gate(), { weights: { heavy: 0 } })).rejects.toMatchObject({
      code: "INVALID_ARGUMENT",
    });
  });
});

describe("a request that cannot be answered", () => {
  it("is refused at once when too many wait, with the time to come back", async () => {
    const gate = new Gate();
    const { engine } = await start(gate, { queueLimit: 2 });
    const blocked = await block(engine, gate);
    const waiting = [1, 2].map((seed) => engine.run(["trunk"], picture(1, seed)));
    await new Promise((resolve) => setTimeout(resolve, 5));
    await expect(engine.run(["trunk"], picture(1, 3))).rejects.toMatchObject({
      code: "OVERLOADED",
      details: { retryAfter: expect.any(Number) },
    });
    gate.open();
    await Promise.all([blocked.done, ...waiting]);
    await engine.run(["trunk"], picture(1, 4));
  });

  it("is refused when it has waited too long after all, and nothing runs for it", async () => {
    const gate = new Gate();
    const { engine } = await start(gate, { queueMilliseconds: 20 });
    const blocked = await block(engine, gate);
    const late = engine.run(["trunk"], picture(1, 1));
    late.catch(() => {});
    await new Promise((resolve) => setTimeout(resolve, 50));
    gate.open();
    await expect(late).rejects.toMatchObject({ code: "OVERLOADED", details: { retryAfter: 1 } });
    await blocked.done;
    await engine.run(["trunk"], picture(1, 2));
  });

  it("leaves the queue when its time is over or its caller gives up, and nothing runs for it", async () => {
    const gate = new Gate();
    const { engine } = await start(gate);
    const blocked = await block(engine, gate);
    const gaveUp = new AbortController();
    const late = engine.run(["trunk"], picture(1, 1), { timeout: 1 });
    const abandoned = engine.run(["trunk"], picture(1, 2), { signal: gaveUp.signal });
    await expect(late).rejects.toMatchObject({ code: "DEADLINE_EXCEEDED" });
    gaveUp.abort();
    await expect(abandoned).rejects.toMatchObject({ code: "ABORTED" });
    expect(engine.work).toEqual({ queued: 0, running: 1 });
    gate.open();
    await blocked.done;
  });
});

describe("a route of several revisions", () => {
  it("gives each its share, and a key always the same one", async () => {
    const gate = new Gate();
    const { engine, trunk } = await start(gate);
    const main = await engine.add("food", linear(trunk, 1));
    const canary = await engine.load(linear(trunk, 2));
    await engine.switch({
      food: {
        revisions: [
          { revision: main, weight: 3 },
          { revision: canary, weight: 1 },
        ],
      },
    });
    const byKey = new Map<string, string>();
    for (let at = 0; at < 400; at++) {
      const { routes } = await engine.run(["food"], picture(1, 1), { key: `caller ${at}` });
      byKey.set(`caller ${at}`, routes.food.revision);
    }
    const share = [...byKey.values()].filter((revision) => revision === canary).length / byKey.size;
    expect(share).toBeGreaterThan(0.15);
    expect(share).toBeLessThan(0.35);
    for (const key of ["caller 1", "caller 2", "caller 3"]) {
      const { routes } = await engine.run(["food"], picture(1, 2), { key });
      expect(routes.food.revision).toBe(byKey.get(key));
    }
    await expect(engine.unload(canary)).rejects.toThrow(/food/);
    expect(await engine.rollback("food")).toBe(main);
    await engine.unload(canary);
  });

  it("runs shadows on the same features, which neither answer nor fail a request", async () => {
    const gate = new Gate();
    const { engine, trunk } = await start(gate);
    const main = await engine.add("food", linear(trunk, 1));
    const shadow = await engine.load(linear(trunk, 2));
    const plain = scores(await engine.run(["food"], picture(2, 1)), "food");
    await engine.switch({ food: { revisions: [{ revision: main, weight: 1 }], shadows: [shadow] } });
    const { routes } = await engine.run(["food"], picture(2, 1));
    expect(routes.food.revision).toBe(main);
    expectClose([...toNumbers(routes.food.outputs.scores ?? float32([0], []))], plain);
    const [seen] = routes.food.shadows;
    expect(seen?.revision).toBe(shadow);
    await engine.switch({ food: shadow });
    const own = await engine.run(["food"], picture(2, 1));
    expectClose([...toNumbers(seen?.outputs?.scores ?? float32([0], []))], scores(own, "food"));
    expect(own.routes.food.shadows).toEqual([]);
  });

  it("refuses shares that are none", async () => {
    const gate = new Gate();
    const { engine, trunk } = await start(gate);
    const main = await engine.add("food", linear(trunk, 1));
    for (const weight of [0, -1, Number.NaN, Number.POSITIVE_INFINITY])
      await expect(
        engine.switch({ food: { revisions: [{ revision: main, weight }] } }),
      ).rejects.toMatchObject({
        code: "INVALID_ARGUMENT",
      });
    await expect(engine.switch({ food: { revisions: [] } })).rejects.toMatchObject({
      code: "INVALID_ARGUMENT",
    });
    expect(engine.routes.get("food")).toBe(main);
  });
});
