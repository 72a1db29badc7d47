/**
 * The layers of a model and what each call of them reads, from Keras' configuration as Keras 2, Keras 3 and
 * TF.js write it. A Sequential becomes a chain of calls, so that what follows knows one kind of model only.
 * What the layers compute is none of this file's business.
 */
import {
  asList,
  asRecord,
  asText,
  asWholeNumber,
  isRecord,
  type JsonRecord,
  malformed,
} from "../tfjs/json.js";
import { LayerConfig } from "./config.js";

/** Which result of which call of a layer. */
export interface TensorReference {
  readonly layer: string;
  readonly call: number;
  readonly tensor: number;
}

/** One application of a layer. */
export interface CallSpec {
  /** What is given by place, in order. */
  readonly inputs: readonly TensorReference[];
  /** Numbers and lists of numbers that are given by place, by their places among all that is given so. */
  readonly constants: ReadonlyMap<number, unknown>;
  /** What is given by name. */
  readonly named: Readonly<Record<string, TensorReference>>;
  /** All else that is given by name, as JSON. */
  readonly options: JsonRecord;
}

/** One layer, which may be a whole model. */
export interface LayerSpec {
  readonly className: string;
  /** Python module of the class, where the file says so (Keras 3). */
  readonly module: string | undefined;
  /** Name that a custom class was registered under; undefined for Keras' own. */
  readonly registeredName: string | undefined;
  readonly name: string;
  readonly config: LayerConfig;
  readonly calls: readonly CallSpec[];
  /** What the first call is counted as: a model within a model begins with 1 where Keras counted its making as 0. */
  readonly firstCall: number;
  /** The model within; the one layer that a wrapper wraps counts as a model of one layer. */
  readonly inner: ModelSpec | undefined;
  /** Shape of the first input, batch included, where the file says what the layer was built for. */
  readonly builtFor: readonly (number | null)[] | undefined;
}

/** A model: its layers in the file's order, and which tensors are public. */
export interface ModelSpec {
  readonly name: string;
  readonly layers: readonly LayerSpec[];
  readonly inputs: readonly TensorReference[];
  readonly outputs: readonly TensorReference[];
}

/** Models within models, or wrapped layers, are not deeper than this. */
const DEEPEST = 32;
/** Names of the class of a model that is given as a graph of layers. */
const FUNCTIONAL = new Set(["Functional", "Model"]);

/** Whether a class name is that of a model. */
export function isModelClass(className: unknown): boolean {
  return className === "Sequential" || (typeof className === "string" && FUNCTIONAL.has(className));
}

/**
 * Reads the configuration of a model: `{class_name, config}`.
 * @throws PolyheadError MODEL_MALFORMED
 */
export function readModelSpec(json: unknown): ModelSpec {
  const layer = readLayer(json, 0, undefined);
  if (layer.inner && isModelClass(layer.className)) return layer.inner;
  throw malformed(
    `The configuration is that of a ${layer.className}; expected a Sequential or a Functional model.`,
    { got: layer.className },
  );
}

function readLayer(json: unknown, depth: number, calls: readonly CallSpec[] | undefined): LayerSpec {
  if (depth > DEEPEST) throw malformed(`Models are nested more than ${DEEPEST} deep.`, { limit: DEEPEST });
  const raw = asRecord(json, "A layer");
  const className = asText(raw.class_name, "A layer's class_name");
  const isList = Array.isArray(raw.config);
  const config = isList
    ? { layers: raw.config }
    : asRecord(raw.config ?? {}, `The configuration of a ${className}`);
  const name = asText(raw.name ?? config.name ?? className.toLowerCase(), `The name of a ${className}`);
  const registered = raw.registered_name ?? undefined;
  const build = isRecord(raw.build_config) ? raw.build_config.input_shape : config.build_input_shape;
  return {
    className,
    module: typeof raw.module === "string" ? raw.module : undefined,
    registeredName: typeof registered === "string" && registered.includes(">") ? registered : undefined,
    name,
    config: new LayerConfig(name, config),
    calls: calls ?? asList(raw.inbound_nodes ?? [], `inbound_nodes of ${JSON.stringify(name)}`).map(readCall),
    firstCall: 0,
    inner: readInner(className, name, config, build, depth),
    builtFor: readShape(build),
  };
}

