/**
 * Splitting: one model becomes a backbone, whose outputs are the values at the cut, and the heads that read them.
 * Outputs that share nothing which varies after the cut become separate heads. An output that the backbone makes
 * on the way to the cut becomes a tap of its own, with a head that passes it on, so that the heads together
 * still give every output of the model. A batch of one that an exporter fixed is opened on the way, see batch.ts.
 */
import { PolyheadError } from "../base/errors.js";
import type { SymbolicShape } from "../tensor/shape.js";
import { dynamicBatch, isBatched } from "./batch.js";
import { defaultCut } from "./cuts.js";
import { extract, requireValue, withGraph } from "./extract.js";
import { GraphIndex, reads } from "./graph.js";
import { identify } from "./identity.js";
import { readMetadata, type Tap, withMetadata } from "./metadata.js";
import { copyOf, declaredType, graph, type Model, node, type ValueType, valueInfo } from "./model.js";
import { inferTypes } from "./shapes.js";

/** More heads than this are of no use to anybody, and each is a file. */
const MOST_HEADS = 256;

/** How to split. */
export interface SplitOptions {
  /** Values that separate the inputs from the outputs; by default the standard cut, see `defaultCut`. */
  readonly at?: readonly string[];
  /** Keep a batch of one that the exporter fixed, rather than open it as far as the graph allows. */
  readonly keepBatch?: boolean;
}

/** A head of a split model. */
export interface SplitHead {
  /** Unlike the names of the other heads, and fit for a file. */
  readonly name: string;
  readonly model: Model;
}

/** A model in parts. */
export interface Split {
  readonly backbone: Model;
  /** What the backbone gives, in the order of its outputs. */
  readonly taps: readonly Tap[];
  readonly heads: readonly SplitHead[];
  /** What was done to the batch. */
  readonly notes: readonly string[];
}

/**
 * The parts of a model. Preprocessing stays with all of them, labels, task and decoding with the heads.
 * @throws PolyheadError CUT_INVALID when the values do not separate inputs from outputs, with the path around
 *   them, or when the type of one is not known
 * @throws PolyheadError NOT_FOUND when a name is no value of the model
 * @throws PolyheadError LIMIT_EXCEEDED when there would be very many heads
 */
export async function splitModel(given: Model, options: SplitOptions = {}): Promise<Split> {
  const { model, index, types, taps: names, passed, fixed, notes } = chooseCut(given, options);
  const rest = index.outputNames.filter((name) => !passed.includes(name));
  // Looks for paths around the whole cut, so that the message names all of it.
  if (rest.length > 0) extract(model, index, names, rest, types);
  const inputs = index.inputs.map(({ name }) => name);
  const backbone = extract(model, index, inputs, names, types);
  const identities = await identify(model);
  const taps = backbone.graph.output.map((info): Tap => {
    const type = declaredType(info);
    if (!type?.shape) {
      throw new PolyheadError(
        "CUT_INVALID",
        `The shape of ${JSON.stringify(info.name)} is not known, so that no head can be held to it.`,
        { value: info.name },
      );
    }
    return {
      name: info.name,
      dtype: type.dtype,
      shape: type.shape,
      identity: identities.get(info.name) ?? "",
    };
  });
  const heads = [
    ...groupOutputs(index, rest, names).map((outputs) => {
      const head = headOf(model, index, taps, outputs, types);
      return outputs.some((name) => fixed.has(name)) ? atOneRow(head) : head;
    }),
    ...taps.filter(({ name }) => passed.includes(name)).map((tap) => passingHead(model, tap)),
  ];
  const headNames = fileNames(heads.map(({ graph }) => graph.output[0]?.name ?? ""));
  return {
    backbone: withMetadata(backbone, {
      role: "backbone",
      taps,
      task: undefined,
      labels: undefined,
      activation: undefined,
      decoding: undefined,
      quality: undefined,
    }),
    taps,
    heads: heads.map((head, at) => ({ name: headNames[at] ?? "head", model: head })),
    notes,
  };
}

/** The model as it is to be cut, and where. */
interface Cut {
  readonly model: Model;
  readonly index: GraphIndex;
  readonly types: ReadonlyMap<string, ValueType>;
  /** The values asked for, and the outputs that the backbone makes on the way to them. */
  readonly taps: readonly string[];
  readonly passed: readonly string[];
  /** Outputs that take one row only. */
  readonly fixed: ReadonlySet<string>;
  readonly notes: readonly string[];
}

/** Opens the batch where every tap can have any number of rows, and leaves the model as it is else. */
function chooseCut(model: Model, options: SplitOptions): Cut {
  const index = new GraphIndex(model.graph);
  const types = inferTypes(model);
  const cut = [...new Set(options.at ?? defaultCut(model, types))];
  requireVarying(index, cut);
  const inBackbone = new Set([
    ...index.inputs.map(({ name }) => name),
    ...index.ancestors(cut).flatMap(({ output }) => output),
    ...cut,
  ]);
  const passed = index.outputNames.filter((name) => inBackbone.has(name));
  const taps = [...new Set([...cut, ...passed])];
  const asIs = { model, index, types, taps, passed, fixed: new Set<string>(), notes: [] };
  if (options.keepBatch) return asIs;
  const opened = dynamicBatch(model, types);
  if (opened.model === model) return asIs;
  const single = taps.find((name) => !isBatched(opened.types.get(name)));
  if (single !== undefined) {
    const note = `The batch stays fixed at 1: ${JSON.stringify(single)} cannot have several rows. A cut further up may.`;
    return { ...asIs, notes: [note] };
  }
  return {
    model: opened.model,
    index: new GraphIndex(opened.model.graph),
    types: opened.types,
    taps,
    passed,
    fixed: new Set(opened.fixed.map(({ output }) => output)),
    notes: opened.notes,
  };
}

