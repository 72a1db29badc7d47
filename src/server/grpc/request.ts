/**
 * A ModelInferRequest as what the service takes, and the service's answer as a ModelInferResponse. Which outputs
 * under which names is the matter of all protocols; here are only the messages.
 */
import type { MessageInitShape } from "@bufbuild/protobuf";
import { PolyheadError } from "../../base/errors.js";
import type { Tensor } from "../../tensor/tensor.js";
import { classCount, withClasses } from "../protocol/classification.js";
import { datatypeOf, dtypeOf } from "../protocol/datatypes.js";
import { type Limits, limitExceeded } from "../protocol/limits.js";
import { checkModelName, checkName } from "../protocol/names.js";
import { answeredOutputs, type Wanted, wantedOutputs } from "../protocol/outputs.js";
import { readParameters } from "../protocol/parameters.js";
import { checkShape, readRawTensor, writeRawTensor } from "../protocol/raw-tensor.js";
import { shown } from "../protocol/shown.js";
import type { InferenceRequest, InferenceResult, Service } from "../service.js";
import { hasContents, isTyped, readContents, writeContents } from "./contents.js";
import type {
  InferParameter,
  ModelInferRequest,
  ModelInferResponseSchema,
} from "./generated/inference_pb.js";

/** A request, read. */
export interface ReadRequest {
  readonly request: InferenceRequest;
  readonly wanted: Wanted;
  /** How many classes shall be answered in place of an output, by its name in the request. */
  readonly classes: ReadonlyMap<string, number>;
  /** Whether its tensors came raw, so that the answer's shall as well. */
  readonly isRaw: boolean;
}

/** A parameter that would change what a request means, and that this server cannot heed. */
const REFUSED_PARAMETER = "shared_memory_region";

/**
 * What the service is asked.
 * @param timeout milliseconds that the call has left
 * @throws PolyheadError INVALID_ARGUMENT, INPUT_MISMATCH, DATA_MALFORMED, LIMIT_EXCEEDED, NOT_FOUND
 */
export function readInferRequest(
  message: ModelInferRequest,
  service: Pick<Service, "model">,
  limits: Limits,
  timeout: number,
  signal: AbortSignal,
): ReadRequest {
  const model = checkModelName(message.modelName, "The model's name", limits);
  const version = versionOf(message.modelVersion, limits);
  if (message.id !== "") checkName(message.id, "The request's id", limits);
  const parameters = readParameters(valuesOf(message.parameters), limits);
  for (const { name, parameters: own } of [...message.inputs, ...message.outputs]) refuseUnheeded(name, own);
  const wanted = wantedOutputs(
    service,
    model,
    version,
    parameters.routes,
    message.outputs.map(({ name }) => name),
    limits,
  );
  return {
    request: {
      routes: wanted.routes,
      version,
      inputs: readInputs(message, limits),
      owned: true,
      key: parameters.key,
      cache: parameters.cache,
      timeout: Math.min(parameters.timeout, timeout),
      signal,
    },
    wanted,
    classes: new Map(
      message.outputs.flatMap(({ name, parameters: own }) => {
        const count = classCount(valuesOf(own).get("classification"));
        return count === undefined ? [] : [[name, count] as const];
      }),
    ),
    isRaw: message.rawInputContents.length > 0,
  };
}

/**
 * The answer; raw where the request was, or where an output has no typed contents.
 * @param isStreamed whether it goes to a stream, where a request might have several answers
 * @throws PolyheadError INVALID_ARGUMENT, MODEL_UNSUPPORTED
 */
