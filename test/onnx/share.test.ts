/** What models of one family have in common is found, and nothing else. */
import { join } from "node:path";
import { describe, expect, it } from "vitest";
import { loadModel } from "../../src/files/disk.js";
import { graph, model, node, valueInfo } from "../../src/onnx/model.js";
import { shareReport } from "../../src/onnx/share.js";
import { fixturesDir, hasFixtures } from "../fixtures.js";

const load = (names: readonly string[]) =>
  Promise.all(
    names.map(async (name) => ({
      name,
      model: await loadModel(join(fixturesDir, "family", `${name}.onnx`)),
    })),
  );

describe.skipIf(!hasFixtures)("the family of models (fixtures)", () => {
  it("shares its trunk as deep as it was frozen", async () => {
    const models = await load(["animals", "flowers", "weather", "defects", "stranger"]);
    const { segments } = await shareReport(models);
    const nodes = new Map(segments.map((segment) => [segment.usedBy.join(" "), segment.nodes]));
    // Counted by hand: conv1, relu, maxpool, layer1 (5 nodes), layer2 to layer4 (6 each), pool, flatten, classifier.
    expect(nodes).toEqual(
      new Map([
        ["animals flowers weather defects", 14],
        ["animals flowers weather", 6],
        ["animals flowers", 8],
        ["animals", 1],
        ["flowers", 1],
        ["weather", 9],
        ["defects", 15],
        ["stranger", 29],
      ]),
    );
  });

  it("counts the parameters of the trunk once", async () => {
    const models = await load(["animals", "flowers"]);
    const { parameters, segments } = await shareReport(models);
    const stored = models.map(({ model: of }) =>
      of.graph.initializer.reduce((sum, { dims }) => sum + dims.map(Number).reduce((a, b) => a * b, 1), 0),
    );
    expect(parameters.separate).toBe((stored[0] ?? 0) + (stored[1] ?? 0));
    const heads = [64 * 10 + 10, 64 * 17 + 17];
    expect(parameters.shared).toBe((stored[0] ?? 0) + (heads[1] ?? 0));
    expect(segments.map((segment) => segment.parameters).slice(1)).toEqual(heads);
  });

  it("counts the work of the trunk once", async () => {
    const { flops, segments } = await shareReport(await load(["animals", "flowers"]));
    const [trunk, ...heads] = segments.map((segment) => segment.flops);
    expect(heads).toEqual([2 * 64 * 10, 2 * 64 * 17]);
    expect(flops.separate - flops.shared).toBe(trunk);
  });

  it("finds nothing with a stranger", async () => {
    const { segments, parameters } = await shareReport(await load(["animals", "stranger"]));
    expect(segments.map(({ usedBy }) => usedBy)).toEqual([["animals"], ["stranger"]]);
    expect(parameters.shared).toBe(parameters.separate);
  });
});

it("refuses two models of one name", async () => {
  const relu = model(
    graph("g", {
      nodes: [node("Relu", ["x"], ["y"])],
      inputs: [valueInfo("x", "float32", [1])],
      outputs: [valueInfo("y", "float32", [1])],
      weights: [],
    }),
  );
  const twice = [
    { name: "a", model: relu },
    { name: "a", model: relu },
  ];
  await expect(shareReport(twice)).rejects.toMatchObject({ code: "ALREADY_EXISTS" });
});
