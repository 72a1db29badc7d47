/**
 * A loaded model: the graph in canonical form, what it reads, what it answers, and whether it takes batches. A
 * head is bound here, once, to the values that it reads, or to those of an adapter that stand in for them; afterwards
 * it is a model like any other.
 */
import { PolyheadError } from "../base/errors.js";
import { type CanonicalGraph, type CanonicalNode, canonicalGraph } from "../onnx/canonical.js";
import { GraphIndex } from "../onnx/graph.js";
import { type Identity, identify } from "../onnx/identity.js";
import { inlined } from "../onnx/inline.js";
import { type Metadata, readMetadata, type Tap } from "../onnx/metadata.js";
import { declaredType, type Model, type ValueInfo, type ValueType } from "../onnx/model.js";
import { neededNodes } from "../onnx/partition.js";
import { isRowwise } from "../onnx/rowwise.js";
import type { SegmentSource } from "../onnx/segment-model.js";
import { inferTypes } from "../onnx/shapes.js";
import type { DType } from "../tensor/dtype.js";
import { formatShape, type SymbolicShape } from "../tensor/shape.js";

/** How many rows a graph takes at once: any number, or exactly so many. */
export type Batch = "any" | number;

/** A model in an engine. */
export interface Member extends SegmentSource {
  /** See `revisionOf`. */
  readonly revision: string;
  readonly metadata: Metadata;
  readonly batch: Batch;
  /** Whether each row of its answer depends on the same row of its inputs alone. */
  readonly rowwise: boolean;
  /** What its requests give and get, as far as the files say it. */
  readonly signature: { readonly inputs: readonly Signature[]; readonly outputs: readonly Signature[] };
  /** Inputs that requests give, by name; of a head those of the backbones that it reads. */
  readonly inputs: ReadonlyMap<string, ModelInput>;
  /** Identities of the outputs by name. */
  readonly outputs: ReadonlyMap<string, Identity>;
  /** Those of the outputs that depend on no input. */
  readonly constants: readonly Identity[];
  /** The nodes that its outputs depend on, in running order: those of its providers, in a list that heads share, and its own. */
  readonly needed: readonly (readonly CanonicalNode[])[];
  /** The members whose graphs make what this one reads, each after those it reads itself. */
  readonly providers: readonly Member[];
}

/** An input that requests give. */
export interface ModelInput {
  readonly identity: Identity;
  readonly info: ValueInfo;
}

/** Name, dtype and shape of an input or output; a dimension with a name is open. */
export interface Signature {
  readonly name: string;
  readonly dtype: DType;
  readonly shape: SymbolicShape;
}

/** Names, by input, the taps that a head shall read whatever it was made for. */
export type Binding = Readonly<Record<string, string>>;

/**
 * Makes a member of a model.
 * @param file the model as it was loaded
 * @param loaded the members whose values a head may read
 * @param bind reads taps by name instead of by identity
 * @throws PolyheadError HEAD_MISMATCH, MODEL_MALFORMED, NOT_FOUND
 */
