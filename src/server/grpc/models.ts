/** What the service says of models, as messages: metadata, configuration, statistics. */
import type { MessageInitShape } from "@bufbuild/protobuf";
import type { DType } from "../../tensor/dtype.js";
import type { Dimension } from "../../tensor/shape.js";
import { type Datatype, datatypeOf, metadataShape } from "../protocol/datatypes.js";
import type { Limits } from "../protocol/limits.js";
import type { DurationStatistic, ModelStatistics, ServedModel, TensorSpec } from "../service.js";
import {
  DataType,
  type ModelConfigSchema,
  type ModelMetadataResponseSchema,
  type ModelStatisticsSchema,
} from "./generated/inference_pb.js";

/** As Triton calls ONNX files and what runs them; its clients know the words. */
const PLATFORM = "onnxruntime_onnx";
const BACKEND = "onnxruntime";

const DATA_TYPE: Record<Datatype, DataType> = {
  BOOL: DataType.TYPE_BOOL,
  UINT8: DataType.TYPE_UINT8,
  UINT16: DataType.TYPE_UINT16,
  UINT32: DataType.TYPE_UINT32,
  UINT64: DataType.TYPE_UINT64,
  INT8: DataType.TYPE_INT8,
  INT16: DataType.TYPE_INT16,
  INT32: DataType.TYPE_INT32,
  INT64: DataType.TYPE_INT64,
  FP16: DataType.TYPE_FP16,
  FP32: DataType.TYPE_FP32,
  FP64: DataType.TYPE_FP64,
  BYTES: DataType.TYPE_STRING,
  BF16: DataType.TYPE_BF16,
};

/**
 * A model's inputs and outputs.
 * @throws PolyheadError MODEL_UNSUPPORTED
 */
export function metadataMessage(model: ServedModel): MessageInitShape<typeof ModelMetadataResponseSchema> {
  return {
    name: model.name,
    versions: [...model.versions],
    platform: PLATFORM,
    inputs: model.inputs.map(tensorMetadata),
    outputs: model.outputs.map(tensorMetadata),
  };
}

/**
 * A model as Triton's clients want it configured. One whose inputs and outputs all begin with an open dimension
 * takes batches, of as many rows as a request may have elements; `dims` are then those of a row.
 * @throws PolyheadError MODEL_UNSUPPORTED
 */
export function configMessage(
  { name, inputs, outputs }: ServedModel,
  limits: Limits,
): MessageInitShape<typeof ModelConfigSchema> {
  const takesBatches =
    inputs.length > 0 && [...inputs, ...outputs].every(({ shape }) => typeof shape[0] === "string");
  const rows = inputs.map(({ shape }) => Math.floor(limits.tensorElements / leastRow(shape.slice(1))));
  const maxBatchSize = takesBatches ? Math.min(...rows, 2 ** 31 - 1) : 0;
  const tensorConfig = ({ name, dtype, shape }: TensorSpec) => ({
    name,
    dataType: dataTypeOf(dtype),
    dims: metadataShape(maxBatchSize > 0 ? shape.slice(1) : shape).map(BigInt),
  });
  return {
    name,
    platform: PLATFORM,
    backend: BACKEND,
    maxBatchSize,
    input: inputs.map(tensorConfig),
    output: outputs.map(tensorConfig),
  };
}

/** The account of one revision of one model. */
export function statisticsMessage(
  statistics: ModelStatistics,
): MessageInitShape<typeof ModelStatisticsSchema> {
  return {
    name: statistics.name,
    version: statistics.version,
    lastInference: BigInt(Math.round(statistics.lastInference)),
    inferenceCount: BigInt(statistics.inferenceCount),
    executionCount: BigInt(statistics.executionCount),
    inferenceStats: {
      success: duration(statistics.success),
      fail: duration(statistics.fail),
      queue: duration(statistics.queue),
      computeInput: duration(statistics.computeInput),
      computeInfer: duration(statistics.computeInfer),
      computeOutput: duration(statistics.computeOutput),
      cacheHit: duration(statistics.cacheHit),
      cacheMiss: duration(statistics.cacheMiss),
    },
    batchStats: statistics.batches.map(({ size, infer }) => ({
      batchSize: BigInt(size),
      computeInfer: duration(infer),
    })),
  };
}

function tensorMetadata({ name, dtype, shape }: TensorSpec) {
  return { name, datatype: datatypeOf(dtype), shape: metadataShape(shape).map(BigInt) };
}

/** Elements of a row, with one for every open dimension. */
function leastRow(shape: readonly Dimension[]): number {
  return shape.reduce<number>((count, size) => count * (typeof size === "number" ? Math.max(size, 1) : 1), 1);
}

function dataTypeOf(dtype: DType): DataType {
  return DATA_TYPE[datatypeOf(dtype)];
}

function duration({ count, ns }: DurationStatistic) {
  return { count: BigInt(count), ns: BigInt(Math.round(ns)) };
}
