/** Variables and the kernels that change them: WebAssembly beside the plain meaning, and both backends. */
import fc from "fast-check";
import { describe, expect, it } from "vitest";
import { graph, model, node, valueInfo } from "../../src/onnx/model.js";
import { modelBytes } from "../../src/onnx/write.js";
import { Arena } from "../../src/runtime/arena.js";
import type { Change } from "../../src/runtime/backend.js";
import {
  add,
  constant,
  div,
  type Expression,
  interpret,
  type Kernel,
  mul,
  number,
  operand,
  sqrt,
  sub,
} from "../../src/runtime/kernel.js";
import { MockMachine } from "../../src/runtime/mock.js";
import { OrtWorker } from "../../src/runtime/node/ort-worker.js";
import { Runtime } from "../../src/runtime/runtime.js";
import { Values } from "../../src/runtime/values.js";
import { Variables } from "../../src/runtime/variables.js";
import { float32, type Tensor, toNumbers } from "../../src/tensor/tensor.js";

const OPERANDS = 3;
const { expression } = fc.letrec<{ expression: Expression }>((tie) => ({
  expression: fc.oneof(
    { maxDepth: 4 },
    fc.nat(OPERANDS - 1).map(operand),
    fc.nat(1).map(number),
    fc.float().map(constant),
    fc
      .tuple(fc.constantFrom(add, sub, mul, div), tie("expression"), tie("expression"))
      .map(([make, a, b]) => make(a, b)),
    tie("expression").map(sqrt),
  ),
}));
const kernels: fc.Arbitrary<Kernel> = fc.tuple(expression, expression).map(([a, b]) => ({
  operands: OPERANDS,
  numbers: 2,
  writes: [
    [0, a],
    [1, b],
  ],
}));

describe("a kernel as WebAssembly", () => {
  it("does what its expressions say, to the bit, over operands here and elsewhere", () => {
    const lengths = fc.oneof(fc.nat(9), fc.constantFrom(2047, 2048, 2049, 5000));
    const property = fc.property(
      kernels,
      lengths,
      fc.array(fc.float(), { minLength: 7, maxLength: 7 }),
      fc.tuple(fc.float(), fc.float()),
      fc.boolean(),
      (kernel, length, some, numbers, isElsewhere) => {
        const start = [0, 1, 2].map((place) =>
          Float32Array.from({ length }, (_, at) => (some[(at + place) % 7] ?? 0) + at),
        );
        const expected = start.map((each) => each.slice());
        interpret(kernel, expected, numbers);

        const arena = new Arena();
        const places = start.map(({ length }) => arena.place(length));
        places.forEach((place, at) => {
          arena.view(place).set(start[at] ?? []);
        });
        const [first, second, third] = places;
        const read = isElsewhere ? start[2] : third;
        if (first && second && read) arena.run(kernel, [first, second, read], numbers);
        expect(places.map((place) => arena.view(place))).toEqual(expected);
      },
    );
    fc.assert(property, { numRuns: 200 });
  });

  it("computes a part that is used twice once, and what numbers alone say before all elements", () => {
    const shared = mul(operand(0), add(number(0), constant(1)));
    const kernel: Kernel = {
      operands: 2,
      numbers: 1,
      writes: [
        [0, mul(shared, shared)],
        [1, shared],
      ],
    };
    const arena = new Arena();
    const [a, b] = [arena.place(5), arena.place(5)];
    arena.view(a).set([1, 2, 3, 4, 5]);
    arena.run(kernel, [a, b], [1]);
    expect([...arena.view(a)]).toEqual([4, 16, 36, 64, 100]);
    expect([...arena.view(b)]).toEqual([2, 4, 6, 8, 10]);
  });
});

const SUM: Kernel = { operands: 2, numbers: 1, writes: [[0, add(operand(0), mul(operand(1), number(0)))]] };