export async function makeMember(
  file: Model,
  revision: string,
  loaded: readonly Member[],
  bind?: Binding,
): Promise<Member> {
  const model = inlined(file);
  const metadata = readMetadata(model);
  const index = new GraphIndex(model.graph);
  const readsTaps = bind !== undefined || (metadata.taps !== undefined && metadata.role !== "backbone");
  const bound = readsTaps ? bindInputs(index, metadata, loaded, bind) : new Map<string, Source>();
  const taken = new Map([...bound].map(([name, { identity }]) => [name, identity]));
  const identities = await identify(model, { inputs: taken });
  const graph = canonicalGraph(index, identities);
  const types = new Map<Identity, ValueType>();
  const typesByName = inferTypes(model);
  for (const [name, type] of typesByName) {
    const identity = identities.get(name);
    if (identity !== undefined) types.set(identity, type);
  }
  const providers = [...new Set([...bound.values()].flatMap(({ member }) => [...member.providers, member]))];
  const own = index.inputs
    .filter(({ name }) => !bound.has(name))
    .map((info) => [info.name, { identity: identities.get(info.name) ?? "", info }] as const);
  const batch = batchOf(index.inputs);
  // What takes one row is run row by row, so that its rows are independent if each gives one.
  const givesRows =
    graph.outputs.size > 0 && index.outputNames.every((name) => typesByName.get(name)?.shape?.[0] === 1);
  const isOwnRowwise = batch === 1 ? givesRows : batch === "any" && isRowwise(model);
  const described = (info: ValueInfo) => signatureOf(info, typesByName.get(info.name));
  const fromProviders = providers.flatMap(({ signature }) => signature.inputs);
  const ownInputs = index.inputs.filter(({ name }) => !bound.has(name)).flatMap(described);
  return {
    revision,
    model,
    metadata,
    graph,
    types,
    batch,
    rowwise: isOwnRowwise && providers.every(({ rowwise }) => rowwise),
    signature: {
      inputs: [...new Map([...fromProviders, ...ownInputs].map((each) => [each.name, each])).values()],
      outputs: model.graph.output.flatMap(described),
    },
    inputs: new Map([...providers.flatMap((each) => [...each.inputs]), ...own]),
    outputs: graph.outputs,
    constants: [...graph.outputs.values()].filter((value) =>
      [...providers.map((each) => each.graph), graph].some((each) => isConstant(value, each)),
    ),
    needed: neededBy(graph, providers),
    providers,
  };
}

function isConstant(value: Identity, { nodes, weights }: CanonicalGraph): boolean {
  return weights.has(value) || nodes.some(({ varies, makes }) => !varies && makes.includes(value));
}

/** What some head needs of its providers. */
interface Share {
  readonly providers: readonly Member[];
  readonly nodes: readonly CanonicalNode[];
}

/** By the last provider, and by what is read. */
const shares = new WeakMap<Member, Map<string, Share>>();

/** Heads that read the same of the same providers are given the same list for it. */
function neededBy(
  graph: CanonicalGraph,
  providers: readonly Member[],
): readonly (readonly CanonicalNode[])[] {
  const outputs = [...graph.outputs.values()];
  const own = neededNodes([graph], outputs);
  const last = providers.at(-1);
  if (!last) return [own];
  const made = new Set(own.flatMap(({ makes }) => makes));
  const read = new Set(
    [...outputs, ...own.flatMap(({ reads }) => reads)].filter(
      (each) => !made.has(each) && !graph.weights.has(each),
    ),
  );
  const known = shares.get(last) ?? new Map<string, Share>();
  shares.set(last, known);
  const name = [...read].sort().join(" ");
  const share = known.get(name);
  if (share?.providers.every((each, at) => each === providers[at])) return [share.nodes, own];
  const graphs = providers.map((each) => each.graph);
  const nodes = neededNodes(graphs, [...read]);
  known.set(name, { providers, nodes });
  return [nodes, own];
}

/** Where an input of a head comes from. */
interface Source {
  readonly identity: Identity;
  readonly member: Member;
}

function bindInputs(
  index: GraphIndex,
  { taps = [] }: Metadata,
  loaded: readonly Member[],
  bind: Binding | undefined,
): Map<string, Source> {
  return new Map(
    index.inputs.map((info, place) => {
      const wanted = bind?.[info.name];
      if (wanted !== undefined) return [info.name, tapByName(info, wanted, loaded)] as const;
      const tap = taps[place];
      const member = tap && loaded.find((each) => makes(each, tap.identity));
      if (tap && member) return [info.name, { identity: tap.identity, member }] as const;
      const adapted = tap && throughAdapter(info, tap, loaded);
      if (adapted) return [info.name, adapted] as const;
      throw mismatch(info, tap, loaded);
    }),
  );
}

/**
 * The value of the adapter that says it stands in for a tap which nothing loaded makes.
 * @throws PolyheadError HEAD_MISMATCH when several do, because their values differ
 */
