/**
 * Nodes that multiply each channel of images by one number, or add one to it: batch norms in evaluation mode, and Mul, Add
 * and Sub with one number a channel. All of them are x factor + summand, which a layout of its own can have as one pass.
 */
import { canonicalDomain, floatAttribute, intAttribute, type Node } from "../onnx/model.js";
import { type Shape, sameShape } from "../tensor/shape.js";
import type { Builder } from "./autodiff/builder.js";

/** What a node does to each channel. */
export interface ChannelMap {
  /** The images. */
  readonly x: string;
  /** Values with one number a channel that it reads. */
  readonly operands: readonly string[];
  /** Writes both as values of one element a channel. */
  readonly write: (builder: Builder) => { readonly factor: string; readonly summand: string };
}

/**
 * A node as a channel map; undefined for all others.
 * @param shapeOf shape of a value, where it is known
 */
export function channelMap(node: Node, shapeOf: (name: string) => Shape | undefined): ChannelMap | undefined {
  const { opType, input, output } = node;
  if (canonicalDomain(node.domain) !== "") return undefined;
  const shape = shapeOf(output[0] ?? "");
  const channels = shape?.[1] ?? 0;
  if (shape?.length !== 4 || channels === 0) return undefined;
  if (opType === "BatchNormalization") return output.length === 1 ? ofNorm(node) : undefined;
  if (opType !== "Mul" && opType !== "Add" && opType !== "Sub") return undefined;
  const isWhole = (name: string) => sameShape(shapeOf(name) ?? [], shape);
  const isPerChannel = (name: string) => {
    const own = shapeOf(name) ?? [];
    return own.length >= 3 && sameShape([1, ...own].slice(-4), [1, channels, 1, 1]);
  };
  const [a = "", b = ""] = input;
  const [x, operand] = opType !== "Sub" && isPerChannel(a) ? [b, a] : [a, b];
  if (!isWhole(x) || !isPerChannel(operand)) return undefined;
  const write = (builder: Builder) => {
    const own = builder.reshape(operand, [channels]);
    const all = (value: number) => builder.filled([channels], value, "float32");
    if (opType === "Mul") return { factor: own, summand: all(0) };
    return { factor: all(1), summand: opType === "Add" ? own : builder.op("Neg", [own]) };
  };
  return { x, operands: [operand], write };
}

/** (x - mean) scale / deviation + bias. */
function ofNorm(norm: Node): ChannelMap | undefined {
  const [x = "", ...operands] = norm.input;
  const [scale = "", bias = "", mean = "", variance = ""] = operands;
  if (intAttribute(norm, "training_mode", 0) !== 0) return undefined;
  const write = (builder: Builder) => {
    const epsilon = builder.scalar(floatAttribute(norm, "epsilon", 1e-5), "float32");
    const deviation = builder.op("Sqrt", [builder.op("Add", [variance, epsilon])]);
    const factor = builder.op("Div", [scale, deviation]);
    return { factor, summand: builder.op("Sub", [bias, builder.op("Mul", [mean, factor])]) };
  };
  return { x, operands, write };
}
