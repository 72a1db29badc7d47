/**
 * Calls of a model's own functions replaced by the functions' bodies, in subgraphs too. What is built on canonical
 * forms needs it: a call and its body are the same values, and only nodes of the graph can be shared one by one.
 */
import { PolyheadError } from "../base/errors.js";
import { MAX_CALL_DEPTH, MAX_NODES } from "./identity.js";
import { joinOperatorSets } from "./merge.js";
import {
  type Attribute,
  copyOf,
  functionFinder,
  type Graph,
  type Model,
  type ModelFunction,
  type Node,
  node,
  subgraphs,
  type ValueInfo,
} from "./model.js";

/** What names and attributes mean in the place where nodes stand. */
interface Scope {
  /** Renames what the nodes read or make. */
  readonly rename: (name: string) => string;
  /** Renames what a subgraph defines itself, and nodes. */
  readonly local: (name: string) => string;
  /** Attributes of the call, for those that refer to them. */
  readonly given: ReadonlyMap<string, Attribute>;
  /** Collects what functions declare of their values, for the graph that the nodes are in. */
  readonly values: ValueInfo[];
}

/**
 * The same model without functions; its graph's values keep their names and their identities.
 * @throws PolyheadError MODEL_MALFORMED when functions call themselves
 * @throws PolyheadError MODEL_UNSUPPORTED when a function is written for another version of an operator
 * @throws PolyheadError LIMIT_EXCEEDED
 */
export function inlined(model: Model): Model {
  return model.functions.length === 0 ? model : new Inliner(model).model();
}

/** One run over a model; recursion follows subgraphs and functions. */
class Inliner {
  readonly #model: Model;
  readonly #find: (node: Node) => ModelFunction | undefined;
  /** Begins the names of values in bodies; no name of the model begins so. */
  readonly #prefix: string;
  readonly #called = new Set<ModelFunction>();
  #calls = 0;
  #depth = 0;
  #nodes = 0;

  constructor(model: Model) {
    this.#model = model;
    this.#find = functionFinder(model);
    const names = [...definedNames(model.graph, true)];
    let prefix = "call/";
    while (names.some((name) => name.startsWith(prefix))) prefix = `_${prefix}`;
    this.#prefix = prefix;
  }

  model(): Model {
    const same = (name: string) => name;
    const graph = this.#graph(this.#model.graph, { rename: same, local: same, given: new Map(), values: [] });
    const bodies = [...this.#called].map((each) => ({
      model: each,
      nodes: each.node.filter((inner) => !this.#find(inner)),
    }));
    const opsetImport = joinOperatorSets([{ model: this.#model, nodes: graph.node }, ...bodies]);
    return copyOf(this.#model, { graph, functions: [], opsetImport });
  }

  #graph(of: Graph, outer: Scope): Graph {
    const own = new Set(definedNames(of, false));
    const values: ValueInfo[] = [];
    const rename = (name: string) => (own.has(name) ? outer.local(name) : outer.rename(name));
    const renamed = <T extends { name: string }>(each: T): T =>
      Object.assign(copyOf(each, {}), { name: rename(each.name) });
    const nodes = of.node.flatMap((each) => this.#node(each, { ...outer, rename, values }));
    return copyOf(of, {
      node: nodes,
      input: of.input.map(renamed),
      output: of.output.map(renamed),
      initializer: of.initializer.map(renamed),
      sparseInitializer: of.sparseInitializer.map((each) =>
        each.values ? copyOf(each, { values: renamed(each.values) }) : each,
      ),
      valueInfo: [...of.valueInfo.map(renamed), ...values],
    });
  }

  #node(of: Node, scope: Scope): Node[] {
    if (++this.#nodes > MAX_NODES) {
      throw new PolyheadError(
        "LIMIT_EXCEEDED",
        `The model has more than ${MAX_NODES} nodes, those within its functions counted once a call.`,
        { limit: MAX_NODES },
      );
    }
    const own = copyOf(of, {
      name: scope.local(of.name),
      input: of.input.map(scope.rename),
      output: of.output.map(scope.rename),
      attribute: of.attribute.flatMap((each) => this.#attribute(each, scope)),
    });
    const called = this.#find(of);
    return called ? this.#call(called, own, scope) : [own];
  }

  #attribute(of: Attribute, scope: Scope): Attribute[] {
    if (of.refAttrName !== "") {
      const value = scope.given.get(of.refAttrName);
      return value ? [copyOf(value, { name: of.name })] : [];
    }
    if (!of.g && of.graphs.length === 0) return [of];
    return [
      copyOf(of, {
        ...(of.g && { g: this.#graph(of.g, scope) }),
        graphs: of.graphs.map((graph) => this.#graph(graph, scope)),
      }),
    ];
  }

  /** The body of a function; its results pass to those of the call through `Identity`. */
  #call(called: ModelFunction, of: Node, { values }: Scope): Node[] {
    if (++this.#depth > MAX_CALL_DEPTH) {
      throw new PolyheadError(
        "MODEL_MALFORMED",
        `The function ${JSON.stringify(called.name)} calls itself, or calls go deeper than ${MAX_CALL_DEPTH}.`,
        { function: called.name },
      );
    }
    this.#called.add(called);
    const prefix = `${this.#prefix}${++this.#calls}/`;
    const inputs = new Map(called.input.map((name, place) => [name, of.input[place] ?? ""]));
    const local = (name: string) => (name === "" ? "" : `${prefix}${name}`);
    const rename = (name: string) => inputs.get(name) ?? local(name);
    const given = new Map([...called.attributeProto, ...of.attribute].map((each) => [each.name, each]));
    const body = called.node.flatMap((inner) => this.#node(inner, { rename, local, given, values }));
    for (const info of called.valueInfo)
      if (!inputs.has(info.name)) values.push(copyOf(info, { name: local(info.name) }));
    this.#depth--;
    const results = of.output.flatMap((name, place) =>
      name === ""
        ? []
        : [copyOf(node("Identity", [rename(called.output[place] ?? "")], [name]), { name: "" })],
    );
    return [...body, ...results];
  }
}

/** Names of the values that a graph defines; when `deep`, those in its subgraphs and the names of nodes too. */
function* definedNames(of: Graph, deep: boolean): Generator<string> {
  for (const { name } of [...of.input, ...of.initializer]) yield name;
  for (const { values } of of.sparseInitializer) if (values) yield values.name;
  for (const each of of.node) {
    for (const name of each.output) if (name !== "") yield name;
    if (!deep) continue;
    yield each.name;
    for (const body of subgraphs(each)) yield* definedNames(body, deep);
  }
}