function throughAdapter(info: ValueInfo, tap: Tap, loaded: readonly Member[]): Source | undefined {
  const found = loaded.flatMap((member) => {
    const place = (member.metadata.produces ?? []).findIndex(({ identity }) => identity === tap.identity);
    const [name, identity] = [...member.outputs][place] ?? [];
    return name !== undefined && identity !== undefined ? [{ name, identity, member }] : [];
  });
  const [source, ...others] = found;
  if (source && others.length > 0) {
    const revisions = found.map(({ member }) => member.revision);
    throw new PolyheadError(
      "HEAD_MISMATCH",
      `${found.length} adapters stand in for ${JSON.stringify(tap.name)}, which the head's input ${JSON.stringify(info.name)} reads: ${revisions.join(", ")}. Unload all but one, or bind the input to an adapter's output by name.`,
      { input: info.name, tap, revisions },
    );
  }
  if (source) requireSameType(info, tap.name, source.member.types.get(source.identity));
  return source;
}

function makes({ graph, types }: Member, identity: Identity): boolean {
  return types.has(identity) || [...graph.outputs.values()].includes(identity);
}

function tapByName(info: ValueInfo, wanted: string, loaded: readonly Member[]): Source {
  const makers = ["backbone", "adapter"].flatMap((role) =>
    loaded.filter(({ metadata }) => metadata.role === role),
  );
  for (const member of makers) {
    const identity = member.outputs.get(wanted);
    if (identity !== undefined) {
      requireSameType(info, wanted, member.types.get(identity));
      return { identity, member };
    }
  }
  const known = makers.flatMap(({ outputs }) => [...outputs.keys()]);
  throw new PolyheadError(
    "NOT_FOUND",
    `No loaded backbone or adapter has a tap ${JSON.stringify(wanted)}; expected one of ${known.join(", ") || "none"}.`,
    { tap: wanted, expected: known },
  );
}

/** @throws PolyheadError HEAD_MISMATCH when even dtype or shape differ, which no wish can mend */
function requireSameType(info: ValueInfo, tap: string, type: ValueType | undefined): void {
  const own = declaredType(info);
  if (!own || !type) return;
  const fits =
    own.dtype === type.dtype &&
    (!own.shape ||
      !type.shape ||
      (own.shape.length === type.shape.length &&
        own.shape.every(
          (size, axis) => axis === 0 || typeof size === "string" || size === type.shape?.[axis],
        )));
  if (fits) return;
  const [expected, got] = [own, type].map(({ dtype, shape }) => `${dtype} ${formatShape(shape ?? [])}`);
  throw new PolyheadError(
    "HEAD_MISMATCH",
    `The head's input ${JSON.stringify(info.name)} takes ${expected}, and the tap ${JSON.stringify(tap)} is ${got}. An adapter between them can mend that.`,
    { input: info.name, tap, expected, got },
  );
}

function mismatch(
  info: ValueInfo,
  tap: { name: string; identity: Identity } | undefined,
  loaded: readonly Member[],
): PolyheadError {
  const offers = loaded
    .filter(({ metadata }) => metadata.role === "backbone")
    .flatMap(({ outputs }) => [...outputs].map(([name, identity]) => ({ name, identity })));
  if (!tap) {
    return new PolyheadError(
      "HEAD_MISMATCH",
      `Nothing says what the head's input ${JSON.stringify(info.name)} reads: its metadata names no tap for it. If you know that it fits, bind it to a tap by name.`,
      { input: info.name, offers },
    );
  }
  const near = offers.find(({ name }) => name === tap.name) ?? offers[0];
  const made = near
    ? `the backbone's ${JSON.stringify(near.name)} has identity ${near.identity}`
    : "no backbone is loaded";
  return new PolyheadError(
    "HEAD_MISMATCH",
    `The head reads ${JSON.stringify(tap.name)} of identity ${tap.identity}; ${made}. Load the backbone that the head was made for, put an adapter between them, or bind the head to a tap by name if you know better.`,
    { input: info.name, expected: tap, got: near, offers },
  );
}

/** Nothing for a value whose type neither the file nor inference says. */
function signatureOf(info: ValueInfo, inferred: ValueType | undefined): Signature[] {
  const { dtype, shape } = inferred ?? declaredType(info) ?? {};
  return dtype && shape ? [{ name: info.name, dtype, shape }] : [];
}

function batchOf(inputs: readonly ValueInfo[]): Batch {
  const sizes = inputs.flatMap((info) => declaredType(info)?.shape?.[0] ?? []);
  const fixed = sizes.find((size) => typeof size === "number");
  return typeof fixed === "number" ? fixed : "any";
}
