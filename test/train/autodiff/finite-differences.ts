/**
 * Gradients against differences of the loss. A case is one node and what it is given; the loss is a weighted sum of
 * its results, and the derivative in a random direction must be what two runs of the forward graph say. float64
 * wherever ONNX Runtime computes it; operators without such a kernel are checked in float32, where differences
 * are less sharp, so that steps are longer and more is tolerated.
 */
import fc from "fast-check";
import { expect } from "vitest";
import { type AttributeValue, graph, model, node, valueInfo } from "../../../src/onnx/model.js";
import type { OpenModel } from "../../../src/onnx/runner.js";
import { weight } from "../../../src/onnx/weight.js";
import { elementCount, type Shape } from "../../../src/tensor/shape.js";
import { type Tensor, tensor, toNumbers } from "../../../src/tensor/tensor.js";
import { type FloatType, floats } from "../../../src/train/autodiff/builder.js";
import { differentiate } from "../../../src/train/autodiff/differentiate.js";

/** Numbers from `low` to `high`, all different and evenly apart, in an order that a seed gives. */
export interface Values {
  readonly shape: Shape;
  readonly low: number;
  readonly high: number;
  readonly seed: number;
}

/** One node and what it is given. */
export interface Case {
  readonly opType: string;
  readonly domain?: string;
  readonly opset?: number;
  /** Values to differentiate, constants, or nothing for an input left out. */
  readonly inputs: readonly (Values | Tensor | undefined)[];
  readonly attributes?: Readonly<Record<string, AttributeValue>>;
  /** Outputs that go into the loss, and how many there are in all; 1 by default. */
  readonly outputs?: number;
  /** Outputs behind those that the node must have. */
  readonly further?: number;
  /** Whether a session gives the same only in its first run, as one that draws random numbers does. */
  readonly once?: boolean;
  /** Numbers of inputs that are float but not differentiated. */
  readonly fixed?: readonly number[];
  readonly dtype?: FloatType;
  /** Length of the step in float32, where linear functions allow a long one; 1/64 by default. */
  readonly step?: number;
  /** What may be between the two relative to the gradient's length; 1e-6 in float64 and 2e-3 in float32 by default. */
  readonly tolerance?: number;
}

/** Repeatable numbers from 0 to 1 (Mulberry32, public domain by Tommy Ettinger). */
export function noise(seed: number): () => number {
  let state = seed | 0;
  return () => {
    state = (state + 0x6d2b79f5) | 0;
    let mixed = Math.imul(state ^ (state >>> 15), 1 | state);
    mixed = (mixed + Math.imul(mixed ^ (mixed >>> 7), 61 | mixed)) ^ mixed;
    return ((mixed ^ (mixed >>> 14)) >>> 0) / 2 ** 32;
  };
}

/** A seed. */
export const seed = fc.integer({ min: 1, max: 2 ** 30 });

/** Values of a shape between two numbers; from -2 to 2 by default. */
export function values(shape: Shape, of: number, low = -2, high = 2): Values {
  return { shape, low, high, seed: of };
}

function spaced({ shape, low, high, seed: of }: Values): number[] {
  const count = elementCount(shape);
  const random = noise(of);
  const list = Array.from({ length: count }, (_, at) => low + ((high - low) * (at + 0.37)) / count);
  for (let at = count - 1; at > 0; at--) {
    const other = Math.floor(random() * (at + 1));
    [list[at], list[other]] = [list[other] ?? 0, list[at] ?? 0];
  }
  return list;
}

