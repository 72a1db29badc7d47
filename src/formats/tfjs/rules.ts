/** The table of all rules. To cover another operator, write a rule into the file of its family. */
import type { Rule, Rules } from "./rule.js";
import { batchSpaceRules } from "./rules/batch-space.js";
import { convolutionRules } from "./rules/convolution.js";
import { creationRules } from "./rules/creation.js";
import { elementwiseRules } from "./rules/elementwise.js";
import { gatherRules } from "./rules/gather.js";
import { imageRules } from "./rules/image.js";
import { listRules } from "./rules/list.js";
import { matrixRules } from "./rules/matrix.js";
import { normalizationRules } from "./rules/normalization.js";
import { paddingRules } from "./rules/padding.js";
import { poolingRules } from "./rules/pooling.js";
import { reductionRules } from "./rules/reduction.js";
import { shapeRules } from "./rules/shape.js";
import { sliceRules } from "./rules/slice.js";
import { suppressionRules } from "./rules/suppression.js";

const RULES: ReadonlyMap<string, Rule> = new Map(
  [
    batchSpaceRules,
    convolutionRules,
    creationRules,
    elementwiseRules,
    gatherRules,
    imageRules,
    listRules,
    matrixRules,
    normalizationRules,
    paddingRules,
    poolingRules,
    reductionRules,
    shapeRules,
    sliceRules,
    suppressionRules,
  ].flatMap((family: Rules) => Object.entries(family)),
);

/** The rule for an operator; undefined when there is none. */
export function findRule(op: string): Rule | undefined {
  return RULES.get(op);
}
