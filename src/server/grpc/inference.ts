/**
 * The methods of GRPCInferenceService that have one request and one answer. What Triton has beside models (shared
 * memory, tracing, its log) is not here: clients that ask learn so, and those that only tidy up are let go on.
 */
import { PolyheadError } from "../../base/errors.js";
import { type Limits, limitExceeded } from "../protocol/limits.js";
import { EXTENSIONS } from "../protocol/model-config.js";
import { checkModelName } from "../protocol/names.js";
import { shown } from "../protocol/shown.js";
import type { Scope } from "../protocol/tokens.js";
import type { Author, Service } from "../service.js";
import type { Call } from "./call.js";
import {
  CudaSharedMemoryStatusRequestSchema,
  CudaSharedMemoryStatusResponseSchema,
  CudaSharedMemoryUnregisterResponseSchema,
  ModelConfigRequestSchema,
  ModelConfigResponseSchema,
  ModelInferRequestSchema,
  ModelInferResponseSchema,
  ModelMetadataRequestSchema,
  ModelMetadataResponseSchema,
  ModelReadyRequestSchema,
  ModelReadyResponseSchema,
  type ModelRepositoryParameter,
  ModelStatisticsRequestSchema,
  ModelStatisticsResponseSchema,
  RepositoryIndexRequestSchema,
  RepositoryIndexResponseSchema,
  RepositoryModelLoadRequestSchema,
  RepositoryModelLoadResponseSchema,
  RepositoryModelUnloadRequestSchema,
  RepositoryModelUnloadResponseSchema,
  ServerLiveResponseSchema,
  ServerMetadataResponseSchema,
  ServerReadyResponseSchema,
  SystemSharedMemoryStatusRequestSchema,
  SystemSharedMemoryStatusResponseSchema,
  SystemSharedMemoryUnregisterResponseSchema,
} from "./generated/inference_pb.js";
import { decode, encode } from "./messages.js";
import { configMessage, metadataMessage, statisticsMessage } from "./models.js";
import { inferResponse, readInferRequest, versionOf } from "./request.js";

/** A method: bytes of a request to bytes of its answer. */
export type Unary = (bytes: Buffer, call: Call) => Promise<Buffer>;

/** What each method needs of a token; methods that are not named here need none. */
export const SCOPES: ReadonlyMap<string, Scope> = new Map<string, Scope>([
  ["ServerMetadata", "read"],
  ["ModelReady", "read"],
  ["ModelMetadata", "read"],
  ["ModelConfig", "read"],
  ["ModelInfer", "read"],
  ["ModelStreamInfer", "read"],
  ["ModelStatistics", "read"],
  ["RepositoryIndex", "read"],
  ["RepositoryModelLoad", "control"],
  ["RepositoryModelUnload", "control"],
  ["SystemSharedMemoryStatus", "read"],
  ["SystemSharedMemoryUnregister", "read"],
  ["CudaSharedMemoryStatus", "read"],
  ["CudaSharedMemoryUnregister", "read"],
]);

/** Methods of the published service that this server does not have. */
export const UNIMPLEMENTED: ReadonlyMap<string, string> = new Map([
  ["SystemSharedMemoryRegister", "Shared memory is not supported; send tensors as raw_input_contents."],
  ["CudaSharedMemoryRegister", "Shared memory is not supported; send tensors as raw_input_contents."],
  ["TraceSetting", "Traces are configured where the server is started, not by its clients."],
  ["LogSettings", "The log is configured where the server is started, not by its clients."],
]);

/**
 * The methods by their names.
 * @param authorOf who is behind a call that changes something
 */
