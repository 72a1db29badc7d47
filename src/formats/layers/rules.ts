/** The table of all rules. To cover another layer, write a rule into the file of its family. */

import type { LayerRule } from "./rule.js";
import { activationRules } from "./rules/activation.js";
import { attentionRules } from "./rules/attention.js";
import { convolutionRules } from "./rules/convolution.js";
import { coreRules } from "./rules/core.js";
import { mergeRules } from "./rules/merge.js";
import { normalizationRules } from "./rules/normalization.js";
import { findOperation, isOperation } from "./rules/operation.js";
import { poolingRules } from "./rules/pooling.js";
import { resizeRules } from "./rules/resize.js";
import { wrapperRules } from "./rules/wrapper.js";
import type { LayerSpec } from "./topology.js";

const RULES: ReadonlyMap<string, LayerRule> = new Map(
  [
    activationRules,
    attentionRules,
    convolutionRules,
    coreRules,
    mergeRules,
    normalizationRules,
    poolingRules,
    resizeRules,
    wrapperRules,
  ].flatMap((family) => Object.entries(family)),
);

/** Names that Keras has had for the same layers. */
const ALIASES: Readonly<Record<string, string>> = {
  Convolution1D: "Conv1D",
  Convolution2D: "Conv2D",
  Convolution3D: "Conv3D",
  Convolution2DTranspose: "Conv2DTranspose",
  Convolution3DTranspose: "Conv3DTranspose",
  SeparableConvolution1D: "SeparableConv1D",
  SeparableConvolution2D: "SeparableConv2D",
  DepthwiseConvolution2D: "DepthwiseConv2D",
  MaxPool1D: "MaxPooling1D",
  MaxPool2D: "MaxPooling2D",
  MaxPool3D: "MaxPooling3D",
  AvgPool1D: "AveragePooling1D",
  AvgPool2D: "AveragePooling2D",
  AvgPool3D: "AveragePooling3D",
  GlobalMaxPool1D: "GlobalMaxPooling1D",
  GlobalMaxPool2D: "GlobalMaxPooling2D",
  GlobalMaxPool3D: "GlobalMaxPooling3D",
  GlobalAvgPool1D: "GlobalAveragePooling1D",
  GlobalAvgPool2D: "GlobalAveragePooling2D",
  GlobalAvgPool3D: "GlobalAveragePooling3D",
};

/** The rule for a layer; undefined when there is none, or when the class is the user's own. */
export function findLayerRule(layer: LayerSpec): LayerRule | undefined {
  const { className, registeredName } = layer;
  const isOwn = registeredName !== undefined && !registeredName.startsWith("keras>");
  if (isOwn) return undefined;
  if (isOperation(layer)) return findOperation(layer);
  const name = Object.hasOwn(ALIASES, className) ? ALIASES[className] : className;
  return RULES.get(name ?? className);
}
