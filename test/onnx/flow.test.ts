/** Dominators and ancestors, held to their definitions on random graphs. */
import fc from "fast-check";
import { describe, expect, it } from "vitest";
import { DataFlow } from "../../src/onnx/flow.js";
import { GraphIndex } from "../../src/onnx/graph.js";
import { type Graph, graph, model, node, valueInfo } from "../../src/onnx/model.js";
import { splitModel } from "../../src/onnx/split.js";

/** Nodes in a row, each of which reads some of the values before it; `x` is the input and the last value the output. */
const rows = fc
  .array(fc.array(fc.nat(1000), { minLength: 1, maxLength: 3 }), { minLength: 1, maxLength: 40 })
  .map((list) => list.map((picks, at) => picks.map((pick) => valueName(at - 1 - (pick % (at + 1))))));

function valueName(at: number): string {
  return at < 0 ? "x" : `v${at}`;
}

function graphOf(reads: readonly (readonly string[])[]): Graph {
  return graph("g", {
    nodes: reads.map((names, at) => node("Sum", [...names], [valueName(at)])),
    inputs: [valueInfo("x", "float32", [1, 2])],
    outputs: [valueInfo(valueName(reads.length - 1), "float32", [1, 2])],
    weights: [],
  });
}

/** Whether `to` can be reached from `from` upwards without passing `without`. */
function reaches(reads: readonly (readonly string[])[], from: string, to: string, without: string): boolean {
  if (from === without) return false;
  if (from === to) return true;
  const at = from === "x" ? -1 : Number(from.slice(1));
  return [...new Set(reads[at] ?? [])].some((name) => reaches(reads, name, to, without));
}

describe("the flow of data", () => {
  it("has as funnels the values without which no data reaches the output", () => {
    fc.assert(
      fc.property(
        rows.filter((list) => list.length <= 12),
        (list) => {
          const output = valueName(list.length - 1);
          const funnels = new DataFlow(new GraphIndex(graphOf(list))).funnels();
          const names = list.map((_, at) => valueName(at));
          expect(new Set(funnels)).toEqual(
            new Set(names.filter((each) => !reaches(list, output, "x", each))),
          );
        },
      ),
    );
  });

  it("has one last value that the data of any two has passed", () => {
    fc.assert(
      fc.property(rows, fc.nat(1000), fc.nat(1000), (list, one, other) => {
        const flow = new DataFlow(new GraphIndex(graphOf(list)));
        const known = list.map((_, at) => valueName(at)).filter((name) => flow.isData(name));
        const [a = "", b = ""] = [known[one % known.length], known[other % known.length]];
        const above = (name: string) => {
          const chain = [name];
          for (let at = flow.dominatorOf(name); at !== undefined; at = flow.dominatorOf(at)) chain.push(at);
          return chain;
        };
        const ofB = new Set(above(b));
        expect(flow.commonDominator([a, b])).toBe(above(a).find((name) => ofB.has(name)) ?? "");
      }),
    );
  });

  it("knows a node's ancestors, up to the values it is told to stop at", () => {
    fc.assert(
      fc.property(rows, fc.array(fc.nat(1000), { maxLength: 3 }), (list, stops) => {
        const index = new GraphIndex(graphOf(list));
        const stop = new Set(stops.map((pick) => valueName(pick % list.length)));
        const found = new Set<string>();
        const visit = (name: string): void => {
          if (name === "x" || stop.has(name) || found.has(name)) return;
          found.add(name);
          for (const each of list[Number(name.slice(1))] ?? []) visit(each);
        };
        visit(valueName(list.length - 1));
        const ancestors = index.ancestors(index.outputNames, stop).map(({ output }) => output[0]);
        expect(ancestors).toEqual(list.map((_, at) => valueName(at)).filter((name) => found.has(name)));
      }),
    );
  });
});

describe("the heads of a split", () => {
  const several = (count: number) =>
    model(
      graph("g", {
        nodes: [
          node("Relu", ["x"], ["cut"]),
          ...Array.from({ length: count }, (_, at) => [
            node("Dropout", ["cut"], ["", `m${at}`]),
            node("Cast", [`m${at}`], [`y${at}`], { to: 1 }),
          ]).flat(),
        ],
        inputs: [valueInfo("x", "float32", ["N", 2])],
        outputs: Array.from({ length: count }, (_, at) => valueInfo(`y${at}`, "float32", ["N", 2])),
        weights: [],
      }),
    );

  it("are not joined by outputs that nodes leave out", async () => {
    const { heads } = await splitModel(several(3), { at: ["cut"] });
    expect(heads.map(({ name }) => name)).toEqual(["y0", "y1", "y2"]);
  });

  it("are refused when there are very many", async () => {
    await expect(splitModel(several(257), { at: ["cut"] })).rejects.toMatchObject({
      code: "LIMIT_EXCEEDED",
      details: { heads: 257 },
    });
  });
});
