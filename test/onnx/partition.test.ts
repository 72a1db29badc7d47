/** Canonical graphs, partitions and extracted parts of random graphs, against the recipes and against ONNX Runtime. */

import fc from "fast-check";
import { describe, expect, it } from "vitest";
import type { PolyheadError } from "../../src/base/errors.js";
import { type CanonicalNode, canonicalGraph } from "../../src/onnx/canonical.js";
import { extract } from "../../src/onnx/extract.js";
import { GraphIndex } from "../../src/onnx/graph.js";
import { identify } from "../../src/onnx/identity.js";
import { inlined } from "../../src/onnx/inline.js";
import {
  graph,
  type Model,
  model,
  type Node,
  node,
  type ValueInfo,
  valueInfo,
} from "../../src/onnx/model.js";
import { neededNodes, partition, type Segment } from "../../src/onnx/partition.js";
import { segmentModel } from "../../src/onnx/segment-model.js";
import { inferTypes } from "../../src/onnx/shapes.js";
import { weight } from "../../src/onnx/weight.js";
import { float32, type Tensor } from "../../src/tensor/tensor.js";
import { call, define, withFunctions } from "./functions.js";
import {
  INPUTS,
  madeBy,
  nameOf,
  PLAIN,
  type Recipe,
  recipes,
  type Style,
  styles,
  written,
} from "./recipes.js";
import { useRuntime } from "./runtime.js";

const open = useRuntime();

const given: readonly Tensor[] = [float32([2, 2], [0.5, -1, 2, 0.25]), float32([2, 2], [-0.75, 1, 0, 3])];

async function run(of: Model, inputs: ReadonlyMap<string, Tensor>): Promise<ReadonlyMap<string, Tensor>> {
  const opened = await open(of, "off");
  try {
    return await opened.run(inputs);
  } finally {
    await opened.close();
  }
}

function inputsOf(style: Style): Map<string, Tensor> {
  return new Map(given.map((value, at) => [nameOf(style, at), value]));
}

/** Models that begin alike and end each in its own way, written in different styles. */
const families = fc
  .tuple(recipes, fc.array(fc.tuple(recipes, styles, fc.nat()), { minLength: 1, maxLength: 3 }))
  .map(([trunk, branches]) =>
    branches.map(([branch, style, pick]) => {
      const shared = trunk.nodes.length;
      const base = INPUTS + trunk.weights.length;
      const later = branch.nodes.map((each, at) => ({
        ...each,
        reads: each.reads.map((value) => (value + pick) % (base + shared + at)),
      }));
      const recipe: Recipe = { weights: trunk.weights, nodes: [...trunk.nodes, ...later] };
      // The last value, and now and then one of the trunk as well.
      const outputs = [...new Set([madeBy(recipe, recipe.nodes.length - 1), madeBy(recipe, pick % shared)])];
      return { recipe, style: { ...style, opset: 17 }, outputs };
    }),
  );

async function prepare(name: string, file: Model) {
  const model = inlined(file);
  const identities = await identify(model);
  const graph = canonicalGraph(new GraphIndex(model.graph), identities);
  const types = new Map(
    [...inferTypes(model)].flatMap(([value, type]) => {
      const identity = identities.get(value);
      return identity === undefined ? [] : [[identity, type] as const];
    }),
  );
  return { name, model, graph, types };
}

async function prepared(family: readonly { recipe: Recipe; style: Style; outputs: readonly number[] }[]) {
  const members = await Promise.all(
    family.map(async ({ recipe, style, outputs }, at) => ({
      ...(await prepare(`m${at}`, written(recipe, style, outputs))),
      style,
    })),
  );
  const segments = partition(
    members.map(({ name, graph }) => ({ name, graphs: [graph], outputs: [...graph.outputs.values()] })),
  );
  return { members, segments };
}

