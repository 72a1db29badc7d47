/** All layers that can be imported, by their names in `torch.nn`, with a few of torchvision's that are as plain. */
import type { Rule } from "../rule.js";
import { ACTIVATION_RULES } from "./activation.js";
import { convolution, transposedConvolution } from "./convolution.js";
import { LINEAR, NOTHING } from "./linear.js";
import { NORMALISATION_RULES } from "./normalisation.js";
import { padding } from "./padding.js";
import { POOLING_RULES } from "./pooling.js";
import { RESHAPING_RULES } from "./reshaping.js";
import { RESIZE_RULES } from "./resize.js";

const AXES = [1, 2, 3] as const;

/** Rules by kind of layer. */
export const LAYER_RULES: ReadonlyMap<string, Rule> = new Map<string, Rule>([
  ["Linear", LINEAR],
  ["NonDynamicallyQuantizableLinear", LINEAR],
  ...AXES.flatMap((axes): [string, Rule][] => [
    [`Conv${axes}d`, convolution(axes)],
    [`ConvTranspose${axes}d`, transposedConvolution(axes)],
    [`ConstantPad${axes}d`, padding(axes, "constant")],
    [`ZeroPad${axes}d`, padding(axes, "constant")],
    [`ReflectionPad${axes}d`, padding(axes, "reflect")],
    [`ReplicationPad${axes}d`, padding(axes, "edge")],
    [`CircularPad${axes}d`, padding(axes, "circular")],
    [`Dropout${axes}d`, NOTHING],
  ]),
  ...["Identity", "Dropout", "AlphaDropout", "FeatureAlphaDropout", "StochasticDepth", "DropPath"].map(
    (kind): [string, Rule] => [kind, NOTHING],
  ),
  ...ACTIVATION_RULES,
  ...NORMALISATION_RULES,
  ...POOLING_RULES,
  ...RESHAPING_RULES,
  ...RESIZE_RULES,
]);

/** torchvision's classes that are plain layers or plain sequences. */
const TORCHVISION: ReadonlyMap<string, string> = new Map([
  ["torchvision.ops.misc.FrozenBatchNorm2d", "FrozenBatchNorm2d"],
  ["torchvision.ops.misc.Permute", "Permute"],
  ["torchvision.ops.stochastic_depth.StochasticDepth", "StochasticDepth"],
  ["torchvision.models.convnext.LayerNorm2d", "LayerNorm2d"],
  ...[
    "ops.misc.ConvNormActivation",
    "ops.misc.Conv2dNormActivation",
    "ops.misc.Conv3dNormActivation",
    "ops.misc.MLP",
    "models.mobilenetv2.ConvBNReLU",
    "models.mobilenetv2.ConvBNActivation",
  ].map((name): [string, string] => [`torchvision.${name}`, "Sequential"]),
]);

/** Containers that run what they hold in order, or would. */
export const CONTAINERS: ReadonlySet<string> = new Set(["Sequential", "ModuleList"]);

/**
 * The kind of layer that a class is; undefined for classes with a `forward` of their own. Only PyTorch's own
 * classes are known by their names: somebody else's `Linear` may do anything.
 */
export function layerKind(className: string): string | undefined {
  const [, own] = /^torch\.nn\.modules\.\w+\.(\w+)$/.exec(className) ?? [];
  const kind = own ?? TORCHVISION.get(className);
  return kind !== undefined && (LAYER_RULES.has(kind) || CONTAINERS.has(kind)) ? kind : undefined;
}
