/**
 * Which constants of a model are its parameters, and which of them are one and the same. Exporters store weights that
 * are equal once, although they were trained, or will be, each for itself: all biases that begin as zeros, say.
 * Here they become separate again, so that training does what it does where the model came from.
 */
import { withGraph } from "../onnx/extract.js";
import { freeNames, GraphIndex, reads } from "../onnx/graph.js";
import { canonicalDomain, copyOf, type Model, type Node, subgraphs, type Weight } from "../onnx/model.js";
import { weightBytes, weightDtype, weightShape } from "../onnx/weight.js";
import { byteLength } from "../tensor/dtype.js";

/** Inputs that say how an operator works; numbers there are settings and are not trained. */
const SETTINGS: Readonly<Record<string, readonly number[]>> = {
  BatchNormalization: [3, 4],
  Clip: [1, 2],
  Dropout: [1, 2],
  NonMaxSuppression: [3, 4],
  OneHot: [1, 2],
  Pad: [2],
  Pow: [1],
  Resize: [1, 2],
  Upsample: [1],
};

/** The inputs of a batch norm that are statistics. */
const STATISTICS: ReadonlyMap<number, string> = new Map([
  [3, "mean"],
  [4, "variance"],
]);

/** How far up a weight is looked for that tells two uses apart. */
const MAX_CLIMB = 64;

/** A model whose parameters are separate. */
export interface Parameters {
  readonly model: Model;
  /** Names of the initializers that can be trained. */
  readonly names: readonly string[];
}

/**
 * The parameters of a model: its float initializers but for settings (bounds, scales, statistics of batch norms) and
 * single numbers that are no parameters of the exporter.
 *
 * An initializer that `Identity` nodes read is one parameter for each of them, under the name of what the node
 * makes, which is the parameter's own name in PyTorch's exports; PyTorch writes parameters that are truly tied
 * without such nodes. One whose elements are all equal and that is used in several places directly is one parameter
 * for each place too (`NAME`, then `NAME@NODE`), unless the nearest weights before the places are the same: then a
 * whole layer is used twice. Any other initializer is one parameter however often it is used.
 *
 * Statistics of a batch norm belong to it, and to norms with the same scale and shift: there one norm is used twice. What
 * else reads the same initializer keeps it, and the statistics become `NAME@NODE.mean` and `NAME@NODE.variance`.
 */
export function separateParameters(given: Model): Parameters {
  const separated = withOwnStatistics(withoutMergedUses(withoutIdentities(given)));
  const settings = settingsOf(separated);
  const names = separated.graph.initializer
    .filter((weight) => isFloat(weight) && !settings.has(weight.name) && !isNumber(weight, separated))
    .map(({ name }) => name);
  return { model: separated, names };
}

/** Each `Identity` of a float initializer becomes an initializer of its own. */
function withoutIdentities(model: Model): Model {
  const weights = new Map(model.graph.initializer.map((weight) => [weight.name, weight]));
  const outputs = new Set(model.graph.output.map(({ name }) => name));
  const made: Weight[] = [];
  const node = model.graph.node.filter((each) => {
    const [source = ""] = each.input;
    const [name = ""] = each.output;
    const weight = weights.get(source);
    const isCopy = each.opType === "Identity" && canonicalDomain(each.domain) === "" && !outputs.has(name);
    if (!isCopy || !weight || !isFloat(weight)) return true;
    const own = copyOf(weight, { name });
    weights.set(name, own);
    made.push(own);
    return false;
  });
  if (made.length === 0) return model;
  const read = new Set(node.flatMap(reads));
  const initializer = [...model.graph.initializer, ...made].filter(
    ({ name }) => read.has(name) || outputs.has(name),
  );
  return withGraph(model, copyOf(model.graph, { node, initializer }));
}

/** Uses of one uniform initializer that belong to different layers get initializers of their own. */
function withoutMergedUses(model: Model): Model {
  const index = new GraphIndex(model.graph);
  const uniform = new Set(
    model.graph.initializer.filter((weight) => isFloat(weight) && isUniform(weight)).map(({ name }) => name),
  );
  const made: Weight[] = [];
  const renamed = new Map<Node, Map<string, string>>();
  for (const weight of model.graph.initializer) {
    const users = index.consumers.get(weight.name) ?? [];
    if (!uniform.has(weight.name) || weightShape(weight).length === 0 || users.length < 2) continue;
    if (users.some((user) => subgraphs(user).length > 0)) continue;
    const names = new Map<string, string>();
    for (const user of users) {
      const layer = nearestWeight(index, user, uniform);
      if (layer === undefined) continue;
      const first = names.size === 0;
      const name =
        names.get(layer) ?? (first ? weight.name : `${weight.name}@${user.name || user.output[0]}`);
      if (!names.has(layer) && !first) made.push(copyOf(weight, { name }));
      names.set(layer, name);
      renamed.set(user, new Map([...(renamed.get(user) ?? []), [weight.name, name]]));
    }
  }
  if (made.length === 0) return model;
  const node = model.graph.node.map((each) => {
    const names = renamed.get(each);
    return names ? copyOf(each, { input: each.input.map((name) => names.get(name) ?? name) }) : each;
  });
  return withGraph(model, copyOf(model.graph, { node, initializer: [...model.graph.initializer, ...made] }));
}

