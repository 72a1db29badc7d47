/**
 * Old models in the form of the operator set that Polyhead writes, 17: what is computed stays, values keep their
 * names, and computations that newer exports have too get the identities of those. `operator-changes.ts` knows which
 * operators did not change, `upgrade-rules.ts` rewrites those that did. A model is brought up as a whole or not at
 * all; newer ones stay as they are.
 */
import { constantOf } from "./constant.js";
import { GraphIndex, reads } from "./graph.js";
import { readMetadata } from "./metadata.js";
import {
  canonicalDomain,
  copyOf,
  DEFAULT_OPSET,
  type Graph,
  type Model,
  type Node,
  opsetVersion,
  subgraphs,
  type ValueType,
  type Weight,
} from "./model.js";
import { changesBetween, isSameSince } from "./operator-changes.js";
import { inferTypes } from "./shapes.js";
import { type Place, UPGRADE_RULES } from "./upgrade-rules.js";
import { weightTensor } from "./weight.js";

/** The oldest operator set that can be brought up; ONNX Runtime promises no older one. */
export const OLDEST_OPSET = 7;
/** From this version of the file format on, initializers are constants without being inputs. */
const CONSTANTS_ARE_NO_INPUTS = 4n;
/** The version of the file format that goes with operator set 17. */
const IR_VERSION = 8n;

/** A model after the attempt to bring it up. */
export interface Upgrade {
  readonly model: Model;
  /** What was done, or why nothing could be; empty for models that are new enough. */
  readonly notes: readonly string[];
}

/**
 * The model under the operator set that Polyhead writes, or as it is where that cannot be done exactly. Backbones,
 * heads and adapters stay as well: others of them know their values by the identities that they have.
 */
export function upgraded(model: Model): Upgrade {
  if (readMetadata(model).role !== undefined) return { model, notes: [] };
  const opset = opsetVersion(model) ?? DEFAULT_OPSET;
  const sets = [model, ...model.functions].map((each) => opsetVersion(each) ?? opset);
  if (sets.every((version) => version >= DEFAULT_OPSET)) return { model, notes: [] };
  const oldest = Math.min(...sets);
  const newest = Math.max(...sets);
  if (oldest < OLDEST_OPSET) {
    const note = `The model stays in operator set ${oldest}: sets are brought up from ${OLDEST_OPSET} on.`;
    return { model, notes: [note] };
  }
  const stays = `The model stays in operator set ${opset}:`;
  if (newest > DEFAULT_OPSET) {
    return { model, notes: [`${stays} functions of it use set ${newest}, newer than ${DEFAULT_OPSET}.`] };
  }
  const upgrader = new Upgrader(model);
  const main = upgrader.graph(model.graph, opset, inferTypes(model));
  const functions = model.functions.map((each) =>
    copyOf(each, {
      node: upgrader.nodes(each.node, opsetVersion(each) ?? opset, new Scope(each.node, each.output)),
      opsetImport: raised(each.opsetImport),
    }),
  );
  if (upgrader.stuck !== undefined) {
    return {
      model,
      notes: [`${stays} ${upgrader.stuck} has no form in set ${DEFAULT_OPSET} that is surely equal.`],
    };
  }
  const irVersion = model.irVersion > IR_VERSION ? model.irVersion : IR_VERSION;
  const graph = model.irVersion < CONSTANTS_ARE_NO_INPUTS ? withoutConstantInputs(main) : main;
  return {
    model: copyOf(model, { graph, functions, irVersion, opsetImport: raised(model.opsetImport) }),
    notes: [`Operator set ${opset} became ${DEFAULT_OPSET}.`],
  };
}

function raised(sets: Model["opsetImport"]): Model["opsetImport"] {
  return sets.map((each) =>
    canonicalDomain(each.domain) === "" ? copyOf(each, { version: BigInt(DEFAULT_OPSET) }) : each,
  );
}

function withoutConstantInputs(graph: Graph): Graph {
  const { inputs } = new GraphIndex(graph);
  return copyOf(graph, { input: [...inputs] });
}

/** What is known of the values of one graph, or of a function's body. */
class Scope {
  readonly types: ReadonlyMap<string, ValueType>;
  readonly #read: ReadonlySet<string>;
  readonly #constants: Map<string, Weight>;

