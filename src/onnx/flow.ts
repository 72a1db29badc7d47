/**
 * How data flows from a graph's inputs to its outputs. Weights do not flow, and neither do shapes: what is computed
 * from a value's shape alone says nothing of its content and can be computed again wherever the value is known.
 * Values through which everything must flow are found as dominators on what is left.
 */
import { type GraphIndex, reads } from "./graph.js";
import { canonicalDomain, type Node } from "./model.js";

/** A value's place in the tree of dominators. */
interface Place {
  readonly name: string;
  readonly depth: number;
  /** Its dominator. */
  readonly above: Place | undefined;
  /** Some place further above; these leaps make the way between any two places a logarithm of the depth long. */
  readonly leap: Place | undefined;
}

/** Where no value dominates: before the inputs. */
const SOURCE: Place = { name: "", depth: 0, above: undefined, leap: undefined };

/** The flow of data through one graph. Only nodes that an output needs take part. */
export class DataFlow {
  readonly index: GraphIndex;
  /** The nodes that some output needs, in running order. */
  readonly nodes: readonly Node[];
  readonly #data = new Set<string>();
  readonly #shapes = new Set<string>();
  readonly #places = new Map<string, Place>();
  readonly #read = new Map<Node, readonly string[]>();

  constructor(index: GraphIndex) {
    this.index = index;
    this.nodes = index.ancestors(index.outputNames);
    for (const { name } of index.inputs) this.#add(name, SOURCE);
    for (const node of this.nodes) {
      const data = this.dataRead(node);
      if (data.length > 0 && !tellsShape(node)) {
        const dominator = this.#common(data);
        for (const name of node.output) if (name !== "") this.#add(name, dominator);
      } else if (tellsShape(node) || reads(node).some((name) => this.#shapes.has(name))) {
        for (const name of node.output) this.#shapes.add(name);
      }
    }
  }

  #add(name: string, above: Place): void {
    const { leap = SOURCE } = above;
    const isEven = above.depth - leap.depth === leap.depth - (leap.leap ?? SOURCE).depth;
    this.#data.add(name);
    this.#places.set(name, {
      name,
      depth: above.depth + 1,
      above,
      leap: isEven ? (leap.leap ?? SOURCE) : above,
    });
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
  dataRead(node: Node): readonly string[] {
    const known = this.#read.get(node);
    if (known) return known;
    const read = reads(node).filter((name) => this.#data.has(name));
    this.#read.set(node, read);
    return read;
  }

  /** The last value before this one through which all its data flows; undefined when there is none. */
  dominatorOf(name: string): string | undefined {
    return this.#places.get(name)?.above?.name || undefined;
  }

  /** The last value through which the data of all given values flows, itself among them; "" for none. */
  commonDominator(names: readonly string[]): string {
    return this.#common(names).name;
  }

  #common(names: readonly string[]): Place {
    const [first = SOURCE, ...rest] = names.map((name) => this.#places.get(name) ?? SOURCE);
    return rest.reduce(commonPlace, first);
  }

  /** The values through which all data of the outputs flows, the last first, without the inputs. */
  funnels(): string[] {
    const found: string[] = [];
    const outputs = this.index.outputNames.filter((name) => this.#data.has(name));
    let place: Place | undefined = this.#common(outputs);
    for (; place && this.index.producers.has(place.name); place = place.above) found.push(place.name);
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
    const cut = new Set(values);
    const rest = this.index.ancestors(this.index.outputNames, cut);
    const around = new Set(this.index.inputs.map(({ name }) => name).filter((name) => !cut.has(name)));
    const shapes: string[] = [];
    for (const node of rest) {
      if (!reads(node).some((name) => around.has(name))) continue;
      if (tellsShape(node)) shapes.push(...node.output);
      else for (const name of node.output) around.add(name);
    }
    return this.index.outputNames.some((name) => around.has(name) && !cut.has(name))
      ? undefined
      : [...values, ...shapes];
  }
}

/** The deepest place that is above both, or is one of them. */
function commonPlace(one: Place, other: Place): Place {
  let [low, high] = one.depth > other.depth ? [one, other] : [other, one];
  while (low.depth > high.depth) {
    const leap = low.leap ?? SOURCE;
    low = leap.depth >= high.depth ? leap : (low.above ?? SOURCE);
  }
  while (low !== high) {
    // Places of one depth leap equally far.
    const leaps = low.leap !== high.leap;
    [low, high] = [(leaps ? low.leap : low.above) ?? SOURCE, (leaps ? high.leap : high.above) ?? SOURCE];
  }
  return low;
}

function tellsShape(node: Node): boolean {
  return (node.opType === "Shape" || node.opType === "Size") && canonicalDomain(node.domain) === "";
}