describe("a partition", () => {
  it("has every computation that is needed once, and each segment reads only what is made before it", async () => {
    await fc.assert(
      fc.asyncProperty(families, async (family) => {
        const { members, segments } = await prepared(family);
        const users = new Map<string, Set<string>>();
        for (const { name, graph } of members) {
          const needed = new Set(graph.outputs.values());
          for (const node of graph.nodes.toReversed()) {
            if (!node.makes.some((identity) => needed.has(identity))) continue;
            for (const identity of node.reads) needed.add(identity);
            if (node.varies) users.set(node.key, (users.get(node.key) ?? new Set()).add(name));
          }
        }
        const placed = segments.flatMap(({ nodes }) =>
          nodes.filter(({ varies }) => varies).map(({ key }) => key),
        );
        expect(placed.length).toBe(new Set(placed).size);
        expect(new Set(placed)).toEqual(new Set(users.keys()));
        const made = new Map(
          members.flatMap(({ graph }) =>
            [...graph.inputs.values()].map((each) => [each, members.map(({ name }) => name)]),
          ),
        );
        for (const segment of segments) {
          for (const { key, varies } of segment.nodes)
            if (varies) expect(new Set(segment.usedBy)).toEqual(users.get(key));
          for (const input of segment.inputs) {
            expect(made.has(input)).toBe(true);
            for (const user of segment.usedBy) expect(made.get(input)).toContain(user);
          }
          for (const output of segment.outputs) made.set(output, [...segment.usedBy]);
        }
        expect(new Set(segments.map(({ usedBy }) => usedBy.join())).size).toBe(segments.length);
      }),
      { numRuns: 200 },
    );
  });

  it("is the same when what members need is given in lists that they share", async () => {
    await fc.assert(
      fc.asyncProperty(families, fc.array(fc.nat(), { minLength: 3 }), async (family, cuts) => {
        const { members, segments } = await prepared(family);
        const lists = new Map<string, readonly CanonicalNode[]>();
        const shared = (nodes: readonly CanonicalNode[]) => {
          const name = nodes.map(({ key }) => key).join();
          const list = lists.get(name) ?? nodes;
          lists.set(name, list);
          return list;
        };
        const listed = partition(
          members.map(({ name, graph }, at) => {
            const outputs = [...graph.outputs.values()];
            const nodes = neededNodes([graph], outputs);
            const cut = (cuts[at] ?? 0) % (nodes.length + 1);
            const needed = [shared(nodes.slice(0, cut)), shared(nodes.slice(cut))];
            return { name, graphs: [graph], outputs, needed };
          }),
        );
        const plain = (all: readonly Segment[]) =>
          new Map(
            all.map(({ usedBy, nodes, inputs, outputs }) => [
              usedBy.join(),
              [nodes.map(({ key }) => key), inputs, outputs].map((each) => new Set(each)),
            ]),
          );
        expect(plain(listed)).toEqual(plain(segments));
      }),
      { numRuns: 200 },
    );
  });

  it("computes what the models compute, each segment once", async () => {
    await fc.assert(
      fc.asyncProperty(families, async (family) => {
        const { members, segments } = await prepared(family);
        const values = new Map<string, Tensor>();
        for (const { graph, style } of members) {
          for (const [name, identity] of graph.inputs)
            values.set(identity, requireValue(inputsOf(style), name));
        }
        for (const segment of segments) await runSegment(segment, members, values);
        for (const { model, graph, style } of members) {
          const whole = await run(model, inputsOf(style));
          for (const [name, identity] of graph.outputs) {
            // What needs no input is a constant of the model and is in no segment.
            if (values.has(identity)) expect(values.get(identity)).toEqual(whole.get(name));
            else
              expect(graph.nodes.some(({ makes, varies }) => varies && makes.includes(identity))).toBe(false);
          }
        }
      }),
      { numRuns: 40 },
    );
  });
});