describe.each([
  ["ONNX Runtime", () => Runtime.open(() => OrtWorker.start()), relu],
  ["the mock", () => Runtime.open(new MockMachine({ relu: mockRelu }).start), mockModel],
] as const)("variables of %s", (_, open, modelOf) => {
  const feeds = [["x", "x"]] as const;
  const fetches = [["y", "y"]] as const;

  it("are changed after the steps by what came out, and read by the steps of later programs", async () => {
    const runtime = await open();
    const session = await runtime.acquire("relu", modelOf);
    const [a, b] = [3, undefined].map((value, at) =>
      runtime.variable(`v${at}`, {
        shape: [3],
        arena: `arena ${at}`,
        start: value === undefined ? undefined : float32([3], [value, value, value]),
      }),
    );
    if (!a || !b) throw new Error("two variables");
    const steps = [{ session: session.number, feeds, fetches }];
    const changes: Change[] = [
      { kernel: SUM, operands: [a.number, "y"], numbers: [2] },
      { kernel: SUM, operands: [b.number, a.number], numbers: ["scale"] },
    ];
    const given = new Map([
      ["x", float32([3], [-1, 0, 5])],
      ["scale", float32([], [0.5])],
    ]);
    const reads = [
      [a.number, "a"],
      [b.number, "b"],
    ] as const;
    const first = await runtime.run({ steps, changes, reads, results: ["a", "b"] }, given);
    expect(numbersOf(first.values)).toEqual({ a: [3, 3, 13], b: [1.5, 1.5, 6.5] });
    const kept = [["x", b.number]] as const;
    const next = { steps: [{ session: session.number, feeds: [], fetches, kept }], results: ["y"] };
    expect(numbersOf((await runtime.run(next, new Map())).values)).toEqual({ y: [1.5, 1.5, 6.5] });
    await Promise.all([a, b, session].map((each) => each.release()));
    await runtime.close();
  });

  it("stay as they are where a step fails", async () => {
    const runtime = await open();
    const session = await runtime.acquire("relu", modelOf);
    const variable = runtime.variable("v", { shape: [3], arena: "a" });
    const changes = [{ kernel: SUM, operands: [variable.number, "x"], numbers: [1] }];
    const steps = [{ session: session.number, feeds: [["x", "nothing"]] as const, fetches }];
    const reads = [[variable.number, "v"]] as const;
    const given = new Map([["x", float32([3], [1, 1, 1])]]);
    const { values, failures } = await runtime.run({ steps, changes, reads, results: ["v", "y"] }, given);
    expect(numbersOf(values)).toEqual({ v: [0, 0, 0] });
    expect([...failures.keys()]).toEqual(["y"]);
    await runtime.close();
  });
});

describe("variables", () => {
  it("refuse changes that make no sense", () => {
    const variables = new Variables();
    variables.keep(1, { shape: [2], arena: "a" });
    variables.keep(2, { shape: [3], arena: "a" });
    variables.keep(3, { shape: [2], arena: "b" });
    const values = new Values(new Map([["x", float32([2], [1, 2])]]));
    const both: Kernel = {
      operands: 2,
      numbers: 0,
      writes: [
        [0, operand(1)],
        [1, operand(0)],
      ],
    };
    const change = (kernel: Kernel, operands: (number | string)[]) => () =>
      variables.change({ kernel, operands, numbers: [0] }, values);
    expect(change(SUM, [1, 2])).toThrow(/different sizes/);
    expect(change(SUM, ["x", 1])).toThrow(/no variables of one arena/);
    expect(change(both, [1, 3])).toThrow(/no variables of one arena/);
    expect(change(SUM, [1, 4])).toThrow(/not kept/);
    expect(change(SUM, [1, "y"])).toThrow(/before anything made it/);
    expect(change(SUM, [1, 3])).not.toThrow();
  });

  it("of an arena go back together, and a new arena of that name begins with zeros", () => {
    const variables = new Variables();
    const one = float32([1], [1]);
    variables.keep(1, { shape: [1], arena: "a", start: one });
    variables.keep(2, { shape: [1], arena: "a", start: one });
    variables.release(1);
    expect(variables.get(1)).toBeUndefined();
    expect(variables.get(2)?.data).toEqual(Float32Array.of(1));
    variables.release(2);
    variables.keep(3, { shape: [1], arena: "a" });
    expect(variables.get(3)?.data).toEqual(Float32Array.of(0));
  });
});

function relu(): Uint8Array {
  const info = (name: string) => valueInfo(name, "float32", [3]);
  const nodes = [node("Relu", ["x"], ["y"])];
  return modelBytes(
    model(graph("relu", { nodes, inputs: [info("x")], outputs: [info("y")], weights: [] }), 17),
  );
}

function mockModel(): Uint8Array {
  return new TextEncoder().encode("relu");
}

function mockRelu(inputs: ReadonlyMap<string, Tensor>): Record<string, Tensor> {
  const x = inputs.get("x") ?? float32([0], []);
  return {
    y: float32(
      x.shape,
      toNumbers(x).map((each) => Math.max(0, each)),
    ),
  };
}

function numbersOf(values: ReadonlyMap<string, Tensor>): Record<string, number[]> {
  return Object.fromEntries([...values].map(([name, { data }]) => [name, Array.from(data, Number)]));
}
