/**
 * Batches out of arrays: `x` [steps, batch, ...] and `y` [steps, batch, ...] as they stand, or one batch alone. Which
 * it is, the number of dimensions of the model's input says.
 */
import { PolyheadError } from "../base/errors.js";
import { declaredType } from "../onnx/model.js";
import { formatShape } from "../tensor/shape.js";
import { type Tensor, tensor } from "../tensor/tensor.js";
import type { Loss } from "./losses.js";
import type { Batch } from "./trainer.js";
import type { TrainingModel } from "./training-model.js";

const MATCHED = { kind: "mean-squared" } as const;

/** What the batches are for. */
export interface ArrayBatchOptions {
  readonly loss: Loss;
  /** Output that the loss looks at; the first by default. */
  readonly output?: string | undefined;
  /** Values of the model that are brought near to arrays of their own (feature matching). */
  readonly matches?: readonly Match[] | undefined;
}

/** A value of the model and how much its mean squared difference from the array `y/VALUE` counts. */
export interface Match {
  readonly value: string;
  readonly weight: number;
}

/**
 * All batches of a model's arrays. The lone input of a model may be called `x`; several go by their names. The target
 * is `y`, that of a value to be matched `y/VALUE`.
 * @throws PolyheadError INPUT_MISMATCH when arrays are missing or do not go together
 */
export function arrayBatches(
  model: TrainingModel,
  arrays: ReadonlyMap<string, Tensor>,
  { loss, output, matches = [] }: ArrayBatchOptions,
): Batch[] {
  const inputs = model.inputs.map((name) => {
    const found = arrays.get(name) ?? (model.inputs.length === 1 ? arrays.get("x") : undefined);
    return [name, found ?? missing(model.inputs.length === 1 ? "x" : name, arrays)] as const;
  });
  const [first] = inputs;
  if (!first) throw mismatch("The model has no input that could be trained on.", {});
  const rank = model.rank(first[0]) ?? first[1].shape.length;
  const isSeries = first[1].shape.length === rank + 1;
  const targets = [
    { name: "y", loss, output, weight: 1 },
    ...matches.map(({ value, weight }) => ({ name: `y/${value}`, loss: MATCHED, output: value, weight })),
  ].map((each) => ({ ...each, target: arrays.get(each.name) ?? missing(each.name, arrays) }));
  const count = isSeries ? (first[1].shape[0] ?? 0) : 1;
  const part = (name: string, value: Tensor, at: number) => {
    if (!isSeries) return value;
    if (value.shape[0] === count) return rowAt(value, at);
    throw mismatch(
      `The array ${JSON.stringify(name)} has the shape ${formatShape(value.shape)}; expected ${count} batches, as ${JSON.stringify(first[0])} has.`,
      { array: name, got: value.shape, expected: count },
    );
  };
  if (inputs.some(([, { data }]) => data.length === 0))
    throw mismatch("The arrays hold no batch.", { got: first[1].shape });
  return Array.from({ length: count }, (_, at) => ({
    inputs: new Map(
      inputs.map(([name, value]) => [name, suited(model, name, part(name, value, at))] as const),
    ),
    terms: targets.map(({ name, target, output: of, ...term }) => ({
      ...term,
      target: part(name, target, at),
      ...(of !== undefined && { output: of }),
    })),
  }));
}

/** One element of the first dimension, without that dimension; a view of the same memory. */
function rowAt({ dtype, shape, data }: Tensor, at: number): Tensor {
  const [count = 1, ...rest] = shape;
  const size = data.length / count;
  const part = ArrayBuffer.isView(data)
    ? data.subarray(at * size, (at + 1) * size)
    : data.slice(at * size, (at + 1) * size);
  return tensor(dtype, rest, part);
}

/** NumPy's float64 goes into float32 inputs; any other difference is an error. */
function suited(model: TrainingModel, name: string, value: Tensor): Tensor {
  const info = model.model.graph.input.find((each) => each.name === name);
  const wanted = info && declaredType(info)?.dtype;
  if (!wanted || wanted === value.dtype) return value;
  if (wanted === "float32" && value.dtype === "float64") {
    return tensor("float32", value.shape, Float32Array.from(value.data as Float64Array));
  }
  throw mismatch(`The input ${JSON.stringify(name)} takes ${wanted}; got ${value.dtype}.`, {
    input: name,
    expected: wanted,
    got: value.dtype,
  });
}

function missing(name: string, arrays: ReadonlyMap<string, Tensor>): never {
  const got = [...arrays.keys()];
  throw mismatch(`There is no array ${JSON.stringify(name)}; got ${got.join(", ") || "none"}.`, {
    expected: name,
    got,
  });
}

function mismatch(message: string, details: Readonly<Record<string, unknown>>): PolyheadError {
  return new PolyheadError("INPUT_MISMATCH", message, details);
}
