/**
 * A model as Triton's clients want it configured (the model configuration extension): Triton's names for what runs it
 * and for element types, and the shapes of a row where the model takes batches.
 */
import type { DType } from "../../tensor/dtype.js";
import type { Dimension } from "../../tensor/shape.js";
import type { ServedModel, TensorSpec } from "../service.js";
import { type Datatype, datatypeOf, metadataShape } from "./datatypes.js";
import type { Limits } from "./limits.js";

/** The extensions that this server has, by the names of their specifications. */
export const EXTENSIONS = [
  "binary_tensor_data",
  "classification",
  "model_configuration",
  "model_repository",
  "statistics",
];

/** As Triton calls ONNX files and what runs them; its clients know the words. */
export const PLATFORM = "onnxruntime_onnx";
const BACKEND = "onnxruntime";

/** An input or output of a configuration. */
export interface TensorConfig {
  readonly name: string;
  /** `TYPE_FP32` */
  readonly data_type: `TYPE_${Exclude<Datatype, "BYTES"> | "STRING"}`;
  readonly dims: readonly number[];
}

/** A configuration, with the field names of Triton's ModelConfig. */
export interface ModelConfig {
  readonly name: string;
  readonly platform: string;
  readonly backend: string;
  /** Rows that a request may have; 0 for a model that takes no batches. */
  readonly max_batch_size: number;
  readonly input: readonly TensorConfig[];
  readonly output: readonly TensorConfig[];
}

/**
 * The configuration of a model. One whose inputs and outputs all begin with an open dimension takes batches, of as many
 * rows as a request may have elements; `dims` are then those of a row.
 * @throws PolyheadError MODEL_UNSUPPORTED
 */
export function modelConfig({ name, inputs, outputs }: ServedModel, limits: Limits): ModelConfig {
  const takesBatches =
    inputs.length > 0 && [...inputs, ...outputs].every(({ shape }) => typeof shape[0] === "string");
  const rows = inputs.map(({ shape }) => Math.floor(limits.tensorElements / leastRow(shape.slice(1))));
  const maxBatchSize = takesBatches ? Math.min(...rows, 2 ** 31 - 1) : 0;
  const tensorConfig = ({ name, dtype, shape }: TensorSpec): TensorConfig => ({
    name,
    data_type: dataType(dtype),
    dims: metadataShape(maxBatchSize > 0 ? shape.slice(1) : shape),
  });
  return {
    name,
    platform: PLATFORM,
    backend: BACKEND,
    max_batch_size: maxBatchSize,
    input: inputs.map(tensorConfig),
    output: outputs.map(tensorConfig),
  };
}

function dataType(dtype: DType): TensorConfig["data_type"] {
  const datatype = datatypeOf(dtype);
  return datatype === "BYTES" ? "TYPE_STRING" : `TYPE_${datatype}`;
}

/** Elements of a row, with one for every open dimension. */
function leastRow(shape: readonly Dimension[]): number {
  return shape.reduce<number>((count, size) => count * (typeof size === "number" ? Math.max(size, 1) : 1), 1);
}
