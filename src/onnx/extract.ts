/**
 * A part of a model as a model of its own: the nodes between some values and others, with the weights, functions
 * and operator sets they need. Nothing is copied but lists; the parts share the weights' memory.
 */
import { PolyheadError } from "../base/errors.js";
import { type GraphIndex, reads } from "./graph.js";
import {
  copyOf,
  type Graph,
  graph,
  type Model,
  type Node,
  type ValueInfo,
  type ValueType,
  valueInfo,
} from "./model.js";

/**
 * The part of a model that computes `outputs` from `inputs`.
 * @param types dtypes and shapes of the values at its borders, see `inferTypes`
 * @throws PolyheadError CUT_INVALID when `outputs` also depend on a graph input that is not in `inputs`, with the path
 * @throws PolyheadError NOT_FOUND when a name is no value of the graph
 */
export function extract(
  model: Model,
  index: GraphIndex,
  inputs: readonly string[],
  outputs: readonly string[],
  types: ReadonlyMap<string, ValueType>,
): Model {
  for (const name of [...inputs, ...outputs]) requireValue(index, name);
  const stop = new Set(inputs);
  const nodes = index.ancestors(outputs, stop);
  refuseDetour(index, nodes, outputs, stop);
  const read = new Set([...nodes.flatMap(reads), ...outputs]);
  const made = new Set(nodes.flatMap((node) => node.output));
  const border = (name: string) => borderInfo(index, name, types);
  const part = graph(model.graph.name, {
    nodes,
    inputs: inputs.map(border),
    outputs: outputs.map(border),
    weights: index.graph.initializer.filter(({ name }) => read.has(name) && !stop.has(name)),
    values: index.graph.valueInfo.filter(({ name }) => made.has(name) && !outputs.includes(name)),
  });
  part.sparseInitializer = index.graph.sparseInitializer.filter(({ values }) => read.has(values?.name ?? ""));
  part.quantizationAnnotation = index.graph.quantizationAnnotation.filter(
    ({ tensorName }) => read.has(tensorName) || made.has(tensorName),
  );
  return withGraph(model, part);
}

/** The model with another main graph; functions, operator sets and metadata stay. */
export function withGraph(model: Model, main: Graph): Model {
  return copyOf(model, { graph: main });
}

/**
 * The declaration of a value at the border of a part.
 * @throws PolyheadError CUT_INVALID when not even its dtype is known
 */
function borderInfo(index: GraphIndex, name: string, types: ReadonlyMap<string, ValueType>): ValueInfo {
  const declared = [...index.graph.input, ...index.graph.output].find((info) => info.name === name);
  if (declared?.type) return declared;
  const type = types.get(name);
  if (type) return valueInfo(name, type.dtype, type.shape);
  throw new PolyheadError(
    "CUT_INVALID",
    `The type of ${JSON.stringify(name)} is not known, so no model can begin or end there.`,
    { value: name },
  );
}

/** Every path from a graph input to `outputs` must pass a value of `stop`. */
function refuseDetour(
  index: GraphIndex,
  nodes: readonly Node[],
  outputs: readonly string[],
  stop: ReadonlySet<string>,
): void {
  const given = new Set(index.inputs.map(({ name }) => name));
  const inside = new Set(nodes);
  const leak = [...nodes.flatMap(reads), ...outputs].find((name) => given.has(name) && !stop.has(name));
  if (leak === undefined) return;
  const path = [leak];
  const seen = new Set(path);
  for (let at = leak; !outputs.includes(at); ) {
    const next = (index.consumers.get(at) ?? [])
      .filter((node) => inside.has(node))
      .flatMap((node) => node.output)
      .find(
        (name) => name !== "" && !stop.has(name) && !seen.has(name) && leadsTo(index, inside, name, outputs),
      );
    if (next === undefined) break;
    path.push(next);
    seen.add(next);
    at = next;
  }
  throw new PolyheadError(
    "CUT_INVALID",
    `The cut at ${[...stop].map((name) => JSON.stringify(name)).join(", ")} does not separate inputs from outputs: a path goes around through ${shorten(path).join(" -> ")}. Add a value on it to the cut.`,
    { cut: [...stop], path },
  );
}

function leadsTo(
  index: GraphIndex,
  inside: ReadonlySet<Node>,
  from: string,
  outputs: readonly string[],
): boolean {
  const open = [from];
  const seen = new Set(open);
  for (let name = open.pop(); name !== undefined; name = open.pop()) {
    if (outputs.includes(name)) return true;
    for (const node of index.consumers.get(name) ?? []) {
      if (!inside.has(node)) continue;
      for (const next of node.output) {
        if (seen.has(next)) continue;
        seen.add(next);
        open.push(next);
      }
    }
  }
  return false;
}

function shorten(path: readonly string[]): string[] {
  return path.length <= 8 ? [...path] : [...path.slice(0, 4), "...", ...path.slice(-3)];
}

/**
 * Checks that a graph has a value, constants included.
 * @throws PolyheadError NOT_FOUND
 */
export function requireValue(index: GraphIndex, name: string): void {
  const isThere = index.producers.has(name) || index.graph.input.some((input) => input.name === name);
  if (isThere || index.isWeight(name)) return;
  throw new PolyheadError(
    "NOT_FOUND",
    `The model has no value ${JSON.stringify(name)}; see its values with \`polyhead inspect\`.`,
    { value: name },
  );
}
