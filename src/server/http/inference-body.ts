/**
 * An inference request as HTTP brings it: JSON, alone or followed by binary tensors in the order of the inputs
 * (the binary tensor data extension). Binary tensors stay where they lie in the body.
 */
import { PolyheadError } from "../../base/errors.js";
import { elementCount, type Shape } from "../../tensor/shape.js";
import type { Tensor } from "../../tensor/tensor.js";
import { classCount } from "../protocol/classification.js";
import { dtypeOf, elementSize } from "../protocol/datatypes.js";
import { type Limits, limitExceeded } from "../protocol/limits.js";
import { checkName } from "../protocol/names.js";
import { bool, wholeNumber } from "../protocol/parameters.js";
import { checkShape, readRawTensor } from "../protocol/raw-tensor.js";
import { shown } from "../protocol/shown.js";
import type { ServedModel, TensorSpec } from "../service.js";
import { readJsonData } from "./json-data.js";
import { parseJson } from "./json-text.js";
import { InferenceBody } from "./schemas.js";
import { checked } from "./validation.js";

/** What a body asks for. */
export interface ReadInference {
  readonly id: string | undefined;
  readonly parameters: ReadonlyMap<string, unknown>;
  readonly inputs: Readonly<Record<string, Tensor>>;
  /** Names of the outputs that were asked for; empty for all. */
  readonly outputs: readonly string[];
  /** How many classes shall be answered in place of an output, by its name in the request. */
  readonly classes: ReadonlyMap<string, number>;
  /** Whether an output is to be answered as binary data. */
  isBinary(output: string): boolean;
}

/**
 * The request in a body.
 * @param headerLength the header Inference-Header-Content-Length: bytes of JSON before the binary tensors
 * @param model whose only input the whole body is when that length is 0
 * @throws PolyheadError INVALID_ARGUMENT, INPUT_MISMATCH, DATA_MALFORMED, LIMIT_EXCEEDED
 */
export function readInference(
  body: Uint8Array,
  headerLength: string | undefined,
  model: () => ServedModel,
  limits: Limits,
): ReadInference {
  const length = jsonLength(headerLength, body.length);
  if (length === 0 && headerLength !== undefined) return readRawBody(body, model(), limits);
  const request = checked(InferenceBody, parseJson(body.subarray(0, length), "The body"), "The body");
  if (request.inputs.length > limits.entries) {
    throw limitExceeded("The request has", request.inputs.length, limits.entries, "inputs");
  }
  const binary = new BinaryPart(body.subarray(length), headerLength !== undefined);
  const inputs = new Map<string, Tensor>();
  let elements = 0;
  for (const { name, shape: given, datatype, parameters, data } of request.inputs) {
    const what = `Input ${shown(checkName(name, "An input's name", limits))}`;
    if (inputs.has(name))
      throw new PolyheadError("INVALID_ARGUMENT", `${what} stands twice; send it once.`, { name });
    const dtype = dtypeOf(datatype, what);
    const shape = checkShape(given, what, limits);
    elements += elementCount(shape);
    if (elements > limits.tensorElements) {
      throw limitExceeded("The inputs have together", elements, limits.tensorElements, "elements");
    }
    refuseUnsupported(parameters, what);
    const size = own(parameters, "binary_data_size");
    if ((size === undefined) === (data === undefined)) {
      throw new PolyheadError(
        "INVALID_ARGUMENT",
        `${what} has ${data === undefined ? "neither data nor" : "both data and"} the parameter binary_data_size; expected one of them.`,
        { name },
      );
    }
    const tensor =
      size === undefined
        ? readJsonData(dtype, shape, data, what)
        : readRawTensor(dtype, shape, binary.take(wholeNumber(size, "binary_data_size"), what), what, limits);
    inputs.set(name, tensor);
  }
  binary.finish();
  const { outputs = [], parameters } = request;
  for (const output of outputs) refuseUnsupported(output.parameters, `Output ${shown(output.name)}`);
  const all = bool(own(parameters, "binary_data_output"), "binary_data_output", false);
  const binaryOutputs = new Map(
    outputs.map((output) => [output.name, bool(own(output.parameters, "binary_data"), "binary_data", all)]),
  );
  return {
    id: request.id === undefined ? undefined : checkId(request.id, limits),
    parameters: new Map(Object.entries(parameters ?? {})),
    inputs: Object.fromEntries(inputs),
    outputs: outputs.map(({ name }) => name),
    classes: new Map(
      outputs.flatMap(({ name, parameters: given }) => {
        const count = classCount(own(given, "classification"));
        return count === undefined ? [] : [[name, count] as const];
      }),
    ),
    isBinary: (output) => binaryOutputs.get(output) ?? all,
  };
}

