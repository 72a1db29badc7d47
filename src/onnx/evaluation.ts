/**
 * Evaluation mode: what a graph computes when nobody trains it. Exporters sometimes leave Dropout and
 * BatchNormalization the way they behave in training, so that two runs differ or a row's answer depends on its
 * neighbours. Here they become what they are in evaluation, in subgraphs and functions too; a graph that still
 * draws random numbers afterwards is refused.
 */
import { PolyheadError } from "../base/errors.js";
import { withGraph } from "./extract.js";
import { GraphIndex, reads } from "./graph.js";
import {
  attribute,
  canonicalDomain,
  copyOf,
  type Graph,
  intAttribute,
  type Model,
  type Node,
  node,
  opsetVersion,
  subgraphs,
} from "./model.js";

/** A model in evaluation mode. */
export interface Evaluation {
  readonly model: Model;
  /** One sentence for each node that was changed. */
  readonly notes: readonly string[];
}

const RANDOM = new Set([
  "RandomNormal",
  "RandomNormalLike",
  "RandomUniform",
  "RandomUniformLike",
  "Multinomial",
  "Bernoulli",
]);
/** From here on `training_mode` says what `is_test` said up to {@link LAST_IS_TEST}. */
const LAST_IS_TEST = 6;
/** Up to here, BatchNormalization with more than one output is in training mode. */
const LAST_BY_OUTPUTS = 13;

/**
 * The model in evaluation mode: Dropout passes its input on, BatchNormalization uses the statistics it was
 * given. Graph inputs that only chose the mode are gone.
 * @throws PolyheadError MODEL_UNSUPPORTED when random operators remain, or when a result of the training mode is
 *   used that evaluation does not have
 */
export function toEvaluation(model: Model): Evaluation {
  const notes: string[] = [];
  const main = evaluationGraph(model.graph, opsetVersion(model) ?? 0, notes);
  const functions = model.functions.map((each) => {
    const version = each.opsetImport.find(({ domain }) => canonicalDomain(domain) === "")?.version;
    const opset = version === undefined ? (opsetVersion(model) ?? 0) : Number(version);
    return copyOf(each, { node: evaluationNodes(each.node, each.output, opset, notes) });
  });
  const changed =
    notes.length === 0 ? model : copyOf(withGraph(model, withoutUnread(main, model.graph)), { functions });
  refuseRandomness(changed);
  return { model: changed, notes };
}

function evaluationGraph(graph: Graph, opset: number, notes: string[]): Graph {
  const outputs = graph.output.map(({ name }) => name);
  return copyOf(graph, { node: evaluationNodes(graph.node, outputs, opset, notes) });
}

function evaluationNodes(
  nodes: readonly Node[],
  outputs: readonly string[],
  opset: number,
  notes: string[],
): Node[] {
  const read = new Set([...nodes.flatMap(reads), ...outputs]);
  return nodes.flatMap((each) => {
    const inner = withEvaluationBodies(each, opset, notes);
    if (canonicalDomain(each.domain) !== "") return [inner];
    if (each.opType === "Dropout") return [evaluationDropout(inner, opset, read, notes)];
    if (each.opType === "BatchNormalization") return evaluationBatchNorm(inner, opset, read, notes);
    return [inner];
  });
}

function withEvaluationBodies(of: Node, opset: number, notes: string[]): Node {
  if (subgraphs(of).length === 0) return of;
  const bodies = of.attribute.map((each) =>
    copyOf(each, {
      ...(each.g && { g: evaluationGraph(each.g, opset, notes) }),
      graphs: each.graphs.map((graph) => evaluationGraph(graph, opset, notes)),
    }),
  );
  return copyOf(of, { attribute: bodies });
}

/** A Dropout whose mask is read stays, because only it makes the mask; any other is its input. */
function evaluationDropout(of: Node, opset: number, read: ReadonlySet<string>, notes: string[]): Node {
  const [data = "", , mode = ""] = of.input;
  const [result = "", mask = ""] = of.output;
  if (mask === "" || !read.has(mask)) {
    notes.push(`${label(of)} became an Identity, which it is in evaluation.`);
    return copyOf(node("Identity", [data], [result]), { name: of.name });
  }
  const trains = opset <= LAST_IS_TEST ? intAttribute(of, "is_test", 0) === 0 : mode !== "";
  if (!trains) return of;
  notes.push(`${label(of)} was put into evaluation mode; its mask is all true.`);
  return opset <= LAST_IS_TEST
    ? withAttribute(of, "is_test", 1)
    : copyOf(of, { input: of.input.slice(0, 2) });
}

