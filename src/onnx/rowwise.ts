/**
 * Whether each row of a model's answer depends on the same row of its inputs alone, so that rows of different
 * callers can be run as one batch. It is found from the graph, by following the batch from the inputs on (see
 * batch.ts); no running proves it in general. A model that mixes rows, or whose rows cannot be followed, is not
 * rowwise, although it may well take several rows from one caller.
 */
import { dynamicBatch } from "./batch.js";
import { withGraph } from "./extract.js";
import { GraphIndex } from "./graph.js";
import { copyOf, declaredType, type Model, type ValueInfo, valueInfo } from "./model.js";
import { inferTypes, inferValues } from "./shapes.js";

/** Whether the rows of an answer are independent of each other. */
export function isRowwise(model: Model): boolean {
  const index = new GraphIndex(model.graph);
  const isOpen = (info: ValueInfo) => {
    const shape = declaredType(info)?.shape;
    return shape !== undefined && shape.length > 1 && typeof shape[0] === "string";
  };
  if (index.inputs.length === 0 || !index.inputs.every(isOpen)) return false;
  const single = withGraph(
    model,
    copyOf(model.graph, {
      input: model.graph.input.map(atOneRow),
      output: [...model.graph.output],
      valueInfo: [],
    }),
  );
  const { types, constants } = inferValues(model);
  const spread = (value: string) => {
    const open = (types.get(value)?.shape ?? []).flatMap((size, axis) =>
      typeof size === "string" ? [axis] : [],
    );
    return open.length === 1 ? open[0] : undefined;
  };
  const { model: opened, fixed } = dynamicBatch(single, inferTypes(single), { spread, constants });
  if (opened === single || fixed.length > 0) return false;
  // A node that had to be rewritten because a constant says one row is wrong for several as it stands.
  const kept = new Set(opened.graph.node);
  const isConstant = (name: string) =>
    index.isWeight(name) || index.producers.get(name)?.opType === "Constant";
  return single.graph.node.every((node) => kept.has(node) || !node.input.slice(1).some(isConstant));
}

function atOneRow(info: ValueInfo): ValueInfo {
  const type = declaredType(info);
  return type?.shape ? valueInfo(info.name, type.dtype, type.shape.with(0, 1)) : info;
}