/**
 * A request's id: the client's own text, returned as it came.
 * @throws PolyheadError INVALID_ARGUMENT
 */
export function checkId(id: string, limits: Limits): string {
  return id === "" ? id : checkName(id, "The id", limits);
}

/** A parameter of another extension that changes what is meant, so that it cannot be ignored. */
const UNSUPPORTED = "shared_memory_region";

function refuseUnsupported(parameters: Readonly<Record<string, unknown>> | undefined, what: string): void {
  if (own(parameters, UNSUPPORTED) === undefined) return;
  throw new PolyheadError(
    "INVALID_ARGUMENT",
    `${what} has the parameter ${UNSUPPORTED}, and this server has no shared memory; send and read tensors in the bodies.`,
    { parameter: UNSUPPORTED },
  );
}

/** The bytes after the JSON, taken from the front. */
class BinaryPart {
  readonly #bytes: Uint8Array;
  readonly #isAnnounced: boolean;
  #at = 0;

  constructor(bytes: Uint8Array, isAnnounced: boolean) {
    this.#bytes = bytes;
    this.#isAnnounced = isAnnounced;
  }

  take(size: number, what: string): Uint8Array {
    if (!this.#isAnnounced) {
      throw new PolyheadError(
        "INVALID_ARGUMENT",
        `${what} has the parameter binary_data_size; the request needs the header Inference-Header-Content-Length, which says where its JSON ends.`,
        {},
      );
    }
    const start = this.#at;
    if (size > this.#bytes.length - start) {
      throw new PolyheadError(
        "INVALID_ARGUMENT",
        `${what} has ${size} bytes of binary data and the body has ${this.#bytes.length - start} left for it.`,
        { expected: size, got: this.#bytes.length - start },
      );
    }
    this.#at += size;
    return this.#bytes.subarray(start, this.#at);
  }

  finish(): void {
    const rest = this.#bytes.length - this.#at;
    if (rest === 0) return;
    throw new PolyheadError(
      "INVALID_ARGUMENT",
      `The body has ${rest} bytes after its JSON that belong to no input; expected the sum of all binary_data_size.`,
      { got: rest },
    );
  }
}

function jsonLength(header: string | undefined, length: number): number {
  if (header === undefined) return length;
  const value = /^\d{1,15}$/.test(header) ? Number(header) : Number.NaN;
  if (value <= length) return value;
  throw new PolyheadError(
    "INVALID_ARGUMENT",
    `The header Inference-Header-Content-Length is ${shown(header)}; expected a whole number up to the body's ${length} bytes.`,
    { got: header, length },
  );
}

/** A body that is nothing but the model's one input, answered in binary. */
function readRawBody(body: Uint8Array, model: ServedModel, limits: Limits): ReadInference {
  const [input, ...others] = model.inputs;
  const size = input && elementSize(input.dtype);
  if (!input || others.length > 0 || size === undefined) {
    throw new PolyheadError(
      "INVALID_ARGUMENT",
      `The model ${shown(model.name)} has ${model.inputs.length} inputs; a body without JSON needs one input of numbers.`,
      {},
    );
  }
  const what = `Input ${shown(input.name)}`;
  const shape = checkShape(openShape(input, body.length / size, what), what, limits);
  return {
    id: undefined,
    parameters: new Map(),
    inputs: Object.fromEntries([[input.name, readRawTensor(input.dtype, shape, body, what, limits)]]),
    outputs: [],
    classes: new Map(),
    isBinary: () => true,
  };
}

/** The shape with its one open dimension found from the number of elements. */
function openShape(input: TensorSpec, count: number, what: string): Shape {
  const known = input.shape.filter((dimension) => typeof dimension === "number");
  if (input.shape.length - known.length > 1) {
    throw new PolyheadError(
      "INVALID_ARGUMENT",
      `${what} has several open dimensions, so that its shape cannot be told from a body without JSON; send JSON with the shape.`,
      { shape: input.shape },
    );
  }
  const rest = count / Math.max(elementCount(known), 1);
  return input.shape.map((dimension) => (typeof dimension === "number" ? dimension : rest));
}

function own(parameters: Readonly<Record<string, unknown>> | undefined, name: string): unknown {
  return parameters && Object.hasOwn(parameters, name) ? parameters[name] : undefined;
}