export function inferenceMethods(
  service: Service,
  limits: Limits,
  authorOf: (call: Call) => Author,
): Readonly<Record<string, Unary>> {
  const named = ({ name, version }: { readonly name: string; readonly version: string }) =>
    service.model(checkModelName(name, "The model's name", limits), versionOf(version, limits));

  return {
    async ServerLive() {
      return encode(ServerLiveResponseSchema, { live: service.isLive() });
    },
    async ServerReady() {
      return encode(ServerReadyResponseSchema, { ready: service.isReady() });
    },
    async ServerMetadata() {
      const { name, version } = service;
      return encode(ServerMetadataResponseSchema, { name, version, extensions: EXTENSIONS });
    },
    async ModelReady(bytes) {
      const request = decode(ModelReadyRequestSchema, bytes);
      return encode(ModelReadyResponseSchema, { ready: service.isReady() && exists(() => named(request)) });
    },
    async ModelMetadata(bytes) {
      const model = named(decode(ModelMetadataRequestSchema, bytes));
      return encode(ModelMetadataResponseSchema, metadataMessage(model));
    },
    async ModelConfig(bytes) {
      const model = named(decode(ModelConfigRequestSchema, bytes));
      return encode(ModelConfigResponseSchema, { config: configMessage(model, limits) });
    },
    async ModelStatistics(bytes) {
      const { name, version } = decode(ModelStatisticsRequestSchema, bytes);
      const statistics =
        name === ""
          ? service.statistics()
          : service.statistics(checkModelName(name, "The model's name", limits), versionOf(version, limits));
      return encode(ModelStatisticsResponseSchema, { modelStats: statistics.map(statisticsMessage) });
    },
    ModelInfer: (bytes, call) => infer(bytes, call, service, limits),

    async RepositoryIndex(bytes) {
      const { repositoryName, ready } = decode(RepositoryIndexRequestSchema, bytes);
      refuseRepository(repositoryName);
      const models = await service.repositoryIndex(ready);
      return encode(RepositoryIndexResponseSchema, { models: models.map((entry) => ({ ...entry })) });
    },
    async RepositoryModelLoad(bytes, call) {
      const { repositoryName, modelName, parameters } = decode(RepositoryModelLoadRequestSchema, bytes);
      refuseRepository(repositoryName);
      const name = checkModelName(modelName, "The model's name", limits);
      await service.repositoryLoad(name, fileOf(parameters, limits), authorOf(call));
      return encode(RepositoryModelLoadResponseSchema, {});
    },
    async RepositoryModelUnload(bytes, call) {
      const { repositoryName, modelName } = decode(RepositoryModelUnloadRequestSchema, bytes);
      refuseRepository(repositoryName);
      await service.repositoryUnload(checkModelName(modelName, "The model's name", limits), authorOf(call));
      return encode(RepositoryModelUnloadResponseSchema, {});
    },

    // There never are any regions: this is the truth for those who ask, and nothing to do for those who tidy up.
    async SystemSharedMemoryStatus(bytes) {
      refuseRegion(decode(SystemSharedMemoryStatusRequestSchema, bytes).name);
      return encode(SystemSharedMemoryStatusResponseSchema, {});
    },
    async SystemSharedMemoryUnregister() {
      return encode(SystemSharedMemoryUnregisterResponseSchema, {});
    },
    async CudaSharedMemoryStatus(bytes) {
      refuseRegion(decode(CudaSharedMemoryStatusRequestSchema, bytes).name);
      return encode(CudaSharedMemoryStatusResponseSchema, {});
    },
    async CudaSharedMemoryUnregister() {
      return encode(CudaSharedMemoryUnregisterResponseSchema, {});
    },
  };
}

async function infer(bytes: Buffer, call: Call, service: Service, limits: Limits): Promise<Buffer> {
  const message = decode(ModelInferRequestSchema, bytes);
  const read = readInferRequest(message, service, limits, call.timeLeft(), call.signal);
  const result = await service.infer(read.request);
  return encode(ModelInferResponseSchema, inferResponse(message, read, result, service));
}

function exists(find: () => unknown): boolean {
  try {
    find();
    return true;
  } catch (thrown) {
    if (thrown instanceof PolyheadError && thrown.code === "NOT_FOUND") return false;
    throw thrown;
  }
}

function refuseRepository(name: string): void {
  if (name === "") return;
  throw new PolyheadError(
    "NOT_FOUND",
    `There is no repository ${shown(name)}; this server has one, whose name is empty.`,
    { name },
  );
}

function refuseRegion(name: string): void {
  if (name === "") return;
  throw new PolyheadError("NOT_FOUND", `There is no region ${shown(name)} of shared memory.`, { name });
}

/** The model that came with a request to load: one ONNX file, named `file:...` as Triton's clients do. */
function fileOf(
  parameters: Readonly<Record<string, ModelRepositoryParameter>>,
  limits: Limits,
): Uint8Array | undefined {
  const names = Object.keys(parameters);
  const [name, ...others] = names.filter((each) => each.startsWith("file:"));
  if (name === undefined) {
    if (!names.includes("config")) return undefined;
    throw new PolyheadError(
      "INVALID_ARGUMENT",
      "A model's configuration is read from its file and cannot be replaced; leave the parameter config away.",
      { parameter: "config" },
    );
  }
  const choice = parameters[name]?.parameterChoice;
  if (others.length > 0 || choice?.case !== "bytesParam") {
    throw new PolyheadError(
      "INVALID_ARGUMENT",
      `The request has ${names.length} parameters, and not exactly one file in bytes_param; expected one parameter file:NAME with a whole ONNX file, its weights included.`,
      { files: others.length + 1 },
    );
  }
  if (choice.value.length > limits.uploadBytes) {
    throw limitExceeded("The file has", choice.value.length, limits.uploadBytes, "bytes");
  }
  return choice.value;
}