function evaluationBatchNorm(of: Node, opset: number, read: ReadonlySet<string>, notes: string[]): Node[] {
  const further = of.output.slice(1).filter((name) => name !== "");
  const trains =
    opset <= LAST_IS_TEST
      ? intAttribute(of, "is_test", 0) === 0
      : opset <= LAST_BY_OUTPUTS
        ? further.length > 0
        : intAttribute(of, "training_mode", 0) !== 0;
  const byReference = of.attribute.some(
    ({ name, refAttrName }) => name === "training_mode" && refAttrName !== "",
  );
  if (!trains && !byReference) return [of];
  const [, , , mean = "", variance = ""] = of.input;
  const [, newMean = "", newVariance = "", ...ofBatch] = of.output;
  const lost = ofBatch.find((name) => read.has(name));
  if (lost !== undefined) {
    throw new PolyheadError(
      "MODEL_UNSUPPORTED",
      `${label(of)} gives the statistics of its batch as ${JSON.stringify(lost)}, which is read; evaluation has none. Export the model in evaluation mode.`,
      { node: of.name, value: lost },
    );
  }
  notes.push(`${label(of)} was put into evaluation mode: it uses the statistics it was given.`);
  const normal = copyOf(withoutAttribute(of, "training_mode"), { output: of.output.slice(0, 1) });
  const kept = [
    [mean, newMean],
    [variance, newVariance],
  ] as const;
  return [
    opset <= LAST_IS_TEST ? withAttribute(normal, "is_test", 1) : normal,
    ...kept.filter(([, made]) => read.has(made)).map(([given, made]) => node("Identity", [given], [made])),
  ];
}

/** The graph without inputs that were read before and are read no more: those that chose the mode. */
function withoutUnread(graph: Graph, before: Graph): Graph {
  const readIn = (of: Graph) => new Set([...of.node.flatMap(reads), ...of.output.map(({ name }) => name)]);
  const [was, is] = [readIn(before), readIn(graph)];
  return copyOf(graph, { input: graph.input.filter(({ name }) => is.has(name) || !was.has(name)) });
}

/** @throws PolyheadError MODEL_UNSUPPORTED with all random nodes that the outputs depend on */
function refuseRandomness(model: Model): void {
  const index = new GraphIndex(model.graph);
  const found = new Set(randomNodes(model, index.ancestors(index.outputNames), new Set()));
  if (found.size === 0) return;
  const list = [...found].map(label);
  throw new PolyheadError(
    "MODEL_UNSUPPORTED",
    `The model draws random numbers, so that no two runs agree: ${list.join(", ")}. Export it in evaluation mode, or give the noise as an input.`,
    { nodes: [...found].map(({ name, opType }) => ({ name, opType })) },
  );
}

function* randomNodes(model: Model, nodes: readonly Node[], called: Set<string>): Generator<Node> {
  for (const each of nodes) {
    if (canonicalDomain(each.domain) === "" && RANDOM.has(each.opType)) yield each;
    for (const graph of subgraphs(each)) yield* randomNodes(model, graph.node, called);
    for (const of of model.functions) {
      const key = JSON.stringify([of.domain, of.name, of.overload]);
      const isCalled =
        of.name === each.opType &&
        canonicalDomain(of.domain) === canonicalDomain(each.domain) &&
        of.overload === each.overload;
      if (!isCalled || called.has(key)) continue;
      called.add(key);
      yield* randomNodes(model, of.node, called);
    }
  }
}

function label(of: Node): string {
  return `${of.opType} ${JSON.stringify(of.name || (of.output[0] ?? ""))}`;
}

function withoutAttribute(of: Node, unwanted: string): Node {
  return copyOf(of, { attribute: of.attribute.filter(({ name }) => name !== unwanted) });
}

function withAttribute(of: Node, name: string, value: number): Node {
  return copyOf(of, { attribute: [...withoutAttribute(of, name).attribute, attribute(name, value)] });
}
