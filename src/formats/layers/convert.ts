/**
 * A model of layers as ONNX: calls the rule of each layer for each of its calls, models within models in their
 * place, and names the results after the layers. All that no rule covers is gathered before the conversion
 * gives up, so that one attempt shows all that is in the way.
 */
import { asPolyheadError, PolyheadError } from "../../base/errors.js";
import { type Model, model } from "../../onnx/model.js";
import type { DType } from "../../tensor/dtype.js";
import { GraphBuilder, type NamedValue } from "../tfjs/builder.js";
import { nameOpenSizes } from "../tfjs/dimension.js";
import { checkInputShape, type InputShapes, statedShape } from "../tfjs/inputs.js";
import { isRecord, malformed } from "../tfjs/json.js";
import { unsupported } from "../tfjs/unsupported.js";
import type { Value } from "../tfjs/value.js";
import { type BoundWeights, type Dialect, LayerCall } from "./rule.js";
import { isOperation, operationName } from "./rules/operation.js";
import { findLayerRule } from "./rules.js";
import {
  type CallSpec,
  isModelClass,
  type LayerSpec,
  type ModelSpec,
  statedInputShape,
  type TensorReference,
} from "./topology.js";
import { allLayers } from "./weights.js";

/** Room for constants made from constants, beside twice the size of the weights. */
const FOLDING_ROOM = 2 ** 24;
/** Calls of layers in all; a model within a model counts each time that it is called. */
const MOST_CALLS = 100_000;

/** How a model of layers is converted. */
export interface LayersImportOptions {
  /** Shapes of inputs, batch included, that replace those of the file. */
  readonly inputShapes?: InputShapes;
}

/** A converted model, and remarks on what was changed or assumed. */
export interface LayersImport {
  readonly model: Model;
  readonly notes: string[];
}

/**
 * Converts a model. Inputs and outputs are called after their layers and keep shapes and layout.
 * @throws PolyheadError MODEL_UNSUPPORTED with all layers and uses that are not covered, MODEL_MALFORMED,
 *   LIMIT_EXCEEDED for too many calls, INVALID_ARGUMENT for shapes that are none
 */
export function convertLayers(
  spec: ModelSpec,
  dialect: Dialect,
  weights: BoundWeights,
  options: LayersImportOptions = {},
): LayersImport {
  refuseUnknownLayers(spec);
  return new Conversion(spec, dialect, weights, options).run();
}

/**
 * Refuses layers without a rule, all at once.
 * @throws PolyheadError MODEL_UNSUPPORTED
 */
export function refuseUnknownLayers(spec: ModelSpec): void {
  const unknown = new Map<string, string>();
  for (const { layer } of allLayers(spec)) {
    const { className, name, registeredName } = layer;
    if (className === "InputLayer" || isModelClass(className) || findLayerRule(layer)) continue;
    const label = registeredName ?? (isOperation(layer) ? `${className} ${operationName(layer)}` : className);
    if (!unknown.has(label)) unknown.set(label, name);
  }
  if (unknown.size === 0) return;
  const layers = [...unknown.keys()].sort();
  throw new PolyheadError(
    "MODEL_UNSUPPORTED",
    `The model has layers that cannot be imported: ${layers.join(", ")}. Custom layers and Lambda hold code, which is ` +
      "never run; replace them by Keras' own layers, or export the model to ONNX where it was made (tf2onnx).",
    { layers, examples: Object.fromEntries(unknown) },
  );
}

/** The state of one conversion. */
class Conversion {
  readonly #spec: ModelSpec;
  readonly #dialect: Dialect;
  readonly #options: LayersImportOptions;
  readonly #builder: GraphBuilder;
  readonly #weights: BoundWeights;
  readonly #constants = new Map<LayerSpec, ReadonlyMap<string, Value>>();
  /** Reasons that were met, each with the first layer it was met at. */
  readonly #reasons = new Map<string, string>();
  readonly #notes: string[] = [];
  #calls = 0;

  constructor(spec: ModelSpec, dialect: Dialect, weights: BoundWeights, options: LayersImportOptions) {
    this.#spec = spec;
    this.#dialect = dialect;
    this.#weights = weights;
    this.#options = options;
    let bytes = FOLDING_ROOM;
    for (const own of weights.values()) {
      for (const { data } of own.values()) bytes += 2 * (ArrayBuffer.isView(data) ? data.byteLength : 0);
    }
    this.#builder = new GraphBuilder(bytes);
  }

