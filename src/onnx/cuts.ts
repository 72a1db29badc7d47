/**
 * Where a model can be cut into a backbone and a head, best places first. A cut is a set of values through which all
 * data flows: single ones are the dominators of the outputs, several at once are what a feature pyramid, a decoder
 * or the branches of a detector read. Every cut offered is one that `extract` accepts on both sides.
 */
import { PolyheadError } from "../base/errors.js";
import type { DType } from "../tensor/dtype.js";
import type { SymbolicShape } from "../tensor/shape.js";
import {
  auxiliaryInputs,
  branchInputs,
  classifierInput,
  isProduct,
  isPyramid,
  pyramidInputs,
} from "./boundaries.js";
import { type Cost, elementsOf, NodeCosts } from "./cost.js";
import { DataFlow } from "./flow.js";
import { GraphIndex } from "./graph.js";
import type { Model, Node, ValueType } from "./model.js";

/** A value that crosses a cut. */
export interface CutValue {
  readonly name: string;
  readonly dtype: DType;
  readonly shape: SymbolicShape | undefined;
}

/** One way to cut a model. */
export interface Cut {
  /** What the backbone makes and the head reads. */
  readonly values: readonly CutValue[];
  /** What lies before the cut. */
  readonly backbone: Cost;
  /** What lies after it. */
  readonly head: Cost;
  /** Whether this is what {@link defaultCut} gives. */
  readonly isDefault: boolean;
}

type Types = ReadonlyMap<string, ValueType>;

/** A cut through more values than this is of no use to anybody. */
const MOST_VALUES = 12;
/** Of more single values than this, only those with the fewest elements are looked at. */
const MOST_STAGES = 64;

/**
 * The places where a model can be cut, the default first, then by usefulness: few elements cross, little is left
 * to compute after them, no shapes cross besides.
 * @param types of the model's values, see `inferTypes`
 * @param limit at most this many
 */
export function candidateCuts(model: Model, types: Types, limit = 12): Cut[] {
  const flow = new DataFlow(new GraphIndex(model.graph));
  const standard = standardCut(flow, types);
  const found = new Map<string, Sides>();
  const several = [pyramidInputs(flow, types), branchInputs(flow)].filter((values) => values !== undefined);
  for (const values of [...several, ...stages(flow, types).map((name) => [name])]) {
    const cut = smallCut(flow, values);
    const sides = cut && sidesOf(flow, cut);
    if (sides?.before.some(isProduct) && sides.after.some(isProduct)) found.set(keyOf(sides.cut), sides);
  }
  if (standard) found.set(keyOf(standard), sidesOf(flow, standard));
  const standardKey = standard && keyOf(standard);
  const costs = new NodeCosts(flow.index, types);
  const total = costs.of(flow.nodes);
  return [...found]
    .map(([key, sides]) => describe(costs, types, sides, key === standardKey))
    .filter((cut) => cut !== undefined)
    .map((cut) => ({ cut, burden: cut.isDefault ? -1 : burden(flow, cut, types, total) }))
    .sort((a, b) => a.burden - b.burden)
    .slice(0, limit)
    .map(({ cut }) => cut);
}

/**
 * The names of the values at which a model is cut when nobody says where: what enters the classifier; what the
 * feature pyramid or decoder reads; where the outputs branch.
 * @param types of the model's values, see `inferTypes`
 * @throws PolyheadError CUT_INVALID when the model shows none of these
 */
export function defaultCut(model: Model, types: Types): readonly string[] {
  const cut = standardCut(new DataFlow(new GraphIndex(model.graph)), types);
  if (cut) return cut;
  throw new PolyheadError(
    "CUT_INVALID",
    "The model has no classifier, feature pyramid or branches to cut before. Name the values to cut at; `polyhead inspect` lists candidates.",
    { outputs: model.graph.output.map(({ name }) => name) },
  );
}

function standardCut(flow: DataFlow, types: Types): string[] | undefined {
  const classifier = classifierInput(flow, types);
  const branches = branchInputs(flow);
  const isClear = branches && (branches.length === 1 || isPyramid(branches, types));
  const last = branches && lastFunnel(flow);
  const choices = [
    classifier === undefined ? undefined : [classifier],
    auxiliaryInputs(flow, types),
    pyramidInputs(flow, types),
    isClear ? branches : undefined,
    last === undefined ? undefined : [last],
  ];
  for (const values of choices) {
    const cut = values && smallCut(flow, values);
    if (cut?.every((name) => types.has(name))) return cut;
  }
  return undefined;
}

/** The last value through which all data flows and after which there is still work to do. */
function lastFunnel(flow: DataFlow): string | undefined {
  const [last] = flow.funnels();
  if (last === undefined) return undefined;
  const trunk = new Set(flow.index.ancestors([last]));
  return flow.nodes.some((node) => !trunk.has(node) && isProduct(node)) ? last : undefined;
}

/**
 * The single values worth a cut: of those between two products, the last of each size, so that an activation stands
 * for the convolution before it and pooled features stand beside the map they were pooled from.
 */
function stages(flow: DataFlow, types: Types): string[] {
  const kept: string[] = [];
  let sizes = new Set<number>();
  let previous: string | undefined;
  for (const name of flow.funnels()) {
    if (previous !== undefined && flow.between(name, previous).some(isProduct)) sizes = new Set();
    const size = elementsOf(name, types);
    if (!sizes.has(size)) kept.push(name);
    sizes.add(size);
    previous = name;
  }
  return kept.sort((a, b) => elementsOf(a, types) - elementsOf(b, types)).slice(0, MOST_STAGES);
}

/** The values as a cut, see `DataFlow.asCut`; undefined also when it has too many. */
function smallCut(flow: DataFlow, values: readonly string[]): string[] | undefined {
  const cut = values.length <= MOST_VALUES ? flow.asCut(values) : undefined;
  return cut && cut.length <= MOST_VALUES ? cut : undefined;
}

/** A cut with the nodes before and after it. */
interface Sides {
  readonly cut: readonly string[];
  readonly before: readonly Node[];
  readonly after: readonly Node[];
}

function sidesOf({ index }: DataFlow, cut: readonly string[]): Sides {
  return {
    cut,
    before: index.ancestors(cut),
    after: index.ancestors(index.outputNames, new Set(cut)),
  };
}

function describe(
  costs: NodeCosts,
  types: Types,
  { cut, before, after }: Sides,
  isDefault: boolean,
): Cut | undefined {
  const values = cut.flatMap((name): CutValue[] => {
    const type = types.get(name);
    return type ? [{ name, dtype: type.dtype, shape: type.shape }] : [];
  });
  if (values.length < cut.length) return undefined;
  return { values, backbone: costs.of(before), head: costs.of(after), isDefault };
}

/** What speaks against a cut: elements that cross, weighed with what is left for the head, and shapes besides. */
function burden(flow: DataFlow, cut: Cut, types: Types, total: Cost): number {
  const elements = cut.values.reduce((sum, { name }) => sum + Math.max(1, elementsOf(name, types)), 0);
  const left = share(cut.head.flops, total.flops) + share(cut.head.parameters, total.parameters);
  const shapes = cut.values.filter(({ name }) => flow.isShape(name)).length;
  return elements * (1 + 8 * left) * 16 ** shapes;
}

function share(part: number, whole: number): number {
  return whole === 0 ? 0 : part / whole;
}

function keyOf(names: readonly string[]): string {
  return JSON.stringify([...names].sort());
}
