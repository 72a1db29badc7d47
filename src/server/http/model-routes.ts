/** The Open Inference Protocol's health and metadata, the statistics extension, and Prometheus' metrics. */
import type { FastifyInstance } from "fastify";
import { datatypeOf, metadataShape } from "../protocol/datatypes.js";
import type { Limits } from "../protocol/limits.js";
import { EXTENSIONS, modelConfig, PLATFORM } from "../protocol/model-config.js";
import { checkModelName } from "../protocol/names.js";
import type { ModelStatistics, Service, TensorSpec } from "../service.js";
import { documented } from "./documented.js";
import {
  Live,
  ModelConfigAnswer,
  ModelMetadata,
  ModelReady,
  Ready,
  ServerMetadata,
  StatisticsAnswer,
} from "./schemas.js";

/** Times that are not measured by batch size: collected never. */
const NOT_COLLECTED = { count: 0, ns: 0 };

/** Parameters of a path that names a model. */
export interface ModelPath {
  readonly model: string;
  readonly version?: string;
}

/** The names of a path, checked. @throws PolyheadError INVALID_ARGUMENT */
export function modelOf(params: ModelPath, limits: Limits): { name: string; version: string | undefined } {
  const name = checkModelName(params.model, "The model's name", limits);
  const { version } = params;
  return {
    name,
    version: version === undefined ? undefined : checkModelName(version, "The version", limits),
  };
}

/** Adds the routes. */
export function addModelRoutes(app: FastifyInstance, service: Service, limits: Limits): void {
  app.get("/v2", documented("server", "Server metadata", "read", { answer: ServerMetadata }), async () => ({
    name: service.name,
    version: service.version,
    extensions: EXTENSIONS,
  }));
  app.get(
    "/v2/health/live",
    documented("server", "Whether the process works", "open", { answer: Live }),
    async (_, reply) => {
      const live = service.isLive();
      return reply.code(live ? 200 : 503).send({ live });
    },
  );
  app.get(
    "/v2/health/ready",
    documented("server", "Whether requests are welcome", "open", { answer: Ready }),
    async (_, reply) => {
      const ready = service.isLive() && service.isReady();
      return reply.code(ready ? 200 : 503).send({ live: service.isLive(), ready });
    },
  );
  app.get("/metrics", documented("server", "Metrics in Prometheus' text format", "read"), async (_, reply) =>
    reply.header("content-type", "text/plain; version=0.0.4; charset=utf-8").send(service.metrics()),
  );
  app.get(
    "/v2/models/stats",
    documented("statistics", "Statistics of all models", "read", { answer: StatisticsAnswer }),
    async () => statistics(service.statistics()),
  );
  for (const path of ["/v2/models/:model", "/v2/models/:model/versions/:version"]) {
    app.get<{ Params: ModelPath }>(
      path,
      documented("models", "Model metadata", "read", { answer: ModelMetadata }),
      async ({ params }) => {
        const { name, version } = modelOf(params, limits);
        const model = service.model(name, version);
        return {
          name: model.name,
          versions: model.versions,
          platform: PLATFORM,
          inputs: model.inputs.map(metadata),
          outputs: model.outputs.map(metadata),
        };
      },
    );
    app.get<{ Params: ModelPath }>(
      `${path}/ready`,
      documented("models", "Whether a model answers", "read", { answer: ModelReady }),
      async ({ params }, reply) => {
        const { name, version } = modelOf(params, limits);
        service.model(name, version);
        const ready = service.isReady();
        return reply.code(ready ? 200 : 503).send({ name, ready });
      },
    );
    app.get<{ Params: ModelPath }>(
      `${path}/config`,
      documented("models", "A model as Triton's clients want it configured", "read", {
        answer: ModelConfigAnswer,
      }),
      async ({ params }) => {
        const { name, version } = modelOf(params, limits);
        return modelConfig(service.model(name, version), limits);
      },
    );
    app.get<{ Params: ModelPath }>(
      `${path}/stats`,
      documented("statistics", "Statistics of a model", "read", { answer: StatisticsAnswer }),
      async ({ params }) => {
        const { name, version } = modelOf(params, limits);
        return statistics(service.statistics(name, version));
      },
    );
  }
}

function metadata({ name, dtype, shape }: TensorSpec) {
  return { name, datatype: datatypeOf(dtype), shape: metadataShape(shape) };
}

function statistics(models: readonly ModelStatistics[]) {
  return {
    model_stats: models.map((model) => ({
      name: model.name,
      version: model.version,
      last_inference: model.lastInference,
      inference_count: model.inferenceCount,
      execution_count: model.executionCount,
      inference_stats: {
        success: model.success,
        fail: model.fail,
        queue: model.queue,
        compute_input: model.computeInput,
        compute_infer: model.computeInfer,
        compute_output: model.computeOutput,
        cache_hit: model.cacheHit,
        cache_miss: model.cacheMiss,
      },
      batch_stats: model.batches.map(({ size, infer }) => ({
        batch_size: size,
        compute_input: NOT_COLLECTED,
        compute_infer: infer,
        compute_output: NOT_COLLECTED,
      })),
    })),
  };
}