export function inferResponse(
  message: ModelInferRequest,
  { wanted, classes, isRaw }: ReadRequest,
  result: InferenceResult,
  service: Pick<Service, "model">,
  isStreamed = false,
): MessageInitShape<typeof ModelInferResponseSchema> {
  const outputs = withClasses(answeredOutputs(wanted, result), classes, service);
  const revision = result.routes[message.modelName]?.revision ?? "";
  const several = wanted.routes.length > 1;
  const raw = isRaw || outputs.some(({ tensor }) => !isTyped(tensor.dtype));
  return {
    modelName: message.modelName,
    modelVersion: revision,
    id: message.id,
    parameters: {
      generation: { parameterChoice: { case: "int64Param", value: BigInt(result.generation) } },
      cached: { parameterChoice: { case: "boolParam", value: result.cached } },
      revision: text(revision),
      // As Triton says it of models that answer once.
      ...(isStreamed && { triton_final_response: { parameterChoice: { case: "boolParam", value: true } } }),
    },
    outputs: outputs.map(({ name, route, revision, tensor }) => ({
      name,
      datatype: datatypeOf(tensor.dtype),
      shape: tensor.shape.map(BigInt),
      parameters: several ? { route: text(route), revision: text(revision) } : {},
      ...(raw ? {} : { contents: writeContents(tensor) }),
    })),
    rawOutputContents: raw ? outputs.map(({ tensor }) => writeRawTensor(tensor)) : [],
  };
}

/**
 * A version that a client named; an empty one is none.
 * @throws PolyheadError INVALID_ARGUMENT
 */
export function versionOf(version: string, limits: Limits): string | undefined {
  return version === "" ? undefined : checkModelName(version, "The model's version", limits);
}

function readInputs({ inputs, rawInputContents }: ModelInferRequest, limits: Limits): Record<string, Tensor> {
  if (inputs.length > limits.entries)
    throw limitExceeded("The request has", inputs.length, limits.entries, "inputs");
  const isRaw = rawInputContents.length > 0;
  if (isRaw && rawInputContents.length !== inputs.length) {
    throw new PolyheadError(
      "INVALID_ARGUMENT",
      `The request has ${inputs.length} inputs and ${rawInputContents.length} raw_input_contents; expected one for each input.`,
      { expected: inputs.length, got: rawInputContents.length },
    );
  }
  const read = new Map<string, Tensor>();
  let elements = 0;
  for (const [index, { name, datatype, shape, contents }] of inputs.entries()) {
    const what = `Input ${shown(checkName(name, "An input's name", limits))}`;
    if (read.has(name)) {
      throw new PolyheadError("INVALID_ARGUMENT", `${what} is given twice; give it once.`, { name });
    }
    if (isRaw && hasContents(contents)) {
      throw new PolyheadError(
        "INVALID_ARGUMENT",
        `${what} has contents beside raw_input_contents; expected one of both for the whole request.`,
        { name },
      );
    }
    const dtype = dtypeOf(datatype, what);
    const size = checkShape(shape, what, limits);
    const raw = rawInputContents[index];
    const tensor = raw
      ? readRawTensor(dtype, size, raw, what, limits)
      : readContents(dtype, size, contents, what, limits);
    elements += tensor.data.length;
    if (elements > limits.tensorElements) {
      throw limitExceeded("The request's inputs have", elements, limits.tensorElements, "elements");
    }
    read.set(name, tensor);
  }
  return Object.fromEntries(read);
}

function text(value: string): { parameterChoice: { case: "stringParam"; value: string } } {
  return { parameterChoice: { case: "stringParam", value } };
}

function valuesOf(parameters: Readonly<Record<string, InferParameter>>): Map<string, unknown> {
  return new Map(
    Object.entries(parameters).map(([name, { parameterChoice }]) => [name, parameterChoice.value]),
  );
}

function refuseUnheeded(tensor: string, parameters: Readonly<Record<string, InferParameter>>): void {
  if (!Object.hasOwn(parameters, REFUSED_PARAMETER)) return;
  throw new PolyheadError(
    "INVALID_ARGUMENT",
    `The tensor ${shown(tensor)} has the parameter ${REFUSED_PARAMETER}, and this server has no shared memory; send and read tensors in the messages.`,
    { name: tensor, parameter: REFUSED_PARAMETER },
  );
}
