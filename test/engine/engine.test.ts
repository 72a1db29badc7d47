/** The promises of a switch, on real models: the family of fixtures, split and whole. */
import { readFileSync } from "node:fs";
import { join } from "node:path";
import { afterEach, beforeAll, describe, expect, it } from "vitest";
import type { Answer, Engine } from "../../src/engine/index.js";
import { loadModel } from "../../src/files/disk.js";
import { openEngine } from "../../src/index.js";
import { readMetadata, withMetadata } from "../../src/onnx/metadata.js";
import { float, graph, type Model, model, node, valueInfo } from "../../src/onnx/model.js";
import { splitModel } from "../../src/onnx/split.js";
import { weight } from "../../src/onnx/weight.js";
import { readNpz } from "../../src/tensor/npz.js";
import { float32, type Tensor } from "../../src/tensor/tensor.js";
import { fixturesDir, hasFixtures } from "../fixtures.js";

const NAMES = ["animals", "flowers", "weather", "defects", "stranger"] as const;
const CUT = "/avgpool/GlobalAveragePool_output_0";

let engine: Engine;
afterEach(() => engine?.close());

function largestDifference(a: Tensor | undefined, b: Tensor | undefined): number {
  if (!a || !b || a.data.length !== b.data.length) return Number.POSITIVE_INFINITY;
  const [left, right] = [a.data as Float32Array, b.data as Float32Array];
  return left.reduce((worst, value, at) => Math.max(worst, Math.abs(value - (right[at] ?? Number.NaN))), 0);
}

/** The elements of an output that is a float32 tensor. */
function elements(value: Tensor | undefined): Float32Array {
  if (value?.data instanceof Float32Array) return value.data;
  throw new Error("no float32 tensor");
}

/** A linear head over a tap of shape [batch, width, 1, 1]. */
function linearHead(backbone: Model, tapName: string, classes: number, scale: number): Model {
  const tap = readMetadata(backbone).taps?.find(({ name }) => name === tapName);
  const width = Number(tap?.shape[1]);
  const weights = Float32Array.from({ length: width * classes }, (_, at) => scale * Math.sin(at));
  const main = graph("linear", {
    nodes: [
      node("Flatten", ["feature"], ["flat"]),
      node("Gemm", ["flat", "weight"], ["scores"], { alpha: float(1) }),
    ],
    inputs: [valueInfo("feature", "float32", ["batch", width, 1, 1])],
    outputs: [valueInfo("scores", "float32", ["batch", classes])],
    weights: [weight("weight", float32([width, classes], weights))],
  });
  return withMetadata(model(main), { role: "head", taps: tap ? [tap] : [] });
}

