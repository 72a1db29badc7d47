/**
 * Old operator sets, held to PyTorch and to ONNX Runtime: the fixtures are one network as PyTorch exports it under the
 * sets 7 to 16 (`scripts/fixtures/opsets.py`), and each rule is run in the old form and in the new.
 */
import { readFile } from "node:fs/promises";
import { describe, expect, it } from "vitest";
import { OPERATOR_SCHEMAS } from "../../src/onnx/generated/operator-schemas.js";
import { identify } from "../../src/onnx/identity.js";
import {
  type AttributeValue,
  float,
  graph,
  type Model,
  model as modelOf,
  type Node,
  node,
  opsetVersion,
  valueInfo,
} from "../../src/onnx/model.js";
import { isSameSince, meaningVersion } from "../../src/onnx/operator-changes.js";
import { readModel } from "../../src/onnx/read.js";
import { shareReport } from "../../src/onnx/share.js";
import { upgraded } from "../../src/onnx/upgrade.js";
import { UPGRADE_RULES } from "../../src/onnx/upgrade-rules.js";
import { compare } from "../../src/onnx/verify.js";
import { weight } from "../../src/onnx/weight.js";
import { readNpz } from "../../src/tensor/npz.js";
import { float32, int64, type Tensor, tensor, toNumbers } from "../../src/tensor/tensor.js";
import { useRuntime } from "./runtime.js";

const folder = new URL("../fixtures/opsets/", import.meta.url);
const OPSETS = [7, 8, 9, 10, 11, 12, 13, 14, 15, 16];
const exported = async (opset: number) => readModel(await readFile(new URL(`opset-${opset}.onnx`, folder)));
const goldens = readNpz(await readFile(new URL("goldens.npz", folder)));
const open = useRuntime();

async function run(model: Model, inputs: ReadonlyMap<string, Tensor>): Promise<ReadonlyMap<string, Tensor>> {
  const opened = await open(model, "off");
  try {
    return await opened.run(inputs);
  } finally {
    await opened.close();
  }
}

describe("a network that PyTorch exported under an old operator set", () => {
  it.each(OPSETS)("%i becomes one of set 17 and computes the same, bit for bit", async (opset) => {
    const old = await exported(opset);
    const { model, notes } = upgraded(old);
    expect(notes).toEqual([`Operator set ${opset} became 17.`]);
    expect(opsetVersion(model)).toBe(17);
    const input = new Map([["input", goldens.get("input") ?? float32([0], [])]]);
    const [before, after] = [await run(old, input), await run(model, input)];
    expect([...after.keys()]).toEqual([...before.keys()]);
    expect(after.size).toBeGreaterThanOrEqual(13);
    for (const [name, value] of after) {
      expect(compare(before.get(name) as Tensor, value), name).toMatchObject({ equal: true });
      expect(compare(goldens.get(name) as Tensor, value).absolute, name).toBeLessThan(1e-5);
    }
  });

  it("shares with those of all other sets what is written in one way only", async () => {
    const models = await Promise.all(
      OPSETS.map(async (opset) => ({ name: `${opset}`, ...upgraded(await exported(opset)) })),
    );
    const report = await shareReport(models);
    const [all] = report.segments;
    expect(all?.usedBy).toHaveLength(OPSETS.length);
    // All weights but those of the turned head, which has another place for each way to write its neighbours.
    expect(all?.nodes).toBe(26);
  });
});

