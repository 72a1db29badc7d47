/**
 * What a run of a model takes in memory for its values, told from shapes before anything is computed: a file of a few
 * bytes can ask for a tensor of any size. Weights are not counted, as they are no larger than their files; values are
 * counted from where they are made to where they are last read. Shapes that only the data decides are not known
 * here; dimensions that are not known count as 1, so that this is a lower bound.
 */
import { PolyheadError } from "../base/errors.js";
import { byteLength } from "../tensor/dtype.js";
import { formatShape, isConcrete, type Shape } from "../tensor/shape.js";
import type { Tensor } from "../tensor/tensor.js";
import { costOf, countAtOne } from "./cost.js";
import { withGraph } from "./extract.js";
import { GraphIndex, reads } from "./graph.js";
import { copyOf, declaredType, type Model, type ValueInfo, type ValueType, valueInfo } from "./model.js";
import { inferTypes } from "./shapes.js";

/** The values of a run may take this many bytes at a time: 512 MiB. */
export const MOST_RUN_BYTES = 2 ** 29;

/** What a run takes. */
export interface RunDemand {
  /** Bytes of the values that are alive at the worst moment of a run. */
  readonly bytes: number;
  /** The largest value, those in bodies of branches, loops and functions included. */
  readonly largest: { readonly name: string; readonly type: ValueType; readonly bytes: number } | undefined;
  /** Floating-point operations of all rows; those of bodies are not counted. */
  readonly flops: number;
}

/**
 * What a run takes on inputs of the given shapes.
 * @param given shapes by name of the input; what an input fixes goes before them
 */
export function runDemand(model: Model, given: ReadonlyMap<string, Shape>): RunDemand {
  const input = model.graph.input.map((info) => withShape(info, given.get(info.name)));
  let largest: RunDemand["largest"];
  const types = inferTypes(withGraph(model, copyOf(model.graph, { input })), (name, type) => {
    const bytes = bytesOf(type);
    if (!largest || bytes > largest.bytes) largest = { name, type, bytes };
  });
  const index = new GraphIndex(model.graph);
  const { flops } = costOf(index.order, index, types);
  const alive = mostAlive(index, (name) => types.get(name));
  return { bytes: Math.max(largest?.bytes ?? 0, alive), largest, flops };
}

/**
 * Bytes of the values that are alive at the worst moment of a run: for one row, where the number of rows is open.
 * @param typeOf what is known of a value
 */
export function rowDemand(model: Model, typeOf: (name: string) => ValueType | undefined): number {
  return mostAlive(new GraphIndex(model.graph), typeOf);
}

/**
 * Refuses a run that takes more than the limit.
 * @param sample inputs of the run; where they have several rows and the model takes one, it runs row by row
 * @throws PolyheadError LIMIT_EXCEEDED with the largest value
 */
export function requireMemory(
  model: Model,
  sample: ReadonlyMap<string, Pick<Tensor, "shape">>,
  limit = MOST_RUN_BYTES,
): void {
  const shapes = new Map([...sample].map(([name, { shape }]) => [name, shape]));
  const { bytes, largest } = runDemand(model, shapes);
  if (bytes <= limit) return;
  const what = largest
    ? `; the largest, ${JSON.stringify(largest.name)}, is ${largest.type.dtype} ${formatShape(largest.type.shape ?? [])}`
    : "";
  throw new PolyheadError(
    "LIMIT_EXCEEDED",
    `A run of the model would take ${inMebibytes(bytes)} for its values${what}. The limit for a trial is ${inMebibytes(limit)}; use smaller sizes for open dimensions, or correct the model.`,
    { bytes, limit, value: largest?.name, shape: largest?.type.shape },
  );
}

/** Bytes as people read them. */
export function inMebibytes(bytes: number): string {
  return `${(bytes / 2 ** 20).toPrecision(3)} MiB`;
}

/** Bytes of a value; 0 for strings and for values of unknown rank. */
export function bytesOf({ dtype, shape }: ValueType): number {
  return shape ? byteLength(dtype, countAtOne(shape)) : 0;
}

function withShape(info: ValueInfo, shape: Shape | undefined): ValueInfo {
  const type = declaredType(info);
  if (!type?.shape || !shape || type.shape.length !== shape.length || isConcrete(type.shape)) return info;
  return valueInfo(
    info.name,
    type.dtype,
    type.shape.map((size, axis) => (typeof size === "number" ? size : (shape[axis] ?? size))),
  );
}

/** The most bytes that values take at a time when nodes run in order and each value goes after its last reader. */
function mostAlive(index: GraphIndex, typeOf: (name: string) => ValueType | undefined): number {
  const last = new Map<string, number>();
  index.order.forEach((node, place) => {
    for (const name of [...node.output, ...reads(node)]) last.set(name, place);
  });
  for (const name of index.outputNames) last.set(name, index.order.length);
  const sizeOf = (name: string) => {
    const type = index.isWeight(name) ? undefined : typeOf(name);
    return type ? bytesOf(type) : 0;
  };
  let alive = index.inputs.reduce((sum, { name }) => sum + sizeOf(name), 0);
  let most = alive;
  index.order.forEach((node, place) => {
    for (const name of node.output) alive += sizeOf(name);
    most = Math.max(most, alive);
    for (const name of new Set([...node.output, ...reads(node)]))
      if (last.get(name) === place) alive -= sizeOf(name);
  });
  return most;
}
