/**
 * Identity: what a value is, whatever it is called. The identity of a value is a SHA-256 over the operator
 * (with the version that gave it its meaning), its attributes without those that say the default, and the identities
 * of what it reads; for a weight over dtype, shape and bytes; for an input over its dtype, its place among the
 * inputs and its shape without the first dimension, the batch. Names, node order and metadata do not count, a
 * `Constant` is a weight, an `Identity` is what it passes on, and a call of a model's own function is its body.
 */
import { bytesToHex } from "@noble/hashes/utils.js";
import { PolyheadError } from "../base/errors.js";
import { sha256, sha256Aside } from "../base/sha256.js";
import { constantOf } from "./constant.js";
import { GraphIndex, namesFromOutside } from "./graph.js";
import {
  type Attribute,
  AttributeType,
  canonicalDomain,
  declaredType,
  functionFinder,
  type Graph,
  type Model,
  type ModelFunction,
  type Node,
  opsetVersion,
  type ValueInfo,
  type Weight,
} from "./model.js";
import { meaningVersion } from "./operator-changes.js";
import { attributeDefaults, type DefaultValue } from "./operator-schema.js";
import { allWeights } from "./read.js";
import { weightBytes, weightDtype, weightShape } from "./weight.js";

/** A value's identity: 64 hexadecimal digits. */
export type Identity = string;

/** Operators whose results depend on how many outputs are asked for. */
const COUNTS_OUTPUTS = new Set(["Split", "SplitToSequence", "Loop", "Scan", "If", "BatchNormalization"]);
/** Operators that slide a window: unit steps and no padding are their defaults, in as many dimensions as there are. */
const WINDOWED = /(Conv|ConvTranspose|ConvInteger|MaxPool|AveragePool|LpPool)$/;
const DIGESTS_AT_ONCE = 4;
/** Functions may call functions; no sane model goes deeper. */
export const MAX_CALL_DEPTH = 64;
/** Nothing is given for an attribute by reference outside of functions. */
const NO_REFERENCES: ReadonlyMap<string, Attribute> = new Map();
/** Nodes that may be looked at, those within calls once a call: functions that call functions can grow without end. */
export const MAX_NODES = 250_000;

/** What is known beforehand when a model is identified. */
export interface IdentityOptions {
  /** Identities of inputs that are made elsewhere: a head's taps. */
  readonly inputs?: ReadonlyMap<string, Identity>;
}

/**
 * The identities of all values of a model's main graph, by name.
 * @throws PolyheadError MODEL_MALFORMED
 */
export async function identify(model: Model, options: IdentityOptions = {}): Promise<Map<string, Identity>> {
  const weights = await weightIdentities(new Set(allWeights(model)));
  const identifier = new Identifier(model, weights);
  const index = new GraphIndex(model.graph);
  const known = new Map<string, Identity>();
  index.inputs.forEach((input, place) => {
    known.set(input.name, options.inputs?.get(input.name) ?? inputIdentity(input, place));
  });
  identifier.graph(index, known);
  return known;
}

/** The identity of a constant: dtype, shape and bytes. */
export async function weightIdentity(weight: Weight): Promise<Identity> {
  return identityWith(weight, await sha256Aside(weightBytes(weight)));
}

/** Some at a time, because the platform copies what it digests. Weights that share memory are digested once. */
async function weightIdentities(weights: Iterable<Weight>): Promise<Map<Weight, Identity>> {
  const found = new Map<Weight, Identity>();
  const digests = new Map<Uint8Array, Promise<string>>();
  const queue = weights[Symbol.iterator]();
  const work = async () => {
    for (const weight of { [Symbol.iterator]: () => queue }) {
      const bytes = weightBytes(weight);
      const digest = digests.get(bytes) ?? sha256Aside(bytes);
      digests.set(bytes, digest);
      found.set(weight, identityWith(weight, await digest));
    }
  };
  await Promise.all(Array.from({ length: DIGESTS_AT_ONCE }, work));
  return found;
}

function identityWith(weight: Weight, digest: string): Identity {
  return hashOf(["weight", weightDtype(weight), weightShape(weight), digest]);
}

function inputIdentity(input: ValueInfo, place: number): Identity {
  const type = declaredType(input);
  const shape = type?.shape?.map((size) => (typeof size === "number" ? size : "?")).slice(1);
  return hashOf([
    "input",
    place,
    type?.dtype ?? "unknown",
    type?.shape?.length ?? "unknown",
    shape ?? "unknown",
  ]);
}

function hashOf(parts: readonly unknown[]): Identity {
  return sha256(JSON.stringify(parts));
}