describe("models that make the same value in two ways", () => {
  const shape = [1, 1, 4, 4];
  const x = valueInfo("x", "float32", shape);
  const input = float32(
    shape,
    Array.from({ length: 16 }, (_, at) => Math.sin(at)),
  );
  const pool = { kernel_shape: [2, 2], strides: [1, 1], pads: [0, 0, 1, 1] };
  const of = (nodes: readonly Node[], outputs: readonly ValueInfo[]) =>
    model(graph("g", { nodes, inputs: [x], outputs, weights: [] }));
  const floats = (...names: string[]) => names.map((name) => valueInfo(name, "float32", shape));

  /** The runtime's MaxPool with indices is another kernel than that without, and may take the other of two zeros. */
  const withoutSigns = (of: Tensor | undefined) => ({
    ...of,
    data: Array.from<unknown>(of?.data ?? []).map((each) => (each === 0 ? 0 : each)),
  });

  /** The users of the segments, after every member's outputs were found to be those of its own model. */
  async function usersAfterRunning(models: readonly Model[], given = input): Promise<string[]> {
    const members = await Promise.all(models.map(async (each, at) => prepare(`m${at}`, each)));
    const segments = partition(
      members.map(({ name, graph }) => ({ name, graphs: [graph], outputs: [...graph.outputs.values()] })),
    );
    const values = new Map<string, Tensor>([[members[0]?.graph.inputs.get("x") ?? "", given]]);
    for (const segment of segments) await runSegment(segment, members, values);
    for (const [at, whole] of models.entries()) {
      const expected = await run(whole, new Map([["x", given]]));
      for (const [name, identity] of members[at]?.graph.outputs ?? [])
        expect(withoutSigns(values.get(identity))).toEqual(withoutSigns(expected.get(name)));
    }
    return segments.map(({ usedBy }) => usedBy.join(" "));
  }

  it("with an optional output and without it share it", async () => {
    const indices = valueInfo("i", "int64", shape);
    const plain = of([node("MaxPool", ["x"], ["p"], pool), node("Relu", ["p"], ["y"])], floats("y"));
    const both = of(
      [node("MaxPool", ["x"], ["p", "i"], pool), node("Relu", ["p"], ["y"]), node("Neg", ["y"], ["z"])],
      [...floats("z"), indices],
    );
    const indicesOnly = of([node("MaxPool", ["x"], ["unread", "i"], pool)], [indices]);
    expect(await usersAfterRunning([plain, both])).toEqual(["m0 m1", "m1"]);
    expect(await usersAfterRunning([both, plain])).toEqual(["m0 m1", "m0"]);
    expect(await usersAfterRunning([plain, indicesOnly, plain])).toEqual(["m0 m1 m2", "m0 m2"]);
  });

  it("twice in one model, with an optional output and without it, compute it once", async () => {
    const twice = of(
      [
        node("MaxPool", ["x"], ["p"], pool),
        node("MaxPool", ["x"], ["q", "i"], pool),
        node("Add", ["p", "q"], ["y"]),
      ],
      [...floats("y"), valueInfo("i", "int64", shape)],
    );
    expect(await usersAfterRunning([twice])).toEqual(["m0"]);
  });

  it("share a node of which each names other outputs, when a third names both", async () => {
    const gru = (y: string, last: string) => {
      const made = node("GRU", ["x", "w", "r"], [y, last], { hidden_size: 1 });
      const named = [["y", [2, 1, 1, 1]] as const, ["last", [1, 1, 1]] as const];
      return model(
        graph("g", {
          nodes: [made],
          inputs: [valueInfo("x", "float32", [2, 1, 2])],
          outputs: named
            .filter(([name]) => name === y || name === last)
            .map(([name, sizes]) => valueInfo(name, "float32", sizes)),
          weights: [
            weight("w", float32([1, 3, 2], [1, -1, 0.5, 0.25, 2, -0.5])),
            weight("r", float32([1, 3, 1], [1, -1, 0.5])),
          ],
        }),
      );
    };
    const models = [gru("y", ""), gru("", "last"), gru("y", "last")];
    const given = float32([2, 1, 2], [1, 2, -1, 0.5]);
    expect(await usersAfterRunning(models, given)).toEqual(["m0 m1 m2"]);
  });

  it("by a function's call and by its body share it", async () => {
    const body = (from: string, to: string) => [
      node("MaxPool", [from], ["m"], pool),
      node("Relu", ["m"], [to]),
    ];
    const inside = of([...body("x", "y"), node("Add", ["y", "m"], ["z"])], floats("z"));
    const calling = withFunctions(
      of([call("Pooled", ["x"], ["y"]), node("Neg", ["y"], ["z"])], floats("z")),
      define("Pooled", ["a"], ["b"], body("a", "b")),
    );
    expect(await usersAfterRunning([inside, calling])).toEqual(["m0 m1", "m0", "m1"]);
    expect(await usersAfterRunning([calling, inside])).toEqual(["m0 m1", "m0", "m1"]);
    expect(await usersAfterRunning([calling, calling])).toEqual(["m0 m1"]);
  });

  it("share what a function passes on, and what it is given for nothing", async () => {
    const passing = withFunctions(
      of(
        [node("Relu", ["x"], ["r"]), call("Both", ["r", "x"], ["same", "z"])],
        [...floats("same"), ...floats("z")],
      ),
      define(
        "Both",
        ["a", "unread"],
        ["b", "c"],
        [node("Identity", ["a"], ["b"]), node("Neg", ["a"], ["c"]), node("Abs", ["unread"], ["dead"])],
      ),
    );
    const plain = of([node("Relu", ["x"], ["r"]), node("Neg", ["r"], ["z"])], floats("r", "z"));
    expect(await usersAfterRunning([passing, plain])).toEqual(["m0 m1"]);
  });

  it("share a branch, whatever dead nodes read in it", async () => {
    const branching = (dead: readonly Node[]) => {
      const branch = (opType: string) =>
        graph(opType, {
          nodes: [node(opType, ["x"], [opType])],
          inputs: [],
          outputs: floats(opType),
          weights: [],
        });
      const [yes, no] = [branch("Relu"), branch("Neg")];
      yes.node.push(...dead);
      const condition = [
        node("ReduceSum", ["x"], ["sum"], { keepdims: 0 }),
        node("Cast", ["sum"], ["c"], { to: 9 }),
      ];
      const chosen = node("If", ["c"], ["y"], { then_branch: yes, else_branch: no });
      return of([...condition, node("Abs", ["x"], ["z"]), chosen], floats("y"));
    };
    const lively = branching([node("Exp", ["z"], ["dead"])]);
    expect(await usersAfterRunning([lively, branching([])])).toEqual(["m0 m1"]);
    expect(await usersAfterRunning([branching([]), lively])).toEqual(["m0 m1"]);
  });

  it("whatever each names and calls, compute what they compute alone", async () => {
    const layers = fc.array(fc.constantFrom("MaxPool", "Relu", "Neg", "Tanh"), {
      minLength: 1,
      maxLength: 6,
    });
    const manners = fc.array(
      fc.array(fc.constantFrom("plain", "named", "wanted", "called"), { minLength: 6, maxLength: 6 }),
      { minLength: 1, maxLength: 4 },
    );
    await fc.assert(
      fc.asyncProperty(layers, manners, async (ops, members) => {
        const models = members.map((manner) => {
          const outputs: ValueInfo[] = [];
          const nodes = ops.map((opType, at) => {
            const [from, to] = [at === 0 ? "x" : `v${at - 1}`, `v${at}`];
            if (manner[at] === "called") return call(`Own${opType}`, [from], [to]);
            const isNamed = opType === "MaxPool" && manner[at] !== "plain";
            if (isNamed && manner[at] === "wanted") outputs.push(valueInfo(`i${at}`, "int64", shape));
            return node(opType, [from], isNamed ? [to, `i${at}`] : [to], opType === "MaxPool" ? pool : {});
          });
          const functions = [...new Set(ops)].map((opType) =>
            define(
              `Own${opType}`,
              ["a"],
              ["b"],
              [node(opType, ["a"], ["b"], opType === "MaxPool" ? pool : {})],
            ),
          );
          return withFunctions(of(nodes, [...floats(`v${ops.length - 1}`), ...outputs]), ...functions);
        });
        // All of a chain is needed by all.
        expect(await usersAfterRunning(models)).toEqual([models.map((_, at) => `m${at}`).join(" ")]);
      }),
      { numRuns: 40 },
    );
  });
});