describe("each rule", () => {
  const x = valueInfo("x", "float32", ["N", 4, 6, 6]);
  const values = float32(
    [2, 4, 6, 6],
    Array.from({ length: 288 }, (_, at) => Math.sin(at * 1.7) * 2),
  );
  const vectors = ["a", "b", "c", "d"].map((name, at) =>
    weight(name, float32([4], [0.5 + at, 1 + at, 0.25 + at, 0.1 + at])),
  );
  const whole = (opset: number, nodes: readonly Node[], input = x) =>
    modelOf(
      graph("rule", {
        nodes,
        inputs: [input],
        outputs: [valueInfo("y", "float32")],
        weights: [
          ...vectors,
          weight("doubled", float32([4], [1, 1, 2, 2])),
          weight("halved", float32([4], [1, 1, 0.5, 0.5])),
          weight("regions", float32([2, 4], [0, 0, 9, 9, 1, 2, 7, 11])),
          weight("rows", int64([2], [0, 1])),
          weight(
            "places",
            int64(
              [1, 4, 6, 6],
              Array.from({ length: 144 }, (_, at) => at % 2),
            ),
          ),
          weight(
            "updates",
            float32(
              [1, 4, 6, 6],
              Array.from({ length: 144 }, (_, at) => at),
            ),
          ),
        ],
      }),
      opset,
    );
  const one = (opType: string, attributes: Record<string, AttributeValue> = {}, inputs = ["x"]) => [
    node(opType, inputs, ["y"], attributes),
  ];
  const float16 = valueInfo("x", "float16", ["N", 4, 6, 6]);

  const cases: [string, number, Node[], typeof x?][] = [
    ["BatchNormalization", 7, one("BatchNormalization", { spatial: 1 }, ["x", "a", "b", "c", "d"])],
    ["BatchNormalization", 9, one("BatchNormalization", { epsilon: float(0.01) }, ["x", "a", "b", "c", "d"])],
    ["Clip", 7, one("Clip", { min: float(-0.5), max: float(0.75) })],
    ["Clip with one bound", 9, one("Clip", { max: float(0.75) })],
    ["Clip without bounds", 10, one("Clip")],
    ["Clip of half precision", 9, castTo16(one("Clip", { min: float(-0.5) })), float16],
    ["Dropout", 7, one("Dropout", { ratio: float(0.5) })],
    ["Dropout", 10, one("Dropout", { ratio: float(0.5) })],
    ["Hardmax", 11, one("Hardmax", { axis: 2 })],
    ["LogSoftmax", 7, one("LogSoftmax")],
    ["LogSoftmax", 11, one("LogSoftmax", { axis: -1 })],
    ["Pad", 7, one("Pad", { pads: [0, 0, 1, 2, 0, 0, 0, 1], value: float(1.5) })],
    [
      "Pad of half precision",
      7,
      castTo16(one("Pad", { pads: [0, 0, 1, 2, 0, 0, 0, 1], value: float(1.5) })),
      float16,
    ],
    ["Pad with edges", 10, one("Pad", { pads: [0, 0, 1, 2, 0, 0, 0, 1], mode: "edge" })],
    ["Pad that crops", 10, one("Pad", { pads: [0, 0, -1, 2, 0, 0, 0, -1] })],
    ["ReduceSum", 7, one("ReduceSum", { axes: [1, 3], keepdims: 0 })],
    ["ReduceSum over all", 11, one("ReduceSum")],
    ["Resize", 10, one("Resize", { mode: "nearest" }, ["x", "doubled"])],
    ["Resize between pixels", 10, one("Resize", { mode: "linear" }, ["x", "doubled"])],
    ["Resize that shrinks", 10, one("Resize", { mode: "linear" }, ["x", "halved"])],
    [
      "RoiAlign",
      10,
      one("RoiAlign", { output_height: 2, output_width: 3, sampling_ratio: 2, spatial_scale: float(0.5) }, [
        "x",
        "regions",
        "rows",
      ]),
    ],
    ["Scatter", 9, one("Scatter", { axis: 0 }, ["x", "places", "updates"])],
    ["Slice", 7, one("Slice", { starts: [1, 0], ends: [3, -2], axes: [1, 3] })],
    ["Slice from the front", 9, one("Slice", { starts: [0, 1], ends: [1, 9999] })],
    ["Softmax", 7, one("Softmax")],
    ["Softmax", 11, one("Softmax", { axis: 3 })],
    [
      "Softmax over a place",
      11,
      [node("GlobalAveragePool", ["x"], ["p"]), ...one("Softmax", { axis: 1 }, ["p"])],
    ],
    ["Softmax of unknown rank", 11, one("Softmax", { axis: 2 }), valueInfo("x", "float32")],
    ["Split", 7, [node("Split", ["x"], ["y", "z"], { axis: 1, split: [1, 3] })]],
    ["Split in halves", 11, [node("Split", ["x"], ["y", "z"], { axis: 2 })]],
    ["Squeeze", 7, [node("GlobalMaxPool", ["x"], ["p"]), ...one("Squeeze", { axes: [2, 3] }, ["p"])]],
    ["Squeeze of all", 11, [node("GlobalMaxPool", ["x"], ["p"]), ...one("Squeeze", {}, ["p"])]],
    ["TopK", 9, [node("TopK", ["x"], ["y", "places_of"], { axis: 3, k: 2 })]],
    ["Unsqueeze", 11, one("Unsqueeze", { axes: [0, 5] })],
    ["Upsample", 7, one("Upsample", { mode: "nearest", scales: float([1, 1, 2, 3]) })],
    ["Upsample between pixels", 7, one("Upsample", { mode: "linear", scales: float([1, 1, 2, 3]) })],
    ["Upsample", 9, one("Upsample", { mode: "nearest" }, ["x", "doubled"])],
    ["Upsample between pixels", 9, one("Upsample", { mode: "linear" }, ["x", "doubled"])],
  ];

  it.each(cases)("%s of set %i computes the same in its new form", async (_, opset, nodes, input = x) => {
    const old = whole(opset, nodes, input);
    const { model, notes } = upgraded(old);
    expect(notes).toEqual([`Operator set ${opset} became 17.`]);
    const given =
      input === float16
        ? tensor(
            "float16",
            values.shape,
            Uint16Array.from({ length: 288 }, (_, at) => 0x3000 + 37 * at),
          )
        : values;
    const [before, after] = await Promise.all([old, model].map((each) => run(each, new Map([["x", given]]))));
    const [was, is] = [before?.get("y"), after?.get("y")];
    if (!was) throw new Error("no answer");
    expect(compare(was, is)).toMatchObject({ equal: true });
    expect(toNumbers(was).some((value) => value !== 0 && Number.isFinite(value))).toBe(true);
  });

  it("is among these cases", () => {
    const tried = new Set(cases.flatMap(([, , nodes]) => nodes.map(({ opType }) => opType)));
    expect(Object.keys(UPGRADE_RULES).filter((opType) => !tried.has(opType))).toEqual([]);
  });

  it.each<[string, number, Node[]]>([
    [
      "BatchNormalization of single places",
      7,
      one("BatchNormalization", { spatial: 0 }, ["x", "a", "b", "c", "d"]),
    ],
    ["a mask that is read", 7, [node("Dropout", ["x"], ["z", "y"])]],
    ["shrinking to the nearest pixel", 10, one("Resize", { mode: "nearest" }, ["x", "halved"])],
    ["Scan over batches", 8, one("Scan", { num_scan_inputs: 1 })],
  ])("leaves the model as it is for %s", (_, opset, nodes) => {
    const old = whole(opset, nodes);
    const { model, notes } = upgraded(old);
    expect(model).toBe(old);
    expect(notes).toEqual([
      expect.stringMatching(/^The model stays in operator set \d+: .* has no form in set 17/),
    ]);
  });

  it("is applied in branches and functions, under names that are free", async () => {
    const branch = (name: string, axis: number) =>
      graph(name, {
        nodes: [node("ReduceSum", ["x"], [name], { axes: [axis], keepdims: 0 })],
        inputs: [],
        outputs: [valueInfo(name, "float32")],
        weights: [],
      });
    const nodes = [
      node("ReduceSum", ["x"], ["y/axes"], { axes: [2], keepdims: 0 }),
      node("Constant", [], ["yes"], { value: tensor("bool", [], Uint8Array.of(1)) }),
      node("If", ["yes"], ["z"], { then_branch: branch("y/axes_1", 2), else_branch: branch("other", 3) }),
      node("Sub", ["y/axes", "z"], ["w"]),
      node("ReduceSum", ["w"], ["y"], { axes: [0], keepdims: 0 }),
    ];
    const { model } = upgraded(whole(11, nodes));
    expect(opsetVersion(model)).toBe(17);
    const made = await run(model, new Map([["x", values]]));
    expect(new Set(toNumbers(made.get("y") as Tensor))).toEqual(new Set([0]));
  });

  function castTo16(nodes: Node[]): Node[] {
    const renamed = nodes.map((each) => Object.assign(each, { output: ["half"], name: "half" }));
    return [...renamed, node("Cast", ["half"], ["y"], { to: 1 })];
  }
});