  run(): LayersImport {
    const { inputs, outputs, name } = this.#spec;
    if (outputs.length === 0) throw malformed("The model has no outputs.");
    const taken = new Set<string>();
    const values = inputs.map((reference) => this.#declare(reference, unique(reference.layer, taken)));
    const results = this.#applyModel(this.#spec, values);
    this.#refuseUncovered();
    const named = outputs.map((reference, at): NamedValue => {
      const value = results[at];
      if (!value) throw malformed(`The output ${JSON.stringify(reference.layer)} is made by no layer.`);
      return { name: unique(reference.layer, taken), value };
    });
    return { model: model(this.#builder.finish(name, named)), notes: this.#notes };
  }

  /** Results of a model for the given values; undefined where a layer on the way is not covered. */
  #applyModel(spec: ModelSpec, inputs: readonly (Value | undefined)[]): (Value | undefined)[] {
    const layers = new Map(spec.layers.map((layer) => [layer.name, layer]));
    const done = new Map<string, readonly (Value | undefined)[]>();
    for (const [index, reference] of spec.inputs.entries()) done.set(keyOf(reference), [inputs[index]]);

    const open = new Set<string>();
    const stack = spec.outputs.toReversed();
    for (let next = stack.at(-1); next; next = stack.at(-1)) {
      const key = keyOf(next);
      if (done.has(key)) {
        stack.pop();
        continue;
      }
      const layer = find(layers, next);
      const call = layer.calls[next.call - layer.firstCall];
      if (!call)
        throw malformed(`Layer ${JSON.stringify(layer.name)} has no call ${next.call}, which is read.`);
      const read = [...call.inputs, ...Object.values(call.named)];
      const waiting = read.filter((each) => !done.has(keyOf(each)));
      if (waiting.length > 0) {
        if (open.has(key))
          throw malformed(`The model runs in a circle through ${JSON.stringify(layer.name)}.`);
        open.add(key);
        stack.push(...waiting.toReversed());
        continue;
      }
      stack.pop();
      const value = (reference: TensorReference) => this.#result(done, reference);
      const named = Object.entries(call.named).map(([name, reference]) => [name, value(reference)] as const);
      done.set(key, this.#applyLayer(layer, call.inputs.map(value), named, call));
    }
    return spec.outputs.map((reference) => this.#result(done, reference));
  }

  #result(
    done: ReadonlyMap<string, readonly (Value | undefined)[]>,
    reference: TensorReference,
  ): Value | undefined {
    const results = done.get(keyOf(reference)) ?? [];
    if (reference.tensor < results.length) return results[reference.tensor];
    throw malformed(
      `Layer ${JSON.stringify(reference.layer)} has no result ${reference.tensor}, which is read.`,
    );
  }

  #applyLayer(
    layer: LayerSpec,
    inputs: readonly (Value | undefined)[],
    named: readonly (readonly [string, Value | undefined])[],
    given: CallSpec,
  ): readonly (Value | undefined)[] {
    if (++this.#calls > MOST_CALLS) {
      throw new PolyheadError("LIMIT_EXCEEDED", `The model calls layers more than ${MOST_CALLS} times.`, {
        limit: MOST_CALLS,
      });
    }
    const { inner } = layer;
    if (inner && isModelClass(layer.className)) {
      const values = [...inputs, ...named.map(([, value]) => value)];
      if (values.length !== inner.inputs.length) {
        throw malformed(
          `The model ${JSON.stringify(layer.name)} is given ${values.length} inputs; it has ${inner.inputs.length}.`,
        );
      }
      return this.#applyModel(inner, values);
    }
    if (layer.className === "InputLayer")
      throw malformed(`Nothing is given to the input ${JSON.stringify(layer.name)}.`);
    const present = inputs.filter((value) => value !== undefined);
    const presentNamed = named.flatMap(([name, value]) => (value ? [[name, value] as const] : []));
    // What it reads is not covered, which is on the list already; of several results, nothing reads more than eight.
    if (present.length < inputs.length || presentNamed.length < named.length) return Array(8).fill(undefined);
    return this.#applyRule(layer, present, Object.fromEntries(presentNamed), given);
  }

  #applyRule(
    layer: LayerSpec,
    inputs: readonly Value[],
    named: Readonly<Record<string, Value>>,
    given: CallSpec,
  ): readonly (Value | undefined)[] {
    this.#builder.enter(layer.name);
    try {
      const rule = findLayerRule(layer);
      if (!rule) throw malformed(`There is no rule for ${layer.className}.`);
      refuseQuantised(layer);
      const call = new LayerCall({
        builder: this.#builder,
        dialect: this.#dialect,
        layer,
        inputs,
        named,
        constants: given.constants,
        options: given.options,
        weights: this.#weightsOf(layer),
        applyModel: (inner, values) => this.#applyModel(inner, values).filter((value) => value !== undefined),
      });
      const made = rule.apply(call);
      const results = "id" in made ? [made] : made;
      for (const [index, value] of results.entries()) {
        const isNew = !inputs.some((input) => input.id === value.id);
        if (isNew) this.#builder.name(value, index === 0 ? layer.name : `${layer.name}:${index}`);
      }
      return results;
    } catch (thrown) {
      const where = `Layer ${JSON.stringify(layer.name)} (${layer.className})`;
      const error = asPolyheadError(thrown, "MODEL_MALFORMED", where);
      if (error.code !== "MODEL_UNSUPPORTED") throw located(error, layer, where);
      const reason = `${layer.className}: ${error.message}`;
      if (!this.#reasons.has(reason)) this.#reasons.set(reason, layer.name);
      return [undefined];
    }
  }

  #weightsOf(layer: LayerSpec): ReadonlyMap<string, Value> {
    const known = this.#constants.get(layer);
    if (known) return known;
    const made = new Map<string, Value>();
    for (const [name, tensor] of this.#weights.get(layer) ?? []) {
      const value = this.#builder.constant(tensor);
      this.#builder.name(value, `${layer.name}/${name}`);
      made.set(name, this.#builder.cast(value, "float32"));
    }
    this.#constants.set(layer, made);
    return made;
  }

  #declare(reference: TensorReference, name: string): Value {
    const layer = this.#spec.layers.find((each) => each.name === reference.layer);
    if (!layer)
      throw malformed(`There is no layer ${JSON.stringify(reference.layer)}, which is to be an input.`);
    const { length: count } = this.#spec.inputs;
    const wanted = statedShape(this.#options.inputShapes, name, count);
    const stated = wanted ?? statedInputShape(layer)?.map((size) => size ?? -1);
    if (!stated) {
      throw new PolyheadError(
        "MODEL_UNSUPPORTED",
        `The file does not say which shape the input ${JSON.stringify(name)} has, as the model was saved before it met any data. ` +
          "Save it again after it was built, or state the shape (--input-shape, in a program inputShapes).",
        { input: name },
      );
    }
    checkInputShape(stated, name);
    if (stated.length === 0)
      throw malformed(`The input ${JSON.stringify(name)} has no axes, not even a batch.`);
    const [batch, ...sizes] = stated;
    const rest = nameOpenSizes([-1, ...sizes], count === 1 ? "" : `${name}_`).slice(1);
    const dtype = inputDType(layer.config.raw.dtype, this.#dialect);
    return this.#builder.input(name, dtype, [batch === -1 ? "batch" : (batch ?? "batch"), ...rest]);
  }

  #refuseUncovered(): void {
    if (this.#reasons.size === 0) return;
    const reasons = [...this.#reasons].map(([reason, layer]) => `${reason} (at ${JSON.stringify(layer)})`);
    throw new PolyheadError(
      "MODEL_UNSUPPORTED",
      `The model uses what cannot be imported: ${reasons.join("; ")}.`,
      { reasons: [...this.#reasons.keys()], layers: [...this.#reasons.values()] },
    );
  }
}

function keyOf({ layer, call }: TensorReference): string {
  return `${call} ${layer}`;
}

function find(layers: ReadonlyMap<string, LayerSpec>, { layer }: TensorReference): LayerSpec {
  const found = layers.get(layer);
  if (found) return found;
  throw malformed(`There is no layer ${JSON.stringify(layer)}, whose result is read.`, { layer });
}

function unique(name: string, taken: Set<string>): string {
  let free = name;
  for (let copy = 1; taken.has(free); copy++) free = `${name}_${copy}`;
  taken.add(free);
  return free;
}

/** Layers that Keras quantised keep scales beside their weights and round what they are given. */
function refuseQuantised({ config }: LayerSpec): void {
  const { dtype, quantization_config: own } = config.raw;
  const isQuantised = isRecord(dtype) && String(dtype.class_name).startsWith("Quantized");
  if (!isQuantised && !isRecord(own)) return;
  const policy = isRecord(dtype) && isRecord(dtype.config) ? dtype.config : {};
  const name = policy.mode ?? policy.name ?? "by its configuration";
  throw unsupported(`weights that Keras quantised (${String(name)}); save the model before it is quantised`);
}

/** The dtype of an input: real numbers are computed in float32; TF.js has no other whole numbers than int32. */
function inputDType(stated: unknown, dialect: Dialect): DType {
  const policy = isRecord(stated) && isRecord(stated.config) ? stated.config.name : stated;
  const name = typeof policy === "string" ? policy : "float32";
  if (name === "bool") return "bool";
  if (name === "string")
    throw new PolyheadError("MODEL_UNSUPPORTED", "The model takes strings.", { dtype: name });
  if (!/^u?int\d+$/.test(name)) return "float32";
  if (dialect !== "tfjs" && (name === "uint8" || name === "int64")) return name;
  return "int32";
}

function located(error: PolyheadError, layer: LayerSpec, where: string): PolyheadError {
  if (error.message.includes(JSON.stringify(layer.name))) return error;
  const details = { ...error.details, layer: layer.name, class: layer.className };
  return new PolyheadError(error.code, `${where}: ${error.message}`, details, { cause: error });
}