describe.skipIf(!hasFixtures)("an engine over the fixture family", () => {
  let models: Map<string, Model>;
  let goldens: ReadonlyMap<string, Tensor>;
  let input: Tensor;

  beforeAll(async () => {
    const family = join(fixturesDir, "family");
    models = new Map(
      await Promise.all(
        NAMES.map(async (name) => [name, await loadModel(join(family, `${name}.onnx`))] as const),
      ),
    );
    goldens = readNpz(readFileSync(join(family, "goldens.npz")));
    const given = goldens.get("input");
    if (!given) throw new Error("no input among the goldens");
    input = given;
  });

  const monolith = (name: string): Model => {
    const found = models.get(name);
    if (!found) throw new Error(name);
    return found;
  };
  const split = async () => splitModel(monolith("animals"), { at: [CUT] });

  it("answers five monoliths from one run in which every shared node runs once", async () => {
    engine = await openEngine();
    for (const name of NAMES) await engine.add(name, monolith(name));
    const answer = await engine.run(NAMES, input);
    for (const name of NAMES)
      expect(largestDifference(answer.routes[name].outputs.logits, goldens.get(name)), name).toBeLessThan(
        1e-5,
      );
    const nodes = engine.segments.reduce((sum, segment) => sum + segment.nodes, 0);
    const whole = NAMES.reduce((sum, name) => sum + monolith(name).graph.node.length, 0);
    expect(nodes).toBeLessThan(whole - 3 * 20);
    expect(answer.ran).toHaveLength(engine.segments.length);
    const trunk = engine.segments.find(({ usedBy }) => usedBy.length === 2);
    expect(trunk?.usedBy).toEqual([engine.routes.get("animals"), engine.routes.get("flowers")]);
  });

  it("runs only the segments that the named routes need", async () => {
    engine = await openEngine();
    for (const name of NAMES) await engine.add(name, monolith(name));
    const { ran } = await engine.run(["stranger"], input, { cache: false });
    expect(ran.map(({ usedBy }) => usedBy)).toEqual([[engine.routes.get("stranger")]]);
  });

  it("switches heads on cached features, and every answer names its revision", async () => {
    engine = await openEngine();
    const { backbone, heads } = await split();
    await engine.add("backbone", backbone);
    const first = await engine.add("animals", heads[0]?.model ?? backbone);
    const answer = await engine.run(["animals"], input);
    expect(answer.cached).toBe(false);
    expect(largestDifference(answer.routes.animals.outputs.logits, goldens.get("animals"))).toBeLessThan(
      1e-5,
    );
    const second = await engine.load(linearHead(backbone, CUT, 3, 0.1));
    await engine.switch({ animals: second });
    const switched = await engine.run(["animals"], { ...input });
    expect(switched.cached).toBe(true);
    expect(switched.ran.some(({ usedBy }) => usedBy.includes(engine.routes.get("backbone") ?? ""))).toBe(
      false,
    );
    expect(switched.routes.animals.revision).toBe(second);
    expect(switched.routes.animals.outputs.scores?.shape).toEqual([2, 3]);
    expect(switched.generation).toBeGreaterThan(answer.generation);
    expect(await engine.rollback("animals")).toBe(first);
    const back = await engine.run(["animals"], input);
    expect(back.routes.animals.outputs.logits?.data).toEqual(answer.routes.animals.outputs.logits?.data);
    await expect(engine.rollback("animals")).rejects.toMatchObject({ code: "NOT_FOUND" });
  });

  it("keeps cached features from callers who change what they get", async () => {
    engine = await openEngine();
    const { backbone } = await split();
    await engine.add("backbone", backbone);
    await engine.add("head", linearHead(backbone, CUT, 3, 0.1));
    const clean = await engine.run(["head", "backbone"], input);
    const expected = [...elements(clean.routes.head.outputs.scores)];
    for (let time = 0; time < 2; time++) {
      const { routes } = await engine.run(["head", "backbone"], input);
      expect([...elements(routes.head.outputs.scores)]).toEqual(expected);
      elements(routes.backbone.outputs[CUT]).fill(7);
    }
  });

  describe("with an adapter", () => {
    /** From one split's tap to the other's: a scaled copy. */
    function adapterBetween(from: Model, to: Model, scale: number): Model {
      const [taps, produces] = [from, to].map((each) => readMetadata(each).taps ?? []);
      const shape = ["batch", taps?.[0]?.shape[1] ?? 0, 1, 1];
      const main = graph("adapter", {
        nodes: [node("Mul", ["in", "scale"], ["out"])],
        inputs: [valueInfo("in", "float32", shape)],
        outputs: [valueInfo("out", "float32", shape)],
        weights: [weight("scale", float32([], [scale]))],
      });
      return withMetadata(model(main), { role: "adapter", taps, produces });
    }

    it("binds a head to the adapter that stands in for its tap, and names it in the answer", async () => {
      engine = await openEngine();
      const { backbone } = await split();
      const other = await splitModel(monolith("stranger"), { at: [CUT] });
      const stranger = other.heads[0]?.model ?? backbone;
      const first = await engine.add("backbone", backbone);
      const second = await engine.add("adapter", adapterBetween(backbone, other.backbone, 0.5));
      await engine.add("stranger", stranger);
      const answer = await engine.run(["backbone", "adapter", "stranger"], input);
      const { adapter, stranger: through } = answer.routes;
      expect([adapter.through, through.through]).toEqual([[first], [first, second]]);
      const halves = elements(answer.routes.backbone.outputs[CUT]).map((value) => value * 0.5);
      expect(elements(adapter.outputs.out)).toEqual(halves);

      // The head alone, on what the adapter gave.
      const alone = await openEngine();
      await alone.add("head", withMetadata(stranger, { role: undefined, taps: undefined }));
      const expected = await alone.run(["head"], adapter.outputs.out ?? input);
      await alone.close();
      expect(largestDifference(through.outputs.logits, expected.routes.head.outputs.logits)).toBeLessThan(
        1e-5,
      );
    });

    it("takes the real tap where it is made, and refuses two adapters unless bound by name", async () => {
      engine = await openEngine();
      const { backbone } = await split();
      const other = await splitModel(monolith("stranger"), { at: [CUT] });
      const stranger = other.heads[0]?.model ?? backbone;
      await engine.add("backbone", backbone);
      await engine.add("half", adapterBetween(backbone, other.backbone, 0.5));
      await engine.add("third", adapterBetween(backbone, other.backbone, 1 / 3));
      await expect(engine.add("stranger", stranger)).rejects.toMatchObject({ code: "HEAD_MISMATCH" });
      const name = stranger.graph.input[0]?.name ?? "";
      await engine.add("bound", stranger, { bind: { [name]: "out" } });
      const real = await engine.add("real", other.backbone);
      await engine.add("stranger", withMetadata(stranger, { task: "unbound" }));
      const { routes } = await engine.run(["stranger"], input);
      expect(routes.stranger.through).toEqual([real]);
      expect(largestDifference(routes.stranger.outputs.logits, goldens.get("stranger"))).toBeLessThan(1e-4);
    });
  });

  it("refuses a head made for another backbone by name, with both identities", async () => {
    engine = await openEngine();
    const { backbone } = await split();
    const other = await splitModel(monolith("stranger"), { at: [CUT] });
    await engine.add("backbone", backbone);
    const before = engine.generation;
    const stranger = other.heads[0]?.model ?? backbone;
    const refused = engine.add("stranger", stranger);
    await expect(refused).rejects.toMatchObject({ code: "HEAD_MISMATCH" });
    await expect(refused).rejects.toThrow(readMetadata(stranger).taps?.[0]?.identity);
    await expect(refused).rejects.toThrow(readMetadata(backbone).taps?.[0]?.identity);
    expect(engine.generation).toBe(before);
    const name = stranger.graph.input[0]?.name ?? "";
    await engine.add("stranger", stranger, { bind: { [name]: CUT } });
    const { routes } = await engine.run(["stranger"], input);
    expect(routes.stranger.outputs.logits?.shape).toEqual([2, 10]);
  });

  it("does not run the rest of the backbone for a head on an early tap", async () => {
    engine = await openEngine();
    const index = monolith("animals").graph.node.findIndex(({ opType }) => opType === "Add");
    const early = monolith("animals").graph.node[index]?.output[0] ?? "";
    const parts = await splitModel(monolith("animals"), { at: [early] });
    const whole = await split();
    await engine.add("whole", monolith("animals"));
    await engine.add("backbone", whole.backbone);
    await engine.add("early", parts.backbone);
    const { ran } = await engine.run(["early"], input);
    expect(ran).toHaveLength(1);
    const { ran: all } = await engine.run(["whole"], input, { cache: false });
    expect(all.length).toBeGreaterThan(1);
  });

  it("changes nothing when a load fails", async () => {
    engine = await openEngine();
    const { backbone } = await split();
    await engine.add("backbone", backbone);
    const before = { generation: engine.generation, segments: engine.segments };
    const broken = linearHead(backbone, CUT, 3, 0.1);
    const gemm = broken.graph.node[1];
    if (gemm) gemm.opType = "NoSuchOperator";
    await expect(engine.add("broken", broken)).rejects.toMatchObject({
      code: expect.stringMatching(/LOAD_FAILED|MODEL_UNSUPPORTED/),
    });
    expect({ generation: engine.generation, segments: engine.segments }).toEqual(before);
    expect((await engine.run(["backbone"], input)).routes.backbone.outputs[CUT]?.shape.slice(0, 2)).toEqual([
      2,
      expect.any(Number),
    ]);
  });

  it("loads equal models once, however many ask at a time", async () => {
    engine = await openEngine();
    const { backbone } = await split();
    await engine.add("backbone", backbone);
    const head = linearHead(backbone, CUT, 3, 0.1);
    const revisions = await Promise.all([engine.load(head), engine.load(head), engine.load(head)]);
    expect(new Set(revisions).size).toBe(1);
    expect(engine.models).toHaveLength(2);
  });

  it("never mixes generations while routes switch under traffic", async () => {
    engine = await openEngine({ cacheBytes: 0 });
    const { backbone } = await split();
    await engine.add("backbone", backbone);
    const scales = [0.1, 0.2, 0.3];
    const revisions = await Promise.all(
      scales.map((scale) => engine.load(linearHead(backbone, CUT, 3, scale))),
    );
    const [one = "", two = ""] = revisions;
    await engine.add("a", linearHead(backbone, CUT, 3, 0.1));
    await engine.add("b", linearHead(backbone, CUT, 3, 0.1));
    const expected = new Map<string, Float32Array>();
    for (const revision of revisions) {
      await engine.switch({ a: revision, b: revision });
      const { routes } = await engine.run(["a"], input);
      expected.set(revision, elements(routes.a.outputs.scores));
    }
    expect(new Set([...expected.values()].map(String)).size).toBe(3);
    const answers: Promise<Answer<"a" | "b">>[] = [];
    for (let at = 0; at < 300; at++) {
      if (at % 10 === 0) await engine.switch(at % 20 === 0 ? { a: one, b: one } : { a: two, b: two });
      answers.push(engine.run(["a", "b"], input));
      if (at % 50 === 49) await Promise.all(answers);
    }
    for (const { routes } of await Promise.all(answers)) {
      expect(routes.a.revision).toBe(routes.b.revision);
      for (const route of [routes.a, routes.b])
        expect(route.outputs.scores?.data).toEqual(expected.get(route.revision));
    }
  });

  it("unloads what no route needs, once, and refuses the rest by name", async () => {
    engine = await openEngine();
    const { backbone } = await split();
    await engine.add("backbone", backbone);
    const before = engine.segments;
    const revision = await engine.add("head", linearHead(backbone, CUT, 3, 0.1));
    await expect(engine.unload(revision)).rejects.toThrow(/head/);
    await engine.remove("head");
    await engine.unload(revision);
    await expect(engine.unload(revision)).rejects.toMatchObject({ code: "NOT_FOUND" });
    expect(engine.segments).toEqual(before);
    await expect(engine.run(["head"], input)).rejects.toMatchObject({ code: "NOT_FOUND" });
  });

  it("checks inputs by name, dtype and shape", async () => {
    engine = await openEngine();
    await engine.add("animals", monolith("animals"));
    const wrong = [
      { nothing: input },
      {},
      { input: float32([2, 3, 64], new Float32Array(2 * 3 * 64)) },
      { input: { ...input, dtype: "float64" as const } },
    ];
    for (const each of wrong)
      await expect(engine.run(["animals"], each)).rejects.toMatchObject({ code: "INPUT_MISMATCH" });
  });

  it("gives up when the caller does, and refuses work once closed", async () => {
    engine = await openEngine();
    await engine.add("animals", monolith("animals"));
    await expect(engine.run(["animals"], input, { signal: AbortSignal.abort() })).rejects.toMatchObject({
      code: "ABORTED",
    });
    const running = engine.run(["animals"], input);
    await engine.close();
    expect((await running).routes.animals.outputs.logits).toBeDefined();
    await expect(engine.run(["animals"], input)).rejects.toMatchObject({ code: "CLOSED" });
  });
});