describe("models that are not brought up", () => {
  const of = (opset: number) =>
    modelOf(
      graph("g", {
        nodes: [node("Relu", ["x"], ["y"])],
        inputs: [valueInfo("x", "float32", ["N", 2])],
        outputs: [valueInfo("y", "float32", ["N", 2])],
        weights: [],
      }),
      opset,
    );

  it.each([17, 18, 22])("of set %i stay as they are", (opset) => {
    const model = of(opset);
    expect(upgraded(model)).toEqual({ model, notes: [] });
  });

  it("of sets before 7 are said to be too old", () => {
    expect(upgraded(of(6)).notes).toEqual([
      "The model stays in operator set 6: sets are brought up from 7 on.",
    ]);
  });

  it("share all the same what means the same in their sets", async () => {
    const identities = await Promise.all([7, 9, 13, 14, 17, 22].map((opset) => identify(of(opset))));
    expect(new Set(identities.map((each) => each.get("y"))).size).toBe(1);
  });
});

describe("the table of versions that mean the same", () => {
  it.each([
    ["Relu", 7, 14],
    ["Conv", 22, 11],
    ["Squeeze", 12, 11],
    ["Squeeze", 21, 13],
    ["ReduceMean", 18, 18],
    ["AveragePool", 22, 19],
    ["Resize", 11, 13],
    ["NoSuchOperator", 9, 9],
  ])("gives %s of set %i the meaning of version %i", (opType, opset, expected) => {
    expect(meaningVersion("", opType, opset)).toBe(expected);
    expect(meaningVersion("com.other", opType, opset)).toBe(opset);
  });

  it("names versions that exist, and keeps the defaults of attributes", () => {
    const standard = Object.entries(OPERATOR_SCHEMAS[""] ?? {});
    for (const [opType, versions] of standard) {
      versions.forEach(([since, defaults = {}], at) => {
        if (!isSameSince(opType, since)) return;
        const earlier = versions[at - 1]?.[1] ?? {};
        for (const [name, value] of Object.entries(earlier)) {
          const isGone = !Object.hasOwn(defaults, name);
          expect(
            isGone ? UPGRADE_RULES[opType]?.[since] : defaults[name],
            `${opType} ${since} ${name}`,
          ).toEqual(isGone ? expect.any(Function) : value);
        }
      });
    }
    const named = standard.flatMap(([opType, versions]) => versions.map(([since]) => `${opType} ${since}`));
    const known = new Set(named);
    const all = Array.from({ length: 30 }, (_, since) =>
      standard.map(([opType]) => [opType, since] as const),
    ).flat();
    for (const [opType, since] of all)
      if (isSameSince(opType, since)) expect(known).toContain(`${opType} ${since}`);
  });
});
