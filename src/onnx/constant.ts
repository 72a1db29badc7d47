/**
 * `Constant` nodes as weights: ONNX lets a node hold a tensor, a number, a list or text, and all of them are
 * just another way to write an initializer.
 */
import { float32, int64, type Tensor } from "../tensor/tensor.js";
import { type Attribute, AttributeType, type Node, type Weight } from "./model.js";
import { weight } from "./weight.js";

/**
 * The weight that a `Constant` node stands for; undefined for sparse ones, which have no dense form here.
 * @param attributes those of the node, with references of a function's body resolved
 */
export function constantOf(
  node: Node,
  attributes: readonly Attribute[] = node.attribute,
): Weight | undefined {
  const value = attributes[0];
  if (value?.refAttrName !== "") return undefined;
  const name = node.output[0] ?? "";
  const strings = (items: readonly Uint8Array[], shape: readonly number[]): Tensor => ({
    dtype: "string",
    shape,
    data: items.map((item) => new TextDecoder().decode(item)),
  });
  switch (value.type) {
    case AttributeType.TENSOR:
      return value.t;
    case AttributeType.FLOAT:
      return weight(name, float32([], [value.f]));
    case AttributeType.FLOATS:
      return weight(name, float32([value.floats.length], value.floats));
    case AttributeType.INT:
      return weight(name, int64([], [value.i]));
    case AttributeType.INTS:
      return weight(name, int64([value.ints.length], value.ints));
    case AttributeType.STRING:
      return weight(name, strings([value.s], []));
    case AttributeType.STRINGS:
      return weight(name, strings(value.strings, [value.strings.length]));
    default:
      return undefined;
  }
}