function readInner(
  className: string,
  name: string,
  config: JsonRecord,
  build: unknown,
  depth: number,
): ModelSpec | undefined {
  if (className === "Sequential") return readSequential(name, config, build, depth);
  if (FUNCTIONAL.has(className)) return readFunctional(name, config, depth);
  if (!isRecord(config.layer) || typeof config.layer.class_name !== "string") return undefined;
  return readSequential(name, { layers: [config.layer] }, undefined, depth);
}

function readFunctional(name: string, config: JsonRecord, depth: number): ModelSpec {
  if (!Array.isArray(config.layers)) {
    throw malformed(
      `The model ${JSON.stringify(name)} has no list of layers; a subclassed model cannot be read from its file. ` +
        "Save it as a Sequential or Functional model.",
      { model: name },
    );
  }
  const layers = config.layers.map((layer: unknown) => readLayer(layer, depth + 1, undefined));
  const taken = new Set<string>();
  for (const layer of layers) {
    if (taken.has(layer.name)) throw malformed(`Two layers have the name ${JSON.stringify(layer.name)}.`);
    taken.add(layer.name);
  }
  const inputs = readReferences(config.input_layers, `input_layers of ${JSON.stringify(name)}`);
  const outputs = readReferences(config.output_layers, `output_layers of ${JSON.stringify(name)}`);
  return { name, layers: withFirstCalls(layers, outputs), inputs, outputs };
}

/** A file holds only calls that something reads, so that the least that is read is the first. */
function withFirstCalls(layers: readonly LayerSpec[], outputs: readonly TensorReference[]): LayerSpec[] {
  const least = new Map<string, number>();
  const calls = layers.flatMap((layer) => layer.calls);
  for (const { layer, call } of [
    ...calls.flatMap(({ inputs, named }) => [...inputs, ...Object.values(named)]),
    ...outputs,
  ]) {
    least.set(layer, Math.min(call, least.get(layer) ?? call));
  }
  return layers.map((layer) =>
    isModelClass(layer.className) ? { ...layer, firstCall: least.get(layer.name) ?? 0 } : layer,
  );
}

/** A chain of layers; the input is made up where the file has none. */
function readSequential(name: string, config: JsonRecord, build: unknown, depth: number): ModelSpec {
  const given = asList(config.layers, `layers of ${JSON.stringify(name)}`);
  const first = given.length > 0 ? readLayer(given[0], depth + 1, []) : undefined;
  const layers: LayerSpec[] = first?.className === "InputLayer" ? [] : [inputLayer(name, first, build)];
  const taken = new Set(layers.map((layer) => layer.name));
  for (const each of given) {
    const before = layers.at(-1);
    const inputs = before ? [{ layer: before.name, call: 0, tensor: 0 }] : [];
    const layer = readLayer(each, depth + 1, [{ inputs, constants: new Map(), named: {}, options: {} }]);
    if (taken.has(layer.name)) throw malformed(`Two layers have the name ${JSON.stringify(layer.name)}.`);
    taken.add(layer.name);
    layers.push(layer);
  }
  const [start, end] = [layers[0], layers.at(-1)];
  if (!start || !end) throw malformed(`The model ${JSON.stringify(name)} has no layers.`);
  return {
    name,
    layers,
    inputs: [{ layer: start.name, call: 0, tensor: 0 }],
    outputs: [{ layer: end.name, call: 0, tensor: 0 }],
  };
}

function inputLayer(model: string, first: LayerSpec | undefined, build: unknown): LayerSpec {
  const name = `${first?.name ?? model}_input`;
  const shape = (first && statedInputShape(first)) ?? readShape(build);
  const dtype = first?.className === "Embedding" ? "int32" : (first?.config.raw.dtype ?? "float32");
  return {
    className: "InputLayer",
    module: undefined,
    registeredName: undefined,
    name,
    config: new LayerConfig(name, { ...(shape && { batch_input_shape: shape }), dtype }),
    calls: [{ inputs: [], constants: new Map(), named: {}, options: {} }],
    firstCall: 0,
    inner: undefined,
    builtFor: shape,
  };
}

/**
 * The shape of the input, batch included (null where open), that a layer says it takes.
 * @throws PolyheadError MODEL_MALFORMED
 */
export function statedInputShape(layer: LayerSpec): readonly (number | null)[] | undefined {
  const { raw } = layer.config;
  const own = readShape(raw.batch_shape) ?? readShape(raw.batch_input_shape);
  if (own) return own;
  const [first] = layer.inner?.inputs ?? [];
  const inner = first && layer.inner?.layers.find((each) => each.name === first.layer);
  return (inner && statedInputShape(inner)) ?? layer.builtFor;
}

