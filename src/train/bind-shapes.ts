/**
 * A model for inputs of one size. Training knows how large its batches are, and with sizes in place of names every
 * shape in the graph is known before it runs, which is what differentiation needs.
 */
import { PolyheadError } from "../base/errors.js";
import { withGraph } from "../onnx/extract.js";
import { GraphIndex } from "../onnx/graph.js";
import { copyOf, declaredType, type Model, type ValueInfo, valueInfo } from "../onnx/model.js";
import { formatShape, type Shape } from "../tensor/shape.js";

/**
 * The model with the shapes of its inputs bound; initializers that a caller could replace are constants now. What the file
 * declared of other shapes is dropped, for it may name dimensions that have a size now.
 * @param shapes shapes of all inputs by name
 * @throws PolyheadError INPUT_MISMATCH when a shape is missing or contradicts the input's declaration
 */
export function bindShapes(model: Model, shapes: ReadonlyMap<string, Shape>): Model {
  const input = new GraphIndex(model.graph).inputs.map((info) => bound(info, shapes));
  return withGraph(
    model,
    copyOf(model.graph, {
      input,
      output: model.graph.output.map(withoutShape),
      valueInfo: model.graph.valueInfo.map(withoutShape),
    }),
  );
}

function bound(info: ValueInfo, shapes: ReadonlyMap<string, Shape>): ValueInfo {
  const type = declaredType(info);
  const shape = shapes.get(info.name);
  const fits =
    shape &&
    (!type?.shape ||
      (type.shape.length === shape.length &&
        type.shape.every((size, axis) => typeof size === "string" || size === shape[axis])));
  if (fits) return valueInfo(info.name, type?.dtype ?? "float32", shape);
  const expected = type?.shape ? formatShape(type.shape) : "any shape";
  const got = shape ? formatShape(shape) : "nothing";
  throw new PolyheadError(
    "INPUT_MISMATCH",
    `The input ${JSON.stringify(info.name)} takes ${expected}; got ${got}.`,
    { input: info.name, expected: type?.shape, got: shape },
  );
}

function withoutShape(info: ValueInfo): ValueInfo {
  const type = declaredType(info);
  return type ? valueInfo(info.name, type.dtype) : info;
}