/** A head that mixes rows: it is given them one by one. */
function atOneRow(head: Model): Model {
  const single = (shape: SymbolicShape | undefined) => shape && [1, ...shape.slice(1)];
  const { taps = [] } = readMetadata(head);
  const input = head.graph.input.map((info) => {
    const type = declaredType(info);
    return type ? valueInfo(info.name, type.dtype, single(type.shape)) : info;
  });
  return withMetadata(withGraph(head, copyOf(head.graph, { input })), {
    taps: taps.map((tap) => ({ ...tap, shape: single(tap.shape) ?? tap.shape })),
  });
}

function headOf(
  model: Model,
  index: GraphIndex,
  taps: readonly Tap[],
  outputs: readonly string[],
  types: ReadonlyMap<string, ValueType>,
): Model {
  const nodes = index.ancestors(outputs, new Set(taps.map(({ name }) => name)));
  const read = new Set(nodes.flatMap(reads));
  const own = taps.filter(({ name }) => read.has(name));
  const head = extract(
    model,
    index,
    own.map(({ name }) => name),
    outputs,
    types,
  );
  return withMetadata(head, { role: "head", taps: own });
}

/** A head that gives a tap as an output: its input has another name, because one name is one value. */
function passingHead(model: Model, tap: Tap): Model {
  const info = [...model.graph.output].find(({ name }) => name === tap.name);
  const outputs = info ? [info] : [];
  const main = graph(model.graph.name, {
    nodes: [node("Identity", [`${tap.name}_tap`], [tap.name])],
    inputs: outputs.map((each) => copyOf(each, { name: `${tap.name}_tap` })),
    outputs,
    weights: [],
  });
  return withMetadata(withGraph(model, main), { role: "head", taps: [tap] });
}

/**
 * Outputs in groups that share no node which depends on the cut; constant ones go with the first group.
 * @throws PolyheadError LIMIT_EXCEEDED for more groups than {@link MOST_HEADS}
 */
function groupOutputs(index: GraphIndex, outputs: readonly string[], cut: readonly string[]): string[][] {
  const groups = new Groups();
  const stop = new Set(cut);
  const varying = new Set(cut);
  for (const each of index.ancestors(outputs, stop)) {
    const read = reads(each).filter((name) => varying.has(name));
    if (read.length === 0) continue;
    const [first = "", ...others] = each.output.filter((name) => name !== "");
    for (const name of [...others, ...read.filter((one) => !stop.has(one))]) groups.join(first, name);
    for (const name of [first, ...others]) varying.add(name);
  }
  const lists = new Map<string, string[]>();
  for (const output of outputs.filter((name) => varying.has(name))) {
    const group = groups.of(output);
    const list = lists.get(group);
    if (list) list.push(output);
    else lists.set(group, [output]);
  }
  if (lists.size > MOST_HEADS) {
    throw new PolyheadError(
      "LIMIT_EXCEEDED",
      `The model falls into ${lists.size} heads at this cut; the limit is ${MOST_HEADS}. Cut at values that more of its outputs share.`,
      { heads: lists.size, limit: MOST_HEADS },
    );
  }
  const constant = outputs.filter((name) => !varying.has(name));
  const [first = [], ...rest] = lists.values();
  const place = new Map(outputs.map((name, at) => [name, at]));
  const withConstant = [...first, ...constant].sort((a, b) => (place.get(a) ?? 0) - (place.get(b) ?? 0));
  return withConstant.length > 0
    ? [withConstant, ...rest].sort(([a = ""], [b = ""]) => (place.get(a) ?? 0) - (place.get(b) ?? 0))
    : [];
}

/** Names in groups that are joined one by one. */
class Groups {
  readonly #above = new Map<string, string>();

  /** The name that stands for the group. */
  of(name: string): string {
    let top = name;
    for (let next = this.#above.get(top); next !== undefined; next = this.#above.get(top)) top = next;
    for (let at = name; at !== top; ) {
      const next = this.#above.get(at) ?? top;
      this.#above.set(at, top);
      at = next;
    }
    return top;
  }

  join(one: string, other: string): void {
    const [a, b] = [this.of(one), this.of(other)];
    if (a !== b) this.#above.set(a, b);
  }
}

/** @throws PolyheadError NOT_FOUND, CUT_INVALID */
function requireVarying(index: GraphIndex, cut: readonly string[]): void {
  if (cut.length === 0) {
    throw new PolyheadError("CUT_INVALID", "The cut names no value; expected one at least.", {});
  }
  const varying = new Set(index.inputs.map(({ name }) => name));
  for (const each of index.order)
    if (reads(each).some((name) => varying.has(name))) for (const name of each.output) varying.add(name);
  for (const name of cut) {
    if (varying.has(name)) continue;
    requireValue(index, name);
    throw new PolyheadError(
      "CUT_INVALID",
      `${JSON.stringify(name)} is the same for every input, so that a head would read nothing; expected a value that depends on an input.`,
      { value: name },
    );
  }
}

/** Names for files, one for each output name; a single head is called `head`. */
function fileNames(outputs: readonly string[]): string[] {
  if (outputs.length === 1) return ["head"];
  const taken = new Set(["backbone"]);
  return outputs.map((output) => {
    const wanted =
      output
        .replace(/[^A-Za-z0-9._-]+/g, "_")
        .replace(/^[._]+|[._]+$/g, "")
        .slice(0, 64) || "head";
    let name = wanted;
    for (let suffix = 2; taken.has(name.toLowerCase()); suffix++) name = `${wanted}-${suffix}`;
    taken.add(name.toLowerCase());
    return name;
  });
}