/** Checks the gradients of one case with respect to each of its values. */
export async function checkGradients(open: OpenModel, of: Case): Promise<void> {
  const { opType, inputs, attributes = {}, outputs = 1, dtype = "float64" } = of;
  const names = inputs.map((each, place) => (each ? `x${place}` : ""));
  const made = Array.from({ length: outputs }, (_, place) => `y${place}`);
  const given = new Map<string, Values>();
  const constants: Tensor[] = [];
  inputs.forEach((each, place) => {
    if (each && "data" in each) constants.push(Object.assign({}, each, { name: names[place] }));
    else if (each) given.set(names[place] ?? "", each);
  });
  const further = Array.from({ length: of.further ?? 0 }, (_, place) => `further${place}`);
  const main = node(opType, names, [...made, ...further], attributes);
  main.domain = of.domain ?? "";
  const shaped = (
    nodes: readonly ReturnType<typeof node>[],
    outputNames: readonly string[],
    extra: readonly ReturnType<typeof weight>[] = [],
  ) => {
    const whole = model(
      graph("case", {
        nodes,
        inputs: [...given].map(([name, { shape }]) => valueInfo(name, dtype, shape)),
        outputs: outputNames.map((name) => valueInfo(name, dtype)),
        weights: [
          ...inputs.flatMap((each, place) =>
            each && "data" in each ? [weight(names[place] ?? "", each)] : [],
          ),
          ...extra,
        ],
      }),
      of.opset ?? 18,
    );
    if (of.domain) {
      whole.opsetImport.push({ ...whole.opsetImport[0], domain: of.domain, version: 1n } as never);
    }
    return whole;
  };
  const start = new Map([...given].map(([name, each]) => [name, floats(dtype, each.shape, spaced(each))]));

  // The loss weighs each element of each output for itself.
  const plain = await open(shaped([main], made), "off");
  const results = await plain.run(start);
  const shares = made.map((name, place) => {
    const { shape } = results.get(name) ?? { shape: [] };
    return weight(`share${place}`, floats(dtype, shape, spaced(values(shape, 7 + place, -1, 1.5))));
  });
  const sums = made.flatMap((name, place) => [
    node("Mul", [name, `share${place}`], [`weighted${place}`]),
    node("ReduceSum", [`weighted${place}`], [`sum${place}`], { keepdims: 0 }),
  ]);
  const nodes = [
    main,
    ...sums,
    node(
      "Sum",
      made.map((_, place) => `sum${place}`),
      ["loss"],
    ),
  ];
  const withRespectTo = [...given.keys()].filter((_, place) => !of.fixed?.includes(place));
  const whole = shaped(nodes, ["loss"], shares);
  const { model: both, gradients } = differentiate(whole, { of: "loss", withRespectTo });
  const [forward, backward] = [await open(whole, "off"), await open(both, "off")];
  const once: OpenModel = async (each, optimisation) => {
    const session = await open(each, optimisation);
    return { ...session, run: (values) => session.run(values).finally(() => session.close()) };
  };
  try {
    const got = await backward.run(start);
    const lossAt = async (inputsThere: ReadonlyMap<string, Tensor>) =>
      Number((await (of.once ? await once(whole, "off") : forward).run(inputsThere)).get("loss")?.data[0]);
    for (const name of withRespectTo) {
      const at = start.get(name);
      if (!at) throw new Error(`no value ${name}`);
      const gradient = got.get(gradients.get(name) ?? "");
      // Where nothing flows back there is no gradient, and the differences must be 0.
      if (gradients.has(name)) expect(gradient?.shape, `shape of the gradient of ${name}`).toEqual(at.shape);
      const random = noise(elementCount(at.shape) + 11);
      const direction = Array.from({ length: elementCount(at.shape) }, () => 2 * random() - 1);
      const step = dtype === "float64" ? 1e-6 : (of.step ?? 1 / 64);
      const moved = (by: number) => {
        const shifted = toNumbers(at).map((value, place) => value + by * (direction[place] ?? 0));
        return new Map(start).set(name, floats(dtype, at.shape, shifted));
      };
      const difference = ((await lossAt(moved(step))) - (await lossAt(moved(-step)))) / (2 * step);
      const numbers = gradient ? toNumbers(gradient) : new Float64Array();
      const along = numbers.reduce((sum, value, place) => sum + value * (direction[place] ?? 0), 0);
      const length = Math.hypot(...numbers);
      const tolerance = of.tolerance ?? (dtype === "float64" ? 1e-6 : 2e-3);
      expect(
        Math.abs(along - difference),
        `${opType}: derivative along a direction of ${name}: ${along}, by differences ${difference}`,
      ).toBeLessThanOrEqual(tolerance * Math.max(1, length));
    }
  } finally {
    for (const each of [plain, forward, backward]) await each.close();
  }
}

/** An int64 list. */
export function ints(list: readonly number[], shape: Shape = [list.length]): Tensor {
  return tensor("int64", shape, BigInt64Array.from(list, BigInt));
}
