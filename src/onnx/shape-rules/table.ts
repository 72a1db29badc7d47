/**
 * All rules, by operator. To teach the inference an operator, add its rule to the file of its kind; operators of
 * another domain than the standard one are named here too.
 */
import { canonicalDomain } from "../model.js";
import { CONTROL } from "./control.js";
import { ELEMENTWISE } from "./elementwise.js";
import { INDEXING } from "./indexing.js";
import { LAYOUT } from "./layout.js";
import { LINEAR } from "./linear.js";
import type { Rule } from "./view.js";
import { WINDOW } from "./window.js";

const RULES: ReadonlyMap<string, Rule> = new Map(
  [ELEMENTWISE, WINDOW, LINEAR, LAYOUT, INDEXING, CONTROL].flatMap((rules) => Object.entries(rules)),
);

/** Operators outside of the standard that go by a rule of this folder. */
const CONTRIBUTED: Readonly<Record<string, ReadonlySet<string>>> = {
  "com.microsoft": new Set([
    ..."BiasGelu FastGelu FusedConv FusedGemm FusedMatMul Gelu QuickGelu SkipLayerNormalization".split(" "),
    ..."DequantizeLinear QuantizeLinear QLinearAdd QLinearAveragePool QLinearConcat QLinearConv".split(" "),
    ..."QLinearGlobalAveragePool QLinearLeakyRelu QLinearMul QLinearSigmoid QLinearSoftmax".split(" "),
  ]),
  "ai.onnx.ml": new Set(["Imputer", "Normalizer", "Scaler"]),
};

/** The rule of an operator; undefined when there is none. */
export function ruleOf(domain: string, opType: string): Rule | undefined {
  const set = canonicalDomain(domain);
  if (set === "") return RULES.get(opType);
  const names = Object.hasOwn(CONTRIBUTED, set) ? CONTRIBUTED[set] : undefined;
  return names?.has(opType) ? RULES.get(opType) : undefined;
}
