/** What the service says of models, as messages: metadata, configuration, statistics. */
import type { MessageInitShape } from "@bufbuild/protobuf";
import { datatypeOf, metadataShape } from "../protocol/datatypes.js";
import type { Limits } from "../protocol/limits.js";
import { modelConfig, PLATFORM, type TensorConfig } from "../protocol/model-config.js";
import type { DurationStatistic, ModelStatistics, ServedModel, TensorSpec } from "../service.js";
import {
  DataType,
  type ModelConfigSchema,
  type ModelMetadataResponseSchema,
  type ModelStatisticsSchema,
} from "./generated/inference_pb.js";

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
 * A model's configuration.
 * @throws PolyheadError MODEL_UNSUPPORTED
 */
export function configMessage(
  model: ServedModel,
  limits: Limits,
): MessageInitShape<typeof ModelConfigSchema> {
  const { name, platform, backend, max_batch_size: maxBatchSize, input, output } = modelConfig(model, limits);
  const tensorConfig = ({ name, data_type, dims }: TensorConfig) => ({
    name,
    dataType: DataType[data_type],
    dims: dims.map(BigInt),
  });
  return {
    name,
    platform,
    backend,
    maxBatchSize,
    input: input.map(tensorConfig),
    output: output.map(tensorConfig),
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

function duration({ count, ns }: DurationStatistic) {
  return { count: BigInt(count), ns: BigInt(Math.round(ns)) };
}