function readShape(value: unknown): readonly (number | null)[] | undefined {
  if (!Array.isArray(value)) return undefined;
  if (value.length > 8) throw malformed(`An input has ${value.length} axes.`, { axes: value.length });
  return value.map((size: unknown) => {
    if (size === null || size === -1) return null;
    const number = asWholeNumber(size, "A size of an input");
    if (number >= 0 && number < 2 ** 31) return number;
    throw malformed(`An input has the impossible size ${number}.`, { size: number });
  });
}

/** Public tensors: one reference, a list of them, or a record or list nested in any way. */
function readReferences(value: unknown, what: string, depth = 0): TensorReference[] {
  const reference = asReference(value);
  if (reference) return [reference];
  if (depth > 8) throw malformed(`${what} is nested too deeply.`);
  const items = isRecord(value) ? Object.values(value) : asList(value, what);
  return items.flatMap((item) => readReferences(item, what, depth + 1));
}

/** `[name, call, tensor]`, perhaps with something behind. */
function asReference(value: unknown): TensorReference | undefined {
  if (!Array.isArray(value) || value.length < 3) return undefined;
  const [layer, call, tensor] = value;
  if (typeof layer !== "string" || !isIndex(call) || !isIndex(tensor)) return undefined;
  return { layer, call, tensor };
}

function isIndex(value: unknown): value is number {
  return typeof value === "number" && Number.isSafeInteger(value) && value >= 0;
}

function readCall(json: unknown): CallSpec {
  return isRecord(json) ? readNewCall(json) : readOldCall(json);
}

/** Stands in Keras 2 for a layer where a number is given. */
const CONSTANT = "_CONSTANT_VALUE";

/** Keras 2 and TF.js: a list of `[name, call, tensor, keyword arguments]`, or one of them alone. */
function readOldCall(json: unknown): CallSpec {
  const list = asList(json, "A call of a layer");
  const entries = asReference(list) || list[0] === CONSTANT ? [list] : list;
  const inputs: TensorReference[] = [];
  const constants = new Map<number, unknown>();
  let keywords: JsonRecord = {};
  for (const [place, entry] of entries.entries()) {
    const reference = asReference(entry);
    if (reference) inputs.push(reference);
    else if (Array.isArray(entry) && entry[0] === CONSTANT) constants.set(place, entry[2]);
    else throw malformed(`A call reads ${JSON.stringify(entry)?.slice(0, 80)}; expected a layer's result.`);
    const last: unknown = Array.isArray(entry) ? entry[3] : undefined;
    if (isRecord(last)) keywords = { ...keywords, ...last };
  }
  return withKeywords(inputs, constants, keywords);
}

/** Keras 3: `{args, kwargs}`, in which tensors are records that name their history. */
function readNewCall(json: JsonRecord): CallSpec {
  const inputs: TensorReference[] = [];
  const constants = new Map<number, unknown>();
  for (const [place, each] of asList(json.args ?? [], "The arguments of a call").entries()) {
    const { length: before } = inputs;
    collect(each, inputs, 0);
    if (inputs.length === before && (typeof each === "number" || Array.isArray(each)))
      constants.set(place, each);
  }
  return withKeywords(inputs, constants, isRecord(json.kwargs) ? json.kwargs : {});
}

function collect(value: unknown, found: TensorReference[], depth: number): void {
  if (depth > 8) throw malformed("The arguments of a call are nested too deeply.");
  if (isRecord(value) && value.class_name === "__keras_tensor__") found.push(history(value));
  else if (Array.isArray(value)) for (const each of value) collect(each, found, depth + 1);
  else if (isRecord(value)) for (const each of Object.values(value)) collect(each, found, depth + 1);
}

function history(tensor: JsonRecord): TensorReference {
  const config = asRecord(tensor.config, "The configuration of a tensor");
  const reference = asReference(config.keras_history);
  if (reference) return reference;
  throw malformed("A tensor does not say which layer makes it; expected keras_history.");
}

function withKeywords(
  inputs: TensorReference[],
  constants: ReadonlyMap<number, unknown>,
  keywords: JsonRecord,
): CallSpec {
  const named: Record<string, TensorReference> = {};
  const options: Record<string, unknown> = {};
  for (const [key, value] of Object.entries(keywords)) {
    const isTensor = isRecord(value) && value.class_name === "__keras_tensor__";
    const reference = isTensor ? history(value) : asReference(value);
    if (reference) named[key] = reference;
    else options[key] = value;
  }
  return { inputs, constants, named, options };
}
