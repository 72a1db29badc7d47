/**
 * How data flows from a graph's inputs to its outputs. Weights do not flow, and neither do shapes: what is computed
 * from a value's shape alone says nothing of its content and can be computed again wherever the value is known.
 * Values through which everything must flow are found as dominators on what is left.
 */
import { type GraphIndex, reads } from "./graph.js";
import { canonicalDomain, type Node } from "./model.js";

/** Where no value dominates: before the inputs. */
const SOURCE = "";

/** The flow of data through one graph. Only nodes that an output needs take part. */
export class DataFlow {
  readonly index: GraphIndex;
  /** The nodes that some output needs, in running order. */
  readonly nodes: readonly Node[];
  readonly #data = new Set<string>();
  readonly #shapes = new Set<string>();
  readonly #dominator = new Map<string, string>();
  readonly #depth = new Map<string, number>([[SOURCE, 0]]);

  constructor(index: GraphIndex) {
    this.index = index;
    this.nodes = index.ancestors(index.outputNames);
    for (const { name } of index.inputs) this.#add(name, SOURCE);
    for (const node of this.nodes) {
      const data = this.dataRead(node);
      if (data.length > 0 && !tellsShape(node)) {
        const dominator = this.commonDominator(data);
        for (const name of node.output) if (name !== "") this.#add(name, dominator);
      } else if (tellsShape(node) || reads(node).some((name) => this.#shapes.has(name))) {
        for (const name of node.output) this.#shapes.add(name);
      }
    }
  }

  #add(name: string, dominator: string): void {
    this.#data.add(name);
    this.#dominator.set(name, dominator);
    this.#depth.set(name, (this.#depth.get(dominator) ?? 0) + 1);
  }

  /** Whether a value depends on the content of an input. */
  isData(name: string): boolean {
    return this.#data.has(name);
  }

  /** Whether a value depends on an input's shape and on no content. */
  isShape(name: string): boolean {
    return this.#shapes.has(name);
  }

  /** The values with content that a node reads. */
  dataRead(node: Node): string[] {
    return reads(node).filter((name) => this.#data.has(name));
  }

  /** The last value before this one through which all its data flows; undefined when there is none. */
  dominatorOf(name: string): string | undefined {
    return this.#dominator.get(name) || undefined;
  }

  /** The last value through which the data of all given values flows, itself among them; "" for none. */
  commonDominator(names: readonly string[]): string {
    let [common = SOURCE, ...rest] = names;
    for (let other of rest) {
      while (common !== other) {
        const isDeeper = (this.#depth.get(common) ?? 0) > (this.#depth.get(other) ?? 0);
        if (isDeeper) common = this.#dominator.get(common) ?? SOURCE;
        else other = this.#dominator.get(other) ?? SOURCE;
      }
    }
    return common;
  }

  /** The values through which all data of the outputs flows, the last first, without the inputs. */
  funnels(): string[] {
    const found: string[] = [];
    const outputs = this.index.outputNames.filter((name) => this.#data.has(name));
    for (let name = this.commonDominator(outputs); this.index.producers.has(name); ) {
      found.push(name);
      name = this.#dominator.get(name) ?? SOURCE;
    }
    return found;
  }

  /** The nodes that data passes between a value and its dominator, in no order. */
  between(dominator: string, name: string): Node[] {
    const found = new Set<Node>();
    const open = [name];
    for (let value = open.pop(); value !== undefined; value = open.pop()) {
      const maker = value === dominator ? undefined : this.index.producers.get(value);
      if (!maker || found.has(maker)) continue;
      found.add(maker);
      open.push(...this.dataRead(maker));
    }
    return [...found];
  }

  /**
   * Values that leave a part of the graph that is closed against it (holds all that its nodes need): those that
   * other nodes read or that are outputs.
   */
  leaving(part: ReadonlySet<Node>): string[] {
    const others = this.nodes.filter((node) => !part.has(node) && !tellsShape(node));
    const read = new Set(others.flatMap((node) => this.dataRead(node)));
    for (const name of this.index.outputNames) read.add(name);
    const inputs = this.index.inputs.map(({ name }) => name);
    const made = this.nodes.filter((node) => part.has(node)).flatMap((node) => node.output);
    return [...inputs, ...made].filter((name) => this.#data.has(name) && read.has(name));
  }

  /**
   * The values as a cut: with the shapes that the rest of the graph needs besides, when those cannot be computed
   * from the values. Undefined when data still goes around the values.
   */
  asCut(values: readonly string[]): string[] | undefined {
    if (values.length === 0 || values.some((name) => !this.index.producers.has(name))) return undefined;
    const rest = this.index.ancestors(this.index.outputNames, new Set(values));
    const around = new Set(
      this.index.inputs.map(({ name }) => name).filter((name) => !values.includes(name)),
    );
    const shapes: string[] = [];
    for (const node of rest) {
      if (!reads(node).some((name) => around.has(name))) continue;
      if (tellsShape(node)) shapes.push(...node.output);
      else for (const name of node.output) around.add(name);
    }
    return this.index.outputNames.some((name) => around.has(name) && !values.includes(name))
      ? undefined
      : [...values, ...shapes];
  }
}

function tellsShape(node: Node): boolean {
  return (node.opType === "Shape" || node.opType === "Size") && canonicalDomain(node.domain) === "";
}