/** Identifies the nodes of one model; recursion follows subgraphs and functions. */
class Identifier {
  readonly #weights: ReadonlyMap<Weight, Identity>;
  readonly #find: (node: Node) => ModelFunction | undefined;
  /** Those of the model; functions may bring domains that it lacks. */
  readonly #opsets: Pick<Model, "opsetImport">;
  #depth = 0;
  #bodies = 0;
  #seen = 0;

  constructor(model: Model, weights: ReadonlyMap<Weight, Identity>) {
    this.#weights = weights;
    this.#find = functionFinder(model);
    this.#opsets = { opsetImport: [model, ...model.functions].flatMap((each) => each.opsetImport) };
  }

  /**
   * Adds the identities of a graph's weights and values to `known`.
   * @param references attributes of the function call that the graph stands in
   */
  graph(index: GraphIndex, known: Map<string, Identity>, references = NO_REFERENCES): void {
    for (const [name, weight] of index.weights) known.set(name, this.#weight(weight));
    for (const sparse of index.graph.sparseInitializer) {
      const parts = [sparse.values, sparse.indices].map((part) => part && this.#weight(part));
      known.set(sparse.values?.name ?? "", hashOf(["sparse", parts, sparse.dims.map(Number)]));
    }
    for (const node of index.order) this.#node(node, known, references);
  }

  #node(node: Node, known: Map<string, Identity>, references: ReadonlyMap<string, Attribute>): void {
    if (++this.#seen > MAX_NODES) {
      throw new PolyheadError(
        "LIMIT_EXCEEDED",
        `The model has more than ${MAX_NODES} nodes, those within its functions counted once a call.`,
        { limit: MAX_NODES },
      );
    }
    const inputs = node.input.map((name) => (name === "" ? "" : requireKnown(known, name, node.opType)));
    while (inputs.at(-1) === "") inputs.pop();
    const results = this.#results(node, inputs, known, references);
    node.output.forEach((name, place) => {
      if (name !== "") known.set(name, results(place));
    });
  }

  /** The identity of each output of a node, by place. */
  #results(
    node: Node,
    inputs: readonly Identity[],
    known: ReadonlyMap<string, Identity>,
    references: ReadonlyMap<string, Attribute>,
  ): (place: number) => Identity {
    const domain = canonicalDomain(node.domain);
    if (domain === "" && node.opType === "Identity") return () => inputs[0] ?? "";
    const given = node.attribute.flatMap((each) => this.#resolve(each, references) ?? []);
    const constant = domain === "" && node.opType === "Constant" ? constantOf(node, given) : undefined;
    if (constant) {
      const identity = this.#weight(constant);
      return () => identity;
    }
    const called = this.#find(node);
    if (called) return this.#call(called, given, inputs);

    const opset = opsetVersion(this.#opsets, domain) ?? 0;
    const defaults = attributeDefaults(domain, node.opType, opset);
    const attributes = given
      .filter((each) => domain !== "" || !isRankDefault(node.opType, each))
      .map((each) => [each.name, this.#attribute(each, known, references)] as const)
      .filter(
        ([name, value]) => !Object.hasOwn(defaults, name) || !isSame(value, canonicalDefault(defaults[name])),
      )
      .sort(([a], [b]) => (a < b ? -1 : 1));
    const outputs = COUNTS_OUTPUTS.has(node.opType) || domain !== "" ? node.output.length : 0;
    const identity = hashOf([
      "node",
      domain,
      node.opType,
      node.overload,
      meaningVersion(domain, node.opType, opset),
      attributes,
      inputs,
      outputs,
    ]);
    return (place) => hashOf([identity, place]);
  }

  /** A function's results are those of its body with the call's inputs and attributes in place. */
  #call(
    called: ModelFunction,
    attributes: readonly Attribute[],
    inputs: readonly Identity[],
  ): (place: number) => Identity {
    if (++this.#depth > MAX_CALL_DEPTH) {
      throw new PolyheadError(
        "MODEL_MALFORMED",
        `The function ${JSON.stringify(called.name)} calls itself, or calls go deeper than ${MAX_CALL_DEPTH}.`,
        { function: called.name },
      );
    }
    const known = new Map<string, Identity>();
    called.input.forEach((name, place) => {
      known.set(name, inputs[place] ?? "");
    });
    const given = new Map(called.attributeProto.map((each) => [each.name, each]));
    for (const each of attributes) given.set(each.name, each);
    for (const inner of called.node) this.#node(inner, known, given);
    this.#depth--;
    return (place) => requireKnown(known, called.output[place] ?? "", called.name);
  }

  #resolve(attribute: Attribute, references: ReadonlyMap<string, Attribute>): Attribute | undefined {
    if (attribute.refAttrName === "") return attribute;
    const value = references.get(attribute.refAttrName);
    return value && { ...value, name: attribute.name };
  }

  /** An attribute's value as plain data. */
  #attribute(
    attribute: Attribute,
    known: ReadonlyMap<string, Identity>,
    references: ReadonlyMap<string, Attribute>,
  ): unknown {
    switch (attribute.type) {
      case AttributeType.FLOAT:
        return ["float", floatText(attribute.f)];
      case AttributeType.INT:
        return ["int", String(attribute.i)];
      case AttributeType.STRING:
        return ["string", bytesToHex(attribute.s)];
      case AttributeType.TENSOR:
        return ["tensor", attribute.t && this.#weight(attribute.t)];
      case AttributeType.GRAPH:
        return ["graph", attribute.g && this.#body(attribute.g, known, references)];
      case AttributeType.FLOATS:
        return ["floats", attribute.floats.map(floatText)];
      case AttributeType.INTS:
        return ["ints", attribute.ints.map(String)];
      case AttributeType.STRINGS:
        return ["strings", attribute.strings.map(bytesToHex)];
      case AttributeType.TENSORS:
        return ["tensors", attribute.tensors.map((each) => this.#weight(each))];
      case AttributeType.GRAPHS:
        return ["graphs", attribute.graphs.map((each) => this.#body(each, known, references))];
      default:
        throw new PolyheadError(
          "MODEL_UNSUPPORTED",
          `Attribute ${JSON.stringify(attribute.name)} has type ${AttributeType[attribute.type] ?? attribute.type}, which has no identity here.`,
          {
            attribute: attribute.name,
            type: attribute.type,
          },
        );
    }
  }

  /** The identity of a subgraph: what its results are, given its formal inputs and the values around it. */
  #body(
    graph: Graph,
    outer: ReadonlyMap<string, Identity>,
    references: ReadonlyMap<string, Attribute>,
  ): Identity {
    if (++this.#depth > MAX_CALL_DEPTH) {
      throw new PolyheadError("MODEL_MALFORMED", `Subgraphs are nested deeper than ${MAX_CALL_DEPTH}.`, {});
    }
    this.#bodies++;
    const known = namesFromOutside(graph, outer);
    const index = new GraphIndex(graph, new Set(known.keys()));
    index.inputs.forEach(({ name }, place) => {
      known.set(name, hashOf(["formal", this.#bodies, place]));
    });
    this.graph(index, known, references);
    this.#bodies--;
    this.#depth--;
    return hashOf(["body", index.inputs.length, index.outputNames.map((name) => known.get(name))]);
  }

  #weight(weight: Weight): Identity {
    const known = this.#weights.get(weight);
    if (known !== undefined) return known;
    return identityWith(weight, sha256(weightBytes(weight)));
  }
}

function isSame(a: unknown, b: unknown): boolean {
  return JSON.stringify(a) === JSON.stringify(b);
}

/** The identity of a value that something reads: a function's body is checked here, graphs by their index. */
function requireKnown(known: ReadonlyMap<string, Identity>, name: string, reader: string): Identity {
  const identity = known.get(name);
  if (identity !== undefined) return identity;
  throw new PolyheadError(
    "MODEL_MALFORMED",
    `The value ${JSON.stringify(name)}, which ${reader} reads, is made by nothing.`,
    { value: name },
  );
}

/** A float so that every bit pattern has its own text: -0 is not 0. */
function floatText(value: number): string {
  return Object.is(value, -0) ? "-0" : String(Math.fround(value));
}

/** A default of the operator table in the form that attributes take. */
function canonicalDefault(value: DefaultValue | undefined): unknown {
  if (value === undefined) return undefined;
  const hex = (text: string) => bytesToHex(new TextEncoder().encode(text));
  if (typeof value === "number") return ["int", String(value)];
  if (typeof value === "string") return ["string", hex(value)];
  if ("float" in value) return ["float", floatText(value.float)];
  const isText = typeof value[0] === "string";
  return [
    isText ? "strings" : "ints",
    value.map((item) => (typeof item === "number" ? String(item) : hex(item))),
  ];
}

/** Whether an attribute says what its absence would, where that depends on the rank of an input. */
function isRankDefault(opType: string, { name, ints }: Attribute): boolean {
  if (WINDOWED.test(opType)) {
    if (name === "strides" || name === "dilations") return ints.every((each) => each === 1n);
    if (name === "pads" || name === "output_padding") return ints.every((each) => each === 0n);
    return name === "kernel_shape" && opType.includes("Conv");
  }
  return (
    opType === "Transpose" &&
    name === "perm" &&
    ints.every((axis, place) => Number(axis) === ints.length - 1 - place)
  );
}
