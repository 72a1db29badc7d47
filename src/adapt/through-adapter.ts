/**
 * An adapter and a head as one head, which reads the new backbone itself. It needs no other file, and a route can point
 * to it while the head that it was made of still answers from its own backbone.
 */
import { PolyheadError } from "../base/errors.js";
import { withGraph } from "../onnx/extract.js";
import { GraphIndex } from "../onnx/graph.js";
import { joinOperatorSets } from "../onnx/merge.js";
import { readMetadata, withMetadata } from "../onnx/metadata.js";
import { copyOf, type Graph, graph, type Model, subgraphs } from "../onnx/model.js";

/**
 * The head with the adapter in front of it. The head's metadata stay, but for what it reads and how good it is.
 * @param adapter whose outputs stand in for what the head reads
 * @throws PolyheadError HEAD_MISMATCH when the adapter lacks one of them, MODEL_UNSUPPORTED when the two use operators that
 *   differ between the versions of their operator sets
 */
export function headThroughAdapter(head: Model, adapter: Model): Model {
  const [own, given] = [readMetadata(head), readMetadata(adapter)];
  const inputs = new GraphIndex(head.graph).inputs.map(({ name }) => name);
  const outputs = new GraphIndex(adapter.graph).outputNames;
  const names = new Map<string, string>();
  inputs.forEach((input, place) => {
    const tap = own.taps?.[place];
    const output = outputs[(given.produces ?? []).findIndex(({ identity }) => identity === tap?.identity)];
    if (output !== undefined) {
      names.set(output, input);
      return;
    }
    throw new PolyheadError(
      "HEAD_MISMATCH",
      `The adapter does not stand in for ${JSON.stringify(tap?.name ?? input)}, which the head reads; it does for ${(given.produces ?? []).map(({ name }) => JSON.stringify(name)).join(", ") || "nothing"}.`,
      { input, expected: tap, got: given.produces },
    );
  });
  const taken = namesIn(head.graph);
  const rename = (name: string): string => {
    const known = name === "" ? "" : names.get(name);
    if (known !== undefined) return known;
    let free = name;
    for (let suffix = 1; taken.has(free); suffix++) free = `${name}_${suffix}`;
    taken.add(free);
    names.set(name, free);
    return free;
  };
  const renamed = (of: Graph) => ({
    inputs: of.input.map((info) => copyOf(info, { name: rename(info.name) })),
    nodes: of.node.map((each) =>
      copyOf(each, { input: each.input.map(rename), output: each.output.map(rename), name: "" }),
    ),
    weights: of.initializer.map((each) => copyOf(each, { name: rename(each.name) })),
  });
  const front = renamed(adapter.graph);
  const main = graph(head.graph.name, {
    nodes: [...front.nodes, ...head.graph.node],
    inputs: front.inputs,
    outputs: head.graph.output,
    weights: [...front.weights, ...head.graph.initializer],
    values: head.graph.valueInfo,
  });
  const opsetImport = joinOperatorSets(
    [head, adapter].map((each) => ({ model: each, nodes: each.graph.node })),
  );
  return withMetadata(copyOf(withGraph(head, main), { opsetImport }), {
    role: "head",
    taps: given.taps,
    provenance: { ...own.provenance, ...given.provenance },
    quality: given.quality,
  });
}

/**
 * What an adaptation made, as one head: the folded one where there is one.
 * @throws PolyheadError as {@link headThroughAdapter} does
 */
export function asOneHead(
  head: Model,
  { adapter, folded }: { readonly adapter: Model | undefined; readonly folded: Model | undefined },
): Model {
  if (folded) return folded;
  if (adapter) return headThroughAdapter(head, adapter);
  throw new PolyheadError("INTERNAL", "Neither an adapter nor a head was made.", {});
}

function namesIn(of: Graph): Set<string> {
  const bodies = of.node.flatMap((each) => subgraphs(each).flatMap((body) => [...namesIn(body)]));
  return new Set([
    ...of.input.map(({ name }) => name),
    ...of.initializer.map(({ name }) => name),
    ...of.node.flatMap(({ input, output }) => [...input, ...output]),
    ...bodies,
  ]);
}
