/**
 * Joining: a backbone and what reads it become one model again. A part is bound by the identity of the values it
 * reads, never by their names; an adapter's outputs count as the taps it stands in for. The joined graph is the
 * union of the parts' canonical forms, with the names of the files put back where they do not collide.
 */
import { PolyheadError } from "../base/errors.js";
import { formatShape } from "../tensor/shape.js";
import {
  type CanonicalGraph,
  canonicalGraph,
  oneNode,
  renamedNode,
  renamedWeight,
  sameComputations,
} from "./canonical.js";
import { withGraph } from "./extract.js";
import { GraphIndex } from "./graph.js";
import { type Identity, identify } from "./identity.js";
import { inlined } from "./inline.js";
import { joinOperatorSets } from "./merge.js";
import { readMetadata, withMetadata } from "./metadata.js";
import {
  copyOf,
  declaredType,
  type Graph,
  graph,
  type Model,
  type Node,
  node,
  subgraphs,
  type ValueInfo,
} from "./model.js";

/** A value that parts may read. */
interface Offer {
  /** What a part asks for. */
  readonly asked: Identity;
  /** What it gets: the same, or the adapter's value that stands in for it. */
  readonly given: Identity;
  /** How people know it. */
  readonly name: string;
  readonly type: string;
}

/** An output of the joined model. */
interface JoinedOutput {
  readonly info: ValueInfo;
  readonly identity: Identity;
}

/**
 * One model of a backbone, adapters if any, and heads, in that order. Its outputs are those of the heads, its
 * inputs those of the backbone. Versions of an operator set may differ where every operator in use is the same in
 * both; the newer one is then written. Calls of the models' own functions are replaced by what these do.
 * @throws PolyheadError HEAD_MISMATCH when a part reads a value that none before it makes
 * @throws PolyheadError MODEL_UNSUPPORTED when operator sets differ in what is used
 * @throws PolyheadError ALREADY_EXISTS when two heads have outputs of one name
 */
export async function joinModels(first: Model, ...others: readonly Model[]): Promise<Model> {
  const backbone = inlined(first);
  const parts = others.map(inlined);
  const names = new Names();
  const offers = new Map<Identity, Offer>();
  const graphs: CanonicalGraph[] = [];
  const outputs: JoinedOutput[] = [];
  const add = async (part: Model, inputs?: ReadonlyMap<string, Identity>) => {
    refuseSparse(part);
    const identities = await identify(part, inputs && { inputs });
    names.see(part.graph, identities);
    graphs.push(canonicalGraph(new GraphIndex(part.graph), identities));
    return identities;
  };

  const made = await add(backbone);
  const taps = new Set(backbone.graph.output.map(({ name }) => name));
  for (const [name, identity] of [...made].sort(([a], [b]) => Number(taps.has(b)) - Number(taps.has(a)))) {
    const info = backbone.graph.output.find((output) => output.name === name);
    if (!offers.has(identity))
      offers.set(identity, { asked: identity, given: identity, name, type: info ? typeText(info) : "" });
  }
  for (const part of parts) {
    const identities = await add(part, bind(part, offers));
    const { role, produces = [] } = readMetadata(part);
    part.graph.output.forEach((info, place) => {
      const identity = identities.get(info.name) ?? "";
      if (role !== "adapter") outputs.push({ info, identity });
      for (const asked of [identity, produces[place]?.identity ?? identity])
        offers.set(asked, { asked, given: identity, name: info.name, type: typeText(info) });
    });
  }
  const all = [backbone, ...parts];
  const main = joinGraphs(backbone.graph, graphs, outputs, names);
  const joined = copyOf(withGraph(backbone, main), {
    irVersion: BigInt(Math.max(...all.map(({ irVersion }) => Number(irVersion)))),
    opsetImport: joinOperatorSets(all.map((each) => ({ model: each, nodes: each.graph.node }))),
  });
  return withMetadata(joined, joinedMetadata(parts));
}

/**
 * The identity that each input of a part is given.
 * @throws PolyheadError HEAD_MISMATCH
 */
function bind(part: Model, offers: ReadonlyMap<Identity, Offer>): Map<string, Identity> {
  const { taps = [] } = readMetadata(part);
  const { inputs } = new GraphIndex(part.graph);
  if (taps.length !== inputs.length) {
    throw new PolyheadError(
      "HEAD_MISMATCH",
      `A head or adapter has ${inputs.length} inputs and its metadata names ${taps.length} taps, so that it is not known what it reads; expected one tap for each input, as \`polyhead split\` writes them.`,
      { inputs: inputs.map(({ name }) => name), taps },
    );
  }
  return new Map(
    inputs.map(({ name }, place) => {
      const tap = taps[place];
      const offer = offers.get(tap?.identity ?? "");
      if (offer) return [name, offer.given] as const;
      const shown = [...offers.values()].filter(({ type }) => type !== "");
      const near =
        shown.find((each) => each.name === tap?.name) ??
        shown.find(({ type }) => type === `${tap?.dtype} ${formatShape(tap?.shape ?? [])}`) ??
        shown[0];
      throw new PolyheadError(
        "HEAD_MISMATCH",
        `The head reads ${JSON.stringify(tap?.name)} of identity ${tap?.identity}, which nothing before it makes; the nearest is ${JSON.stringify(near?.name)} of identity ${near?.asked}. Give the backbone that the head was trained on, or an adapter between them.`,
        { expected: tap, got: near && { name: near.name, identity: near.asked } },
      );
    }),
  );
}

