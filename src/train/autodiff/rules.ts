/**
 * All gradient rules, by operator. To teach the differentiation an operator, add its rule to the file of its family.
 * Operators whose results are whole numbers or booleans need none: nothing flows back through them.
 */
import { canonicalDomain, findAttribute, type Node } from "../../onnx/model.js";
import type { Rule } from "./context.js";
import { ARITHMETIC } from "./rules/arithmetic.js";
import { CONVOLUTION } from "./rules/convolution.js";
import { CONTRIBUTED, ELEMENTWISE } from "./rules/elementwise.js";
import { INDEXING } from "./rules/indexing.js";
import { LINEAR, refusesEinsum } from "./rules/linear.js";
import { NORMALIZATION } from "./rules/normalization.js";
import { POOLING } from "./rules/pooling.js";
import { REDUCTION } from "./rules/reduction.js";
import { RESAMPLING, refusesResize } from "./rules/resampling.js";
import { SHAPE } from "./rules/shape.js";

/** The families of the standard operator set, by the names that the documentation gives them. */
export const FAMILIES: Readonly<Record<string, Readonly<Record<string, Rule>>>> = {
  elementwise: ELEMENTWISE,
  arithmetic: ARITHMETIC,
  "matrix products": LINEAR,
  convolution: CONVOLUTION,
  pooling: POOLING,
  normalization: NORMALIZATION,
  reduction: REDUCTION,
  shape: SHAPE,
  indexing: INDEXING,
  resampling: RESAMPLING,
  "com.microsoft": CONTRIBUTED,
};

const STANDARD: ReadonlyMap<string, Rule> = new Map(
  Object.entries(FAMILIES).flatMap(([family, rules]) =>
    family === "com.microsoft" ? [] : Object.entries(rules),
  ),
);

/** Cases of an operator that its rule does not cover; the function says why. */
const REFUSALS: Readonly<Record<string, (attribute: (name: string) => string) => string | undefined>> = {
  Einsum: (attribute) => refusesEinsum(attribute("equation")),
  Resize: refusesResize,
  ...Object.fromEntries(
    ["ScatterElements", "ScatterND"].map((opType) => [
      opType,
      (attribute: (name: string) => string) => {
        const reduction = attribute("reduction");
        return ["", "none", "add"].includes(reduction) ? undefined : `its reduction is ${reduction}`;
      },
    ]),
  ),
  MaxPool: (attribute) =>
    attribute("storage_order") === "1" ? "its storage order is by columns" : undefined,
};

/** The rule of a node; a reason where there is none. */
export function ruleOf(node: Node): Rule | string {
  const domain = canonicalDomain(node.domain);
  const isContributed = domain === "com.microsoft" && Object.hasOwn(CONTRIBUTED, node.opType);
  const rule =
    domain === "" ? STANDARD.get(node.opType) : isContributed ? CONTRIBUTED[node.opType] : undefined;
  if (!rule) return "no rule";
  const refuses = Object.hasOwn(REFUSALS, node.opType) ? REFUSALS[node.opType] : undefined;
  return refuses?.((name) => plainAttribute(node, name)) ?? rule;
}

function plainAttribute(node: Node, name: string): string {
  const found = findAttribute(node, name);
  if (!found) return "";
  return found.s.length > 0 ? new TextDecoder().decode(found.s) : String(found.i);
}
