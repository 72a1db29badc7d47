/**
 * `model.json` of a TF.js graph model: its nodes, its public inputs and outputs and the list of its weights,
 * checked for form. What the operators mean is none of its business.
 */
import { asError } from "../../base/errors.js";
import { Attributes, shapeProto } from "./attributes.js";
import { asList, asRecord, asText, isRecord, type JsonRecord, malformed } from "./json.js";
import { readManifest, type WeightGroup } from "./weights.js";

/** Which output of which node. */
export interface Reference {
  readonly node: string;
  readonly output: number;
}

/** One TensorFlow node. */
export interface TfNode {
  readonly name: string;
  readonly op: string;
  /** Data inputs; control inputs are left out, since nothing in a graph model has side effects. */
  readonly inputs: readonly Reference[];
  readonly attributes: Attributes;
}

/** A public input or output. */
export interface PublicTensor {
  /** The signature's name for it, else the node's, without `:0`. */
  readonly name: string;
  readonly reference: Reference;
  /** Sizes as the signature states them, -1 where unknown; undefined when it does not. */
  readonly shape: readonly number[] | undefined;
}

/** What `model.json` says. */
export interface Artifact {
  readonly nodes: ReadonlyMap<string, TfNode>;
  readonly inputs: readonly PublicTensor[];
  readonly outputs: readonly PublicTensor[];
  readonly weights: readonly WeightGroup[];
}

/** Whether parsed JSON looks like a TF.js graph model (a TF.js layers model has no list of nodes). */
export function isTfjsGraphModel(json: unknown): boolean {
  return (
    isRecord(json) &&
    isRecord(json.modelTopology) &&
    Array.isArray(json.modelTopology.node) &&
    Array.isArray(json.weightsManifest)
  );
}

/**
 * Reads the text of `model.json`.
 * @throws PolyheadError MODEL_MALFORMED when it is not the JSON of a graph model; PATH_REFUSED for weight
 * files outside of the model's folder
 */
export function parseArtifact(text: string): Artifact {
  let json: unknown;
  try {
    json = JSON.parse(text);
  } catch (cause) {
    throw malformed(`model.json is not JSON: ${asError(cause).message}`);
  }
  if (!isRecord(json) || !isTfjsGraphModel(json)) {
    throw malformed(
      "This is no TF.js graph model: expected modelTopology.node and weightsManifest. Models saved by " +
        "tf.Sequential or tf.Model (layers models) must be exported as graph models.",
    );
  }
  const topology = asRecord(json.modelTopology, "modelTopology");
  const nodes = new Map<string, TfNode>();
  for (const [index, raw] of asList(topology.node, "modelTopology.node").entries()) {
    const node = parseNode(asRecord(raw, `modelTopology.node[${index}]`));
    if (nodes.has(node.name))
      throw malformed(`Two nodes have the name ${JSON.stringify(node.name)}.`, { node: node.name });
    nodes.set(node.name, node);
  }
  const signature = findSignature(json);
  return {
    nodes,
    inputs: publicTensors(signature.inputs, "inputs") ?? placeholders(nodes),
    outputs: publicTensors(signature.outputs, "outputs") ?? unusedNodes(nodes),
    weights: readManifest(json.weightsManifest),
  };
}

function parseNode(raw: JsonRecord): TfNode {
  const name = asText(raw.name, "A node's name");
  const what = `Node ${JSON.stringify(name)}`;
  const inputs = asList(raw.input ?? [], `${what}: input`).map((input) => asText(input, `${what}: an input`));
  return {
    name,
    op: asText(raw.op, `${what}: op`),
    inputs: inputs.filter((input) => !input.startsWith("^")).map(parseReference),
    attributes: new Attributes(name, asRecord(raw.attr ?? {}, `${what}: attr`)),
  };
}

/** Reads `node`, `node:1` or `node:output_name:1`. */
function parseReference(text: string): Reference {
  const [node = "", ...rest] = text.split(":");
  const output = rest.length > 0 ? Number(rest.at(-1)) : 0;
  if (node === "" || rest.length > 2 || !Number.isSafeInteger(output) || output < 0) {
    throw malformed(`${JSON.stringify(text)} names no value; expected "node" or "node:1".`, {
      reference: text,
    });
  }
  return { node, output };
}

function findSignature(json: JsonRecord): JsonRecord {
  const metadata = json.userDefinedMetadata;
  const signature = json.signature ?? (isRecord(metadata) ? metadata.signature : undefined);
  return isRecord(signature) ? signature : {};
}

function publicTensors(entries: unknown, kind: string): PublicTensor[] | undefined {
  if (!isRecord(entries) || Object.keys(entries).length === 0) return undefined;
  return Object.entries(entries).map(([key, raw]) => {
    const what = `signature.${kind}.${key}`;
    const entry = asRecord(raw, what);
    const reference = parseReference(asText(entry.name ?? key, `${what}.name`));
    return { name: key.replace(/:0$/, ""), reference, shape: statedShape(entry.tensorShape, what) };
  });
}

function statedShape(shape: unknown, what: string): readonly number[] | undefined {
  return shape === undefined ? undefined : shapeProto(shape, `${what}.tensorShape`);
}

function publicTensor(node: string): PublicTensor {
  return { name: node, reference: { node, output: 0 }, shape: undefined };
}

function placeholders(nodes: ReadonlyMap<string, TfNode>): PublicTensor[] {
  const found = [...nodes.values()].filter((node) => node.op.startsWith("Placeholder"));
  return found.map((node) => publicTensor(node.name));
}

/** Nodes that no other node reads, which TF.js takes for outputs when there is no signature. */
function unusedNodes(nodes: ReadonlyMap<string, TfNode>): PublicTensor[] {
  const used = new Set([...nodes.values()].flatMap((node) => node.inputs.map((input) => input.node)));
  const found = [...nodes.values()].filter(
    (node) => !used.has(node.name) && !["NoOp", "Const"].includes(node.op),
  );
  return found.map((node) => publicTensor(node.name));
}
