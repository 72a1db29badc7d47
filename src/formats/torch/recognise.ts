/**
 * Weights without a description, recognised by their names and shapes. Only what is certain is made into a model: a
 * single linear layer or 1x1 convolution; a chain of them once the caller says what stands between; and the classifiers
 * of torchvision's models, whose layers are published. For all else the caller is asked, with a draft to fill in.
 */
import type { PolyheadError } from "../../base/errors.js";
import { formatShape } from "../../tensor/shape.js";
import type { LayerEntry } from "./architecture.js";
import { modulesOf, type State, withoutPrefixes } from "./checkpoint.js";
import { unsupported } from "./objects.js";

/** A classifier whose layers are known. */
interface Tail {
  readonly model: string;
  readonly head: string;
  /** Names that the whole state has, with the ranks of their tensors. */
  readonly whole: Readonly<Record<string, number>>;
  /** Names and ranks of the head's weights, all of them. */
  readonly weights: Readonly<Record<string, number>>;
  readonly layers: readonly (string | LayerEntry)[];
}

/** torchvision's classifiers that have more layers than one. */
const TAILS: readonly Tail[] = [
  {
    model: "VGG",
    head: "classifier",
    whole: { "features.0.weight": 4, "features.2.weight": 4 },
    weights: { "0": 2, "3": 2, "6": 2 },
    layers: ["Linear", "ReLU", "Dropout", "Linear", "ReLU", "Dropout", "Linear"],
  },
  {
    model: "VGG (with batch norms)",
    head: "classifier",
    whole: { "features.0.weight": 4, "features.1.running_mean": 1 },
    weights: { "0": 2, "3": 2, "6": 2 },
    layers: ["Linear", "ReLU", "Dropout", "Linear", "ReLU", "Dropout", "Linear"],
  },
  {
    model: "AlexNet",
    head: "classifier",
    whole: { "features.0.weight": 4, "features.3.weight": 4 },
    weights: { "1": 2, "4": 2, "6": 2 },
    layers: ["Dropout", "Linear", "ReLU", "Dropout", "Linear", "ReLU", "Linear"],
  },
  {
    model: "SqueezeNet",
    head: "classifier",
    whole: { "features.0.weight": 4, "features.3.squeeze.weight": 4 },
    weights: { "1": 4 },
    layers: ["Dropout", "Conv2d", "ReLU", { type: "AdaptiveAvgPool2d", output_size: 1 }, "Flatten"],
  },
  {
    model: "MobileNetV3",
    head: "classifier",
    whole: { "features.0.0.weight": 4, "features.1.block.0.0.weight": 4 },
    weights: { "0": 2, "3": 2 },
    layers: ["Linear", "Hardswish", "Dropout", "Linear"],
  },
  {
    model: "ConvNeXt",
    head: "classifier",
    whole: { "features.0.0.weight": 4, "features.1.0.layer_scale": 3 },
    weights: { "0": 1, "2": 2 },
    layers: [{ type: "LayerNorm2d", eps: 1e-6 }, "Flatten", "Linear"],
  },
  {
    model: "MaxVit",
    head: "classifier",
    whole: { "stem.0.0.weight": 4 },
    weights: { "2": 1, "3": 2, "5": 2 },
    layers: [
      { type: "AdaptiveAvgPool2d", output_size: 1 },
      "Flatten",
      "LayerNorm",
      "Linear",
      "Tanh",
      "Linear",
    ],
  },
  {
    model: "VisionTransformer",
    head: "heads",
    whole: { "conv_proj.weight": 4, class_token: 3 },
    weights: { pre_logits: 2, head: 2 },
    layers: [{ type: "Linear", name: "pre_logits" }, "Tanh", { type: "Linear", name: "head" }],
  },
];

/** What the caller says about weights. */
export interface Hints {
  /** The activation between the layers of a chain. */
  readonly hidden?: string | undefined;
  /** All weights that the state was taken from, and where in them it stands. */
  readonly whole: State;
  readonly path: string;
  /** Modules that the file lists, those without weights included. */
  readonly modules: readonly string[];
}

/**
 * The layers that weights belong to, as an architecture.
 * @throws PolyheadError MODEL_UNSUPPORTED when they are not certain, with what to say or to fill in
 */
export function recognise(given: State, hints: Hints, notes: string[]): (string | LayerEntry)[] {
  const tail = knownTail(given, hints);
  if (tail) {
    notes.push(
      `Read as the classifier of torchvision's ${tail.model}: ${tail.layers.map((layer) => (typeof layer === "string" ? layer : layer.type)).join(", ")}. If it was replaced, say what it is with --architecture.`,
    );
    return [...tail.layers];
  }
  const state = withoutPrefixes(given).at(-1) ?? given;
  const modules = modulesOf(state);
  const weights = modules.map((name) => ({
    name,
    shape: state.get(name === "" ? "weight" : `${name}.weight`)?.shape,
  }));
  const isPlain = [...state.keys()].every((name) => /(^|\.)(weight|bias)$/.test(name));
  const kinds = weights.map(({ shape }) => (shape ? pointwise(shape) : undefined));
  const isChain =
    isPlain &&
    kinds.length > 0 &&
    kinds.every((kind) => kind !== undefined && kind === kinds[0]) &&
    weights.every(({ shape }, at) => at === 0 || shape?.[1] === weights[at - 1]?.shape?.[0]);
  const [kind = ""] = kinds;
  if (!isChain) throw uncertain(state, weights, hints);
  if (weights.length === 1) return [{ type: kind, name: weights[0]?.name ?? "" }];
  const { hidden } = hints;
  if (hidden === undefined) throw openActivation(weights, kind, hints);
  if (hidden !== "none")
    notes.push(
      `${hidden} stands between the layers, and nothing behind the last, as --hidden says; the file does not.`,
    );
  return weights.flatMap(({ name }, at) => [
    ...(at > 0 && hidden !== "none" ? [{ type: hidden, name: `hidden_${at}` }] : []),
    { type: kind, name },
  ]);
}

