/**
 * What a rule is: it names the weights of a layer in Keras' order, and says in ONNX what one call of the layer
 * computes in evaluation. It throws MODEL_UNSUPPORTED for uses of the layer that it does not cover.
 */
import type { Tensor } from "../../tensor/tensor.js";
import type { GraphBuilder } from "../tfjs/builder.js";
import { type JsonRecord, malformed } from "../tfjs/json.js";
import type { Value } from "../tfjs/value.js";
import type { LayerConfig } from "./config.js";
import type { LayerSpec, ModelSpec } from "./topology.js";

/** Who wrote the configuration; their layers differ in a few places, and an import computes what its writer would. */
export type Dialect = "tfjs" | "keras2" | "keras3";

/** One weight that a layer has. */
export interface WeightSpec {
  /** As Keras calls it, within the layer: `kernel`, `query/kernel`. */
  readonly name: string;
  /** Whether training changes it, which decides its place among the weights of a model; true when left out. */
  readonly isTrainable?: boolean;
  /** Other names that it has in some versions. */
  readonly aliases?: readonly string[];
  /** Whether a file may lack it. */
  readonly isOptional?: boolean;
  /** Keras 3: the part of the layer that holds the weight, and its place there; the layer itself when left out. */
  readonly part?: { readonly name: string; readonly index: number };
}

/** Weights and meaning of a class of layers. */
export interface LayerRule {
  /** In the order in which Keras keeps them: those that are trained before the others. None when left out. */
  readonly weights?: (config: LayerConfig, dialect: Dialect) => readonly WeightSpec[];
  /** Results of one call. */
  readonly apply: (call: LayerCall) => Value | readonly Value[];
}

/** Rules by class name. */
export type LayerRules = Readonly<Record<string, LayerRule>>;

/** One call of a layer with all that it reads at hand. */
export class LayerCall {
  /** The graph under construction. */
  readonly builder: GraphBuilder;
  readonly dialect: Dialect;
  readonly layer: LayerSpec;
  readonly config: LayerConfig;
  readonly inputs: readonly Value[];
  /** Numbers and lists of numbers that were given by place. */
  readonly constants: ReadonlyMap<number, unknown>;
  /** Values that were given by name. */
  readonly named: Readonly<Record<string, Value>>;
  /** Other arguments that were given by name. */
  readonly options: JsonRecord;
  readonly #weights: ReadonlyMap<string, Value>;
  readonly #applyModel: (model: ModelSpec, inputs: readonly Value[]) => readonly Value[];

  constructor(parts: {
    builder: GraphBuilder;
    dialect: Dialect;
    layer: LayerSpec;
    inputs: readonly Value[];
    constants: ReadonlyMap<number, unknown>;
    named: Readonly<Record<string, Value>>;
    options: JsonRecord;
    weights: ReadonlyMap<string, Value>;
    applyModel: (model: ModelSpec, inputs: readonly Value[]) => readonly Value[];
  }) {
    this.builder = parts.builder;
    this.dialect = parts.dialect;
    this.layer = parts.layer;
    this.config = parts.layer.config;
    this.inputs = parts.inputs;
    this.constants = parts.constants;
    this.named = parts.named;
    this.options = parts.options;
    this.#weights = parts.weights;
    this.#applyModel = parts.applyModel;
  }

  /**
   * An input.
   * @throws PolyheadError MODEL_MALFORMED when the call gives none there
   */
  input(index = 0): Value {
    const found = this.inputs[index];
    if (found) return found;
    throw malformed(
      `Layer ${JSON.stringify(this.layer.name)} (${this.layer.className}) is given ${this.inputs.length} inputs; it needs more.`,
      { layer: this.layer.name, inputs: this.inputs.length },
    );
  }

  /** An input as float32. */
  real(index = 0): Value {
    return this.builder.cast(this.input(index), "float32");
  }

  /**
   * A weight that the rule listed.
   * @throws PolyheadError MODEL_MALFORMED when the file has none
   */
  weight(name: string): Value {
    const found = this.#weights.get(name);
    if (found) return found;
    throw malformed(`Layer ${JSON.stringify(this.layer.name)} has no weight ${JSON.stringify(name)}.`, {
      layer: this.layer.name,
      weight: name,
    });
  }

  /** A weight that the rule listed, if the file has it. */
  optionalWeight(name: string): Value | undefined {
    return this.#weights.get(name);
  }

  /** Applies the model or wrapped layer within this layer. */
  applyInner(inputs: readonly Value[]): readonly Value[] {
    if (this.layer.inner) return this.#applyModel(this.layer.inner, inputs);
    throw malformed(
      `Layer ${JSON.stringify(this.layer.name)} (${this.layer.className}) has no layer within.`,
    );
  }
}

/** The weights of all layers of a model, by layer and by the name that its rule gives them. */
export type BoundWeights = ReadonlyMap<LayerSpec, ReadonlyMap<string, Tensor>>;