/** The first weight met on the way up from a node that two layers cannot have in common by chance. */
function nearestWeight(index: GraphIndex, from: Node, uniform: ReadonlySet<string>): string | undefined {
  let level = [from];
  for (let step = 0; step < MAX_CLIMB && level.length > 0; step++) {
    const inputs = level.flatMap(({ input }) => input);
    const telling = inputs.filter((name) => {
      const weight = index.weights.get(name);
      return weight && isFloat(weight) && weightShape(weight).length > 0 && !uniform.has(name);
    });
    if (telling.length > 0) return telling.sort().join("\n");
    level = inputs.flatMap((name) => index.producers.get(name) ?? []);
  }
  return undefined;
}

/** Statistics of batch norms that something else reads too become initializers of their own. */
function withOwnStatistics(model: Model): Model {
  const weights = new Map(model.graph.initializer.map((weight) => [weight.name, weight]));
  /** Who has an initializer: a norm, by scale, shift and place, or anybody. */
  const owners = new Map<string, Map<string, string>>();
  const outputs = model.graph.output.map(({ name }) => name);
  const readElsewhere = model.graph.node.flatMap((each) => {
    const own = statisticsOf(each);
    const inner = subgraphs(each).flatMap(freeNames);
    return [...each.input.filter((_, place) => !own.has(place)), ...inner];
  });
  for (const name of [...readElsewhere, ...outputs]) owners.set(name, new Map([["", name]]));
  const made: Weight[] = [];
  const node = model.graph.node.map((each) => {
    const own = statisticsOf(each);
    if (own.size === 0) return each;
    const [, scale, shift] = each.input;
    const input = each.input.map((name, place) => {
      const weight = weights.get(name);
      const kind = own.get(place);
      if (!weight || kind === undefined) return name;
      const names = owners.get(name) ?? new Map<string, string>();
      const owner = JSON.stringify([scale, shift, place]);
      const free = names.size === 0 ? name : `${name}@${each.name || each.output[0]}.${kind}`;
      const known = names.get(owner) ?? free;
      if (!names.has(owner) && names.size > 0) made.push(copyOf(weight, { name: known }));
      owners.set(name, names.set(owner, known));
      return known;
    });
    return copyOf(each, { input });
  });
  if (made.length === 0) return model;
  return withGraph(model, copyOf(model.graph, { node, initializer: [...model.graph.initializer, ...made] }));
}

/** The places of a node's inputs that are statistics. */
function statisticsOf({ opType, domain }: Node): ReadonlyMap<number, string> {
  return opType === "BatchNormalization" && canonicalDomain(domain) === "" ? STATISTICS : new Map();
}

/** Initializers that are nothing but settings. */
function settingsOf(model: Model): Set<string> {
  const asSetting = new Set<string>();
  const otherwise = new Set<string>();
  for (const each of model.graph.node) {
    const places = canonicalDomain(each.domain) === "" ? (SETTINGS[each.opType] ?? []) : [];
    each.input.forEach((name, place) => {
      (places.includes(place) ? asSetting : otherwise).add(name);
    });
  }
  return new Set([...asSetting].filter((name) => !otherwise.has(name)));
}

function isFloat(weight: Weight): boolean {
  const dtype = weightDtype(weight);
  return dtype === "float32" || dtype === "float64";
}

/** Single numbers are written as initializers by many exporters; only PyTorch's are parameters, under their own names. */
function isNumber(weight: Weight, { producerName }: Model): boolean {
  return weightShape(weight).length === 0 && (producerName !== "pytorch" || weight.name.startsWith("onnx::"));
}

/** Whether all elements are equal. */
function isUniform(weight: Weight): boolean {
  const bytes = weightBytes(weight);
  const width = byteLength(weightDtype(weight), 1);
  for (let at = width; at < bytes.length; at++) if (bytes[at] !== bytes[at - width]) return false;
  return true;
}