/** The layer that a weight is certain to belong to. */
function pointwise(shape: readonly number[]): string | undefined {
  const [, , ...kernel] = shape;
  if (shape.length === 2) return "Linear";
  return shape.length > 2 && shape.length <= 5 && kernel.every((size) => size === 1)
    ? `Conv${kernel.length}d`
    : undefined;
}

function knownTail(state: State, { whole, path }: Hints): Tail | undefined {
  const modules = modulesOf(state).filter((name) => name !== "");
  return TAILS.find((tail) => {
    const root =
      path === tail.head ? "" : path.endsWith(`.${tail.head}`) ? path.slice(0, -tail.head.length) : undefined;
    if (root === undefined) return false;
    const names = Object.keys(tail.weights);
    return (
      modules.length === names.length &&
      names.every((name) => state.get(`${name}.weight`)?.shape.length === tail.weights[name]) &&
      Object.entries(tail.whole).every(([name, rank]) => whole.get(root + name)?.shape.length === rank)
    );
  });
}

interface NamedShape {
  readonly name: string;
  readonly shape: readonly number[] | undefined;
}

function openActivation(weights: readonly NamedShape[], kind: string, { modules }: Hints): PolyheadError {
  const sizes = [weights[0]?.shape?.[1], ...weights.map(({ shape }) => shape?.[0])].join(" -> ");
  const silent = modules.filter((name) => !weights.some((each) => each.name === name));
  const evidence =
    silent.length > 0
      ? ` It lists layers without weights at ${silent.slice(0, 8).join(", ")}, but not which.`
      : "";
  return unsupported(
    `The file holds ${weights.length} layers, ${kind} ${sizes}, and does not say what stands between them.${evidence} Say it: --hidden relu, gelu, tanh, ..., or none; ` +
      `or all of it with --architecture, such as --architecture '${JSON.stringify(draft(weights))}'.`,
    { layers: weights, draft: draft(weights) },
  );
}

function uncertain(state: State, weights: readonly NamedShape[], { path }: Hints): PolyheadError {
  const heads = likelyHeads(state);
  if (weights.length > MOST_DRAFTED) {
    const flags = heads.map((name) => `--head ${path === "" ? name : `${path}.${name}`}`);
    return unsupported(
      `The file holds the weights of a whole network (${weights.length} layers), and weights do not say how they are connected. ` +
        (flags.length > 0 ? `Take its head alone: ${flags.join(", or ")}. ` : "") +
        'For all of it, export it to ONNX where its class is: torch.onnx.export(model.eval(), torch.zeros(1, 3, 224, 224), "model.onnx").',
      { layers: weights.length, heads },
    );
  }
  const whole =
    path === "" ? heads.filter((name) => modulesOf(state).some((each) => !isWithin(each, name))) : [];
  const part =
    whole.length > 0
      ? ` Take a part that is its head: ${whole.map((name) => `--head ${name}`).join(", or ")}; or`
      : "";
  return unsupported(
    `The weights do not say by themselves what they compute: ${weights
      .slice(0, 8)
      .map(({ name, shape }) => `${name || "weight"} ${formatShape(shape ?? [])}`)
      .join(
        ", ",
      )}.${part === "" ? " Describe" : `${part} describe`} the layers: --architecture '${JSON.stringify(draft(weights))}', with padding, activations and poolings filled in.`,
    { layers: weights.slice(0, MOST_DRAFTED), draft: draft(weights), heads },
  );
}

const MOST_DRAFTED = 12;

/** What torchvision, timm and Hugging Face call the heads of classifiers. */
const HEAD_NAMES = ["fc", "classifier", "cls_classifier", "score", "heads", "head", "last_linear"];

function isWithin(name: string, part: string): boolean {
  return name === part || name.startsWith(`${part}.`);
}

/** Parts that are heads by their names, or the last layer if it is linear. */
function likelyHeads(state: State): string[] {
  const modules = modulesOf(state);
  const named = HEAD_NAMES.filter((head) => modules.some((name) => isWithin(name, head)));
  if (named.length > 0) return named;
  const last = modules.findLast((name) => state.get(`${name}.weight`)?.shape.length === 2);
  return last === undefined ? [] : [last];
}

/** An architecture with question marks where the weights say nothing. */
function draft(weights: readonly NamedShape[]): (string | LayerEntry)[] {
  const numbers = weights.map(({ name }) => Number(name));
  const isNumbered = weights.every(({ name }) => /^\d{1,3}$/.test(name));
  const typeOf = (shape: readonly number[] | undefined) => {
    if (shape?.length === 1) return "BatchNorm1d, LayerNorm or ...?";
    return shape?.length === 2 ? "Linear" : `Conv${Math.max(1, (shape?.length ?? 3) - 2)}d`;
  };
  if (!isNumbered) return weights.map(({ name, shape }) => ({ type: typeOf(shape), name }));
  const last = Math.min(Math.max(...numbers), 64);
  return Array.from({ length: last + 1 }, (_, at) => {
    const found = weights[numbers.indexOf(at)];
    return found ? typeOf(found.shape) : "?";
  });
}
