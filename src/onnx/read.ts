/**
 * Reading a model. Bytes become the model's message; weights stay aliases of those bytes. External data is
 * loaded through a {@link Folder}, after its place and size have been checked against the weight's dtype
 * and shape, so that a lying file costs nothing.
 */
import { clearField, fromBinary } from "@bufbuild/protobuf";
import { asError, PolyheadError } from "../base/errors.js";
import { type Folder, insideFolder } from "../base/folder.js";
import { byteLength } from "../tensor/dtype.js";
import { elementCount } from "../tensor/shape.js";
import {
  TensorProto_DataLocation as Location,
  ModelProtoSchema,
  TensorProtoSchema,
} from "./generated/onnx_pb.js";
import { GraphIndex } from "./graph.js";
import { type Graph, type Model, type Node, subgraphs, type Weight } from "./model.js";
import { weightDtype, weightShape } from "./weight.js";
import { checkWire } from "./wire-check.js";

/** Protobuf's own limit on a message, and so on a model file without its external data. */
export const MAX_MODEL_BYTES = 2 ** 31 - 1;

/** Inputs or outputs of one node; real ones have some hundred at most. */
const MAX_ARITY = 10_000;
/** Entries of metadata of one file; real ones have some hundred at most. */
const MAX_METADATA = 100_000;
/** Nodes of one file; real ones have some ten thousand at most. */
const MAX_NODES = 100_000;

/**
 * A model from the bytes of an `.onnx` file. Weights alias `bytes`, which must not change afterwards.
 * @param folder where external data lies; a model that has some is refused without it
 * @throws PolyheadError MODEL_MALFORMED, LIMIT_EXCEEDED, PATH_REFUSED, FILE_NOT_FOUND
 */
export async function readModel(bytes: Uint8Array, folder?: Folder): Promise<Model> {
  const model = parseModel(bytes);
  const data = new ExternalData(folder);
  for (const weight of allWeights(model)) {
    if (weight.dataLocation === Location.EXTERNAL) await data.load(weight);
  }
  return model;
}

/**
 * A model from bytes as they stand: external data is left where it is.
 * @throws PolyheadError MODEL_MALFORMED, LIMIT_EXCEEDED
 */
export function parseModel(bytes: Uint8Array): Model {
  if (bytes.length > MAX_MODEL_BYTES) {
    throw new PolyheadError(
      "LIMIT_EXCEEDED",
      `The model file has ${bytes.length} bytes; protobuf allows ${MAX_MODEL_BYTES}. Store its weights as external data.`,
      {
        bytes: bytes.length,
        limit: MAX_MODEL_BYTES,
      },
    );
  }
  checkWire(bytes);
  let parsed: ReturnType<typeof decode>;
  try {
    parsed = decode(bytes);
  } catch (thrown) {
    const cause = asError(thrown);
    throw new PolyheadError(
      "MODEL_MALFORMED",
      `This is not an ONNX file, or it is damaged: ${cause.message}.`,
      { bytes: bytes.length },
      { cause },
    );
  }
  const { graph } = parsed;
  if (!graph || parsed.irVersion <= 0n || (graph.node.length === 0 && graph.output.length === 0)) {
    throw new PolyheadError("MODEL_MALFORMED", "This is not an ONNX file: it has no graph or no version.", {
      irVersion: String(parsed.irVersion),
      hasGraph: graph !== undefined,
    });
  }
  const model = Object.assign(parsed, { graph });
  if (model.metadataProps.length > MAX_METADATA) {
    throw new PolyheadError(
      "LIMIT_EXCEEDED",
      `The model has ${model.metadataProps.length} entries of metadata; the limit is ${MAX_METADATA}.`,
      { got: model.metadataProps.length, limit: MAX_METADATA },
    );
  }
  checkNodes(model);
  new GraphIndex(graph);
  for (const weight of allWeights(model)) {
    weightDtype(weight);
    weightShape(weight);
  }
  return model;
}

function decode(bytes: Uint8Array) {
  return fromBinary(ModelProtoSchema, bytes);
}

/** Refuses more nodes than anything here is made for, and nodes wider than any. */
function checkNodes(model: Model): void {
  let count = 0;
  for (const node of allNodes(model)) {
    const arity = Math.max(node.input.length, node.output.length);
    if (arity > MAX_ARITY) {
      throw new PolyheadError(
        "LIMIT_EXCEEDED",
        `Node ${JSON.stringify(node.name)} (${node.opType}) has ${arity} inputs or outputs; the limit is ${MAX_ARITY}.`,
        { node: node.name, got: arity, limit: MAX_ARITY },
      );
    }
    if (++count > MAX_NODES) {
      throw new PolyheadError(
        "LIMIT_EXCEEDED",
        `The model has more than ${MAX_NODES} nodes; export it with loops instead of unrolled ones.`,
        { limit: MAX_NODES },
      );
    }
  }
}