async function runSegment(
  segment: Segment,
  sources: Parameters<typeof segmentModel>[1],
  values: Map<string, Tensor>,
): Promise<void> {
  const inputs = new Map(segment.inputs.map((identity) => [identity, requireValue(values, identity)]));
  for (const [identity, value] of await run(segmentModel(segment, sources), inputs))
    values.set(identity, value);
}

function requireValue(values: ReadonlyMap<string, Tensor>, name: string): Tensor {
  const value = values.get(name);
  if (!value) throw new Error(`no value ${name}`);
  return value;
}

const cutRecipes = fc
  .tuple(recipes, fc.array(fc.nat(), { minLength: 1, maxLength: 3 }))
  .map(([recipe, picks]) => ({
    recipe,
    cut: [...new Set(picks.map((pick) => madeBy(recipe, pick % recipe.nodes.length)))],
    last: madeBy(recipe, recipe.nodes.length - 1),
  }));

describe("extracted parts", () => {
  it("are refused exactly when data goes around the cut", async () => {
    await fc.assert(
      fc.property(cutRecipes, ({ recipe, cut, last }) => {
        const model = written(recipe, PLAIN, [last]);
        const reached = new Set<number>();
        const open = [last];
        for (let value = open.pop(); value !== undefined; value = open.pop()) {
          if (cut.includes(value) || reached.has(value)) continue;
          reached.add(value);
          open.push(...(recipe.nodes[value - madeBy(recipe, 0)]?.reads ?? []));
        }
        const goesAround = [...reached].some((value) => value < INPUTS);
        const names = cut.map((value) => nameOf(PLAIN, value));
        const take = () =>
          extract(model, new GraphIndex(model.graph), names, [nameOf(PLAIN, last)], inferTypes(model));
        if (!goesAround) expect(take().graph.input.map(({ name }) => name)).toEqual(names);
        else expect(take).toThrow(expect.objectContaining({ code: "CUT_INVALID" }) as PolyheadError);
      }),
      { numRuns: 300 },
    );
  });

  it("together compute what the whole computes", async () => {
    await fc.assert(
      fc.asyncProperty(cutRecipes, async ({ recipe, cut, last }) => {
        const model = written(recipe, PLAIN, [last]);
        const [index, types] = [new GraphIndex(model.graph), inferTypes(model)];
        const inputs = index.inputs.map(({ name }) => name);
        const names = cut.map((value) => nameOf(PLAIN, value));
        const output = nameOf(PLAIN, last);
        const backbone = await run(extract(model, index, inputs, names, types), inputsOf(PLAIN));
        const head = extract(
          model,
          index,
          [...inputs, ...names.filter((name) => name !== output)],
          [output],
          types,
        );
        const parts = await run(head, new Map([...inputsOf(PLAIN), ...backbone]));
        expect(parts).toEqual(await run(model, inputsOf(PLAIN)));
      }),
      { numRuns: 40 },
    );
  });
});