  constructor(
    nodes: readonly Node[],
    outputs: readonly string[],
    weights: readonly Weight[] = [],
    types: ReadonlyMap<string, ValueType> = new Map(),
  ) {
    this.types = types;
    this.#read = new Set([...nodes.flatMap(reads), ...outputs]);
    this.#constants = new Map(weights.map((each) => [each.name, each]));
    this.learn(nodes);
  }

  /** Remembers the constants among nodes. */
  learn(nodes: readonly Node[]): void {
    for (const each of nodes) {
      const value = each.opType === "Constant" ? constantOf(each) : undefined;
      if (value) this.#constants.set(each.output[0] ?? "", value);
    }
  }

  place(fresh: (wanted: string) => string): Place {
    return {
      type: (name) => this.types.get(name),
      constant: (name) => {
        const found = this.#constants.get(name);
        return found && weightTensor(found);
      },
      isRead: (name) => this.#read.has(name),
      fresh,
    };
  }
}

/** One run over a model; recursion follows subgraphs. */
class Upgrader {
  /** The first node that could not be brought up. */
  stuck: string | undefined;
  readonly #taken: Set<string>;

  constructor(model: Model) {
    const bodies = model.functions.flatMap((each) => [...each.input, ...each.node.flatMap(namesOf)]);
    this.#taken = new Set([...graphNames(model.graph), ...bodies]);
  }

  /** @param types of the main graph's values; nothing is inferred of values in subgraphs */
  graph(of: Graph, opset: number, types?: ReadonlyMap<string, ValueType>): Graph {
    const outputs = of.output.map(({ name }) => name);
    return copyOf(of, {
      node: this.nodes(of.node, opset, new Scope(of.node, outputs, of.initializer, types)),
    });
  }

  nodes(nodes: readonly Node[], opset: number, scope: Scope): Node[] {
    return nodes.flatMap((each) => this.#node(this.#withBodies(each, opset), opset, scope));
  }

  #withBodies(of: Node, opset: number): Node {
    if (subgraphs(of).length === 0) return of;
    const attribute = of.attribute.map((each) =>
      copyOf(each, {
        ...(each.g && { g: this.graph(each.g, opset) }),
        graphs: each.graphs.map((graph) => this.graph(graph, opset)),
      }),
    );
    return copyOf(of, { attribute });
  }

  #node(of: Node, opset: number, scope: Scope): Node[] {
    if (canonicalDomain(of.domain) !== "") return [of];
    const [since] = changesBetween(of.opType, opset, DEFAULT_OPSET);
    if (since === undefined) return [of];
    const made = this.#step(of, since, scope);
    if (!made) {
      this.stuck ??= `${of.opType} ${JSON.stringify(of.name || (of.output[0] ?? ""))}`;
      return [of];
    }
    scope.learn(made);
    // What changed after `since` is for the next step. Rules may use operators that are newer still.
    return made.flatMap((each) => this.#node(each, since, scope));
  }

  /** A node in the form of the next version of its operator; undefined where there is none. */
  #step(of: Node, since: number, scope: Scope): Node[] | undefined {
    const rules = Object.hasOwn(UPGRADE_RULES, of.opType) ? UPGRADE_RULES[of.opType] : undefined;
    const rule = rules?.[since];
    if (!rule) return isSameSince(of.opType, since) ? [of] : undefined;
    // A rule reads the values of attributes, which those by reference do not have yet.
    if (of.attribute.some(({ refAttrName }) => refAttrName !== "")) return undefined;
    return rule(
      of,
      scope.place((wanted) => this.#fresh(wanted)),
    );
  }

  #fresh(wanted: string): string {
    let name = wanted;
    for (let suffix = 1; this.#taken.has(name); suffix++) name = `${wanted}_${suffix}`;
    this.#taken.add(name);
    return name;
  }
}

function graphNames(of: Graph): string[] {
  const given = [...of.input, ...of.initializer].map(({ name }) => name);
  const sparse = of.sparseInitializer.map(({ values }) => values?.name ?? "");
  return [...given, ...sparse, ...of.node.flatMap(namesOf)];
}

function namesOf(of: Node): string[] {
  return [...of.output, ...subgraphs(of).flatMap(graphNames)];
}
