/** The table of operators against facts taken by hand from the ONNX documentation (docs/Changelog.md there). */
import { describe, expect, it } from "vitest";
import { NEWEST_OPSET, OPERATOR_SCHEMAS } from "../../src/onnx/generated/operator-schemas.js";
import { attribute } from "../../src/onnx/model.js";
import { attributeDefaults, schemaVersion } from "../../src/onnx/operator-schema.js";

const rows = Object.entries(OPERATOR_SCHEMAS).flatMap(([domain, operators]) =>
  Object.entries(operators).map(([opType, versions]) => ({ domain, opType, versions })),
);

describe("schemaVersion", () => {
  it.each([
    ["Relu", 17, 14],
    ["Relu", 13, 13],
    ["Relu", 12, 6],
    ["Softmax", 12, 11],
    ["Softmax", 13, 13],
    ["Conv", 17, 11],
    ["Conv", 22, 22],
    ["Resize", 18, 18],
    ["GroupNormalization", 21, 21],
    ["Gelu", 20, 20],
    ["LayerNormalization", 25, 17],
    ["BatchNormalization", 17, 15],
    ["Attention", 23, 23],
  ])("of %s at opset %i is %i", (opType, opset, expected) => {
    expect(schemaVersion("", opType, opset)).toBe(expected);
    expect(schemaVersion("ai.onnx", opType, opset)).toBe(expected);
  });

  it("knows the machine learning set", () => {
    expect(schemaVersion("ai.onnx.ml", "LinearClassifier", 3)).toBe(1);
    expect(schemaVersion("ai.onnx.ml", "TreeEnsembleRegressor", 4)).toBe(3);
  });

  it("is the given opset where nothing is known", () => {
    expect(schemaVersion("com.microsoft", "FusedConv", 1)).toBe(1);
    expect(schemaVersion("", "NoSuchOperator", 17)).toBe(17);
    expect(schemaVersion("", "Gelu", 19)).toBe(19);
    expect(schemaVersion("", "Relu", (NEWEST_OPSET[""] ?? 0) + 1)).toBe((NEWEST_OPSET[""] ?? 0) + 1);
    expect(schemaVersion("constructor", "toString", 17)).toBe(17);
    expect(schemaVersion("", "constructor", 17)).toBe(17);
  });
});

describe("attributeDefaults", () => {
  it.each([
    ["Softmax", 11, { axis: 1 }],
    ["Softmax", 13, { axis: -1 }],
    ["Conv", 17, { auto_pad: "NOTSET", group: 1 }],
    ["Relu", 17, {}],
    ["Gemm", 13, { alpha: { float: 1 }, beta: { float: 1 }, transA: 0, transB: 0 }],
    ["LeakyRelu", 16, { alpha: { float: Math.fround(0.01) } }],
    ["HardSigmoid", 6, { alpha: { float: Math.fround(0.2) }, beta: { float: 0.5 } }],
    ["Gelu", 20, { approximate: "none" }],
    ["MeanVarianceNormalization", 13, { axes: [0, 2, 3] }],
    [
      "BatchNormalization",
      15,
      { epsilon: { float: Math.fround(1e-5) }, momentum: { float: Math.fround(0.9) }, training_mode: 0 },
    ],
    [
      "BatchNormalization",
      7,
      { epsilon: { float: Math.fround(1e-5) }, momentum: { float: Math.fround(0.9) }, spatial: 1 },
    ],
  ])("of %s at opset %i", (opType, opset, expected) => {
    expect(attributeDefaults("", opType, opset)).toEqual(expected);
  });

  it("is empty where nothing is known", () => {
    expect(attributeDefaults("com.microsoft", "FusedConv", 1)).toEqual({});
    expect(attributeDefaults("", "Softmax", (NEWEST_OPSET[""] ?? 0) + 1)).toEqual({});
    expect(attributeDefaults("", "toString", 17)).toEqual({});
  });
});

describe("the table", () => {
  it("has the versions of each operator in rising order, none above its set's newest", () => {
    for (const { domain, opType, versions } of rows) {
      const since = versions.map(([version]) => version);
      expect(since, opType).toEqual([...new Set(since)].sort((a, b) => a - b));
      expect(since.at(-1), opType).toBeLessThanOrEqual(NEWEST_OPSET[domain] ?? 0);
    }
  });

  it("has defaults that make attributes, FLOAT ones exact as float32", () => {
    for (const { versions } of rows) {
      for (const [name, value] of versions.flatMap(([, defaults]) => Object.entries(defaults ?? {}))) {
        expect(attribute(name, value).name).toBe(name);
        if (typeof value === "object" && "float" in value) expect(Math.fround(value.float)).toBe(value.float);
        else if (typeof value === "number") expect(Number.isSafeInteger(value)).toBe(true);
      }
    }
  });
});