/** Every node of a model, in subgraphs and functions too. */
function* allNodes(model: Model): Generator<Node> {
  const open = [model.graph.node, ...model.functions.map((each) => each.node)];
  for (let nodes = open.pop(); nodes !== undefined; nodes = open.pop()) {
    for (const node of nodes) {
      yield node;
      for (const body of subgraphs(node)) open.push(body.node);
    }
  }
}

/** Every constant in a model: initializers, attributes, sparse ones, in subgraphs and functions too. */
export function* allWeights(model: Model): Generator<Weight> {
  yield* graphWeights(model.graph);
  for (const each of model.functions) yield* nodeWeights(each.node);
}

function* graphWeights(graph: Graph): Generator<Weight> {
  yield* graph.initializer;
  for (const { values, indices } of graph.sparseInitializer) {
    if (values) yield values;
    if (indices) yield indices;
  }
  yield* nodeWeights(graph.node);
}

function* nodeWeights(nodes: readonly Node[]): Generator<Weight> {
  for (const node of nodes) {
    for (const attribute of node.attribute) {
      if (attribute.t) yield attribute.t;
      yield* attribute.tensors;
      for (const sparse of [attribute.sparseTensor, ...attribute.sparseTensors]) {
        if (sparse?.values) yield sparse.values;
        if (sparse?.indices) yield sparse.indices;
      }
      if (attribute.g) yield* graphWeights(attribute.g);
      for (const graph of attribute.graphs) yield* graphWeights(graph);
    }
  }
}

/** Reads the weights of one model that lie beside it. Weights that share a place in a file share its memory. */
class ExternalData {
  readonly #folder: Folder | undefined;
  readonly #read = new Map<string, Uint8Array>();
  /** Bytes of each file that may still be read: overlapping places would take more memory than the files have. */
  readonly #left = new Map<string, number>();

  constructor(folder: Folder | undefined) {
    this.#folder = folder;
  }

  async load(weight: Weight): Promise<void> {
    const place = new Map(weight.externalData.map(({ key, value }) => [key, value]));
    const location = insideFolder(place.get("location") ?? "");
    const folder = this.#folder;
    if (!folder) {
      throw new PolyheadError(
        "FILE_NOT_FOUND",
        `Weight ${JSON.stringify(weight.name)} lies in ${JSON.stringify(location)}, and only the model's own bytes were given.`,
        { weight: weight.name, path: location },
      );
    }
    const expected = byteLength(weightDtype(weight), elementCount(weightShape(weight)));
    const offset = wholeNumber(place.get("offset") ?? "0", weight, "offset");
    const length = wholeNumber(place.get("length") ?? String(expected), weight, "length");
    if (length !== expected) {
      throw new PolyheadError(
        "MODEL_MALFORMED",
        `Weight ${JSON.stringify(weight.name)} takes ${expected} bytes; its external data is said to have ${length}.`,
        { weight: weight.name, expected, got: length },
      );
    }
    weight.rawData = await this.#range(folder, location, offset, length);
    clearField(weight, TensorProtoSchema.field.dataLocation);
    weight.externalData = [];
  }

  async #range(folder: Folder, location: string, offset: number, length: number): Promise<Uint8Array> {
    const key = JSON.stringify([location, offset, length]);
    const known = this.#read.get(key);
    if (known) return known;
    const left = (this.#left.get(location) ?? (await folder.size(location))) - length;
    if (left < 0 && this.#left.has(location)) {
      throw new PolyheadError(
        "LIMIT_EXCEEDED",
        `Weights overlap in ${JSON.stringify(location)}: together they take more bytes than it has. Write the model anew.`,
        { path: location },
      );
    }
    const bytes = await folder.read(location, offset, length);
    this.#left.set(location, left);
    this.#read.set(key, bytes);
    return bytes;
  }
}

function wholeNumber(text: string, weight: Weight, what: string): number {
  const value = Number(text);
  if (/^\d+$/.test(text) && Number.isSafeInteger(value)) return value;
  throw new PolyheadError(
    "MODEL_MALFORMED",
    `Weight ${JSON.stringify(weight.name)} has the external ${what} ${JSON.stringify(text)}; expected a whole number.`,
    {
      weight: weight.name,
      got: text,
    },
  );
}