function joinGraphs(
  first: Graph,
  parts: readonly CanonicalGraph[],
  outputs: readonly JoinedOutput[],
  names: Names,
): Graph {
  const nodes = sameComputations(parts.flatMap((part) => part.nodes)).map(oneNode);
  const weights = new Map(parts.flatMap((part) => [...part.weights]));
  const made = new Set(nodes.flatMap(({ makes }) => makes));
  const { inputs } = new GraphIndex(first);
  for (const { name } of inputs) names.assign(name, parts[0]?.inputs.get(name));
  // A value that two outputs show, an input or a constant as output: those pass through an Identity.
  const passed = outputs.filter(({ info, identity }) => {
    const isOwn = made.has(identity) && !names.has(identity);
    names.assign(info.name, isOwn ? identity : undefined);
    return !isOwn;
  });
  const rename = (identity: Identity) => (identity === "" ? "" : names.of(identity));
  return graph(first.name, {
    nodes: [
      ...nodes.map((each) => named(renamedNode(each.node, rename))),
      ...passed.map(({ info, identity }) => node("Identity", [rename(identity)], [info.name])),
    ],
    inputs,
    outputs: outputs.map(({ info }) => info),
    weights: [...weights].map(([identity, weight]) => renamedWeight(weight, rename(identity))),
  });
}

/** Names for identities: those of the files where they are free. */
class Names {
  readonly #known = new Map<Identity, string>();
  readonly #chosen = new Map<Identity, string>();
  readonly #taken = new Set<string>();

  /** Remembers what a graph calls its values; names inside of subgraphs are kept free. */
  see(of: Graph, identities: ReadonlyMap<string, Identity>): void {
    for (const [name, identity] of identities)
      if (!this.#known.has(identity)) this.#known.set(identity, name);
    for (const each of of.node) for (const body of subgraphs(each)) this.#seeBody(body);
  }

  /**
   * Takes a name for the border of the model, and for a value when one is given.
   * @throws PolyheadError ALREADY_EXISTS
   */
  assign(name: string, identity?: Identity): void {
    if (this.#taken.has(name)) {
      throw new PolyheadError(
        "ALREADY_EXISTS",
        `Two inputs or outputs of the joined model would be called ${JSON.stringify(name)}; rename one in its file.`,
        { name },
      );
    }
    this.#taken.add(name);
    if (identity !== undefined) this.#chosen.set(identity, name);
  }

  /** Whether the value has a name for good. */
  has(identity: Identity): boolean {
    return this.#chosen.has(identity);
  }

  /** The value's name, unlike all others. */
  of(identity: Identity): string {
    const old = this.#chosen.get(identity);
    if (old !== undefined) return old;
    const wanted = this.#known.get(identity) ?? identity;
    let name = wanted;
    for (let suffix = 1; this.#taken.has(name); suffix++) name = `${wanted}_${suffix}`;
    this.assign(name, identity);
    return name;
  }

  #seeBody(body: Graph): void {
    for (const { name } of [...body.input, ...body.initializer]) this.#taken.add(name);
    for (const each of body.node) {
      for (const name of each.output) this.#taken.add(name);
      for (const inner of subgraphs(each)) this.#seeBody(inner);
    }
  }
}

/** What heads say of their task holds for the whole where they agree. */
function joinedMetadata(parts: readonly Model[]) {
  const heads = parts.map(readMetadata).filter(({ role }) => role !== "adapter");
  const agreed = <T>(values: readonly T[]): T | undefined =>
    values.every((value) => JSON.stringify(value) === JSON.stringify(values[0])) ? values[0] : undefined;
  return {
    role: undefined,
    taps: undefined,
    task: agreed(heads.map(({ task }) => task)),
    labels: agreed(heads.map(({ labels }) => labels)),
    activation: agreed(heads.map(({ activation }) => activation)),
    decoding: agreed(heads.map(({ decoding }) => decoding)),
  };
}

/** @throws PolyheadError MODEL_UNSUPPORTED */
function refuseSparse(part: Model): void {
  const name = part.graph.sparseInitializer[0]?.values?.name;
  if (name === undefined) return;
  throw new PolyheadError(
    "MODEL_UNSUPPORTED",
    `The weight ${JSON.stringify(name)} is sparse; models with sparse weights cannot be joined. Store it densely.`,
    { weight: name },
  );
}

function named(of: Node): Node {
  return copyOf(of, { name: of.output.find((name) => name !== "") ?? "" });
}

function typeText(info: ValueInfo): string {
  const type = declaredType(info);
  return type ? `${type.dtype} ${formatShape(type.shape ?? [])}` : "unknown";
}
