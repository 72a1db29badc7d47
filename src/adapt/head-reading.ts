/**
 * How a head reads a tap. A head that takes the mean of a map before anything else reads one vector an image, however
 * large the map; an adapter for it fits vectors and costs next to nothing. All others read the tap place by place.
 */
import { PolyheadError } from "../base/errors.js";
import { constantOf } from "../onnx/constant.js";
import { extract } from "../onnx/extract.js";
import { GraphIndex } from "../onnx/graph.js";
import { readMetadata, type Tap } from "../onnx/metadata.js";
import { intsAttribute, type Model, type Node } from "../onnx/model.js";
import { inferTypes } from "../onnx/shapes.js";
import { weightTensor } from "../onnx/weight.js";
import { type Tensor, toNumbers } from "../tensor/tensor.js";

/** One input of a head. */
export interface HeadReading {
  /** Name of the input. */
  readonly input: string;
  /** What it was made for. */
  readonly tap: Tap;
  /**
   * `vector`: the tap is [N, C]. `pooled`: it is a map or a list of tokens, of which the head takes the mean first.
   * `map`: [N, C, H, W], read place by place. `tokens`: [N, T, C], read one by one.
   */
  readonly kind: "vector" | "pooled" | "map" | "tokens";
  /** Axis of the features in the tap. */
  readonly channelAxis: number;
  /** Features of one row. */
  readonly width: number;
  /** Name of the value that is one vector an image: the input itself, or the mean of it; undefined for others. */
  readonly vector: string | undefined;
}

/**
 * How a head reads each of its inputs.
 * @throws PolyheadError HEAD_MISMATCH for a head that does not say what it reads; MODEL_UNSUPPORTED for taps that are
 *   neither vectors nor maps nor tokens, or no float32
 */
export function readingsOf(head: Model): HeadReading[] {
  const { taps = [] } = readMetadata(head);
  const index = new GraphIndex(head.graph);
  return index.inputs.map(({ name: input }, place) => {
    const tap = taps[place];
    if (!tap) {
      throw new PolyheadError(
        "HEAD_MISMATCH",
        `Nothing says what the head's input ${JSON.stringify(input)} reads: its metadata names no tap for it. Import the head for the backbone that it was trained on first.`,
        { input },
      );
    }
    const { shape, dtype } = tap;
    const rank = shape.length;
    const mean = rank > 2 ? meanOf(index, input, rank) : undefined;
    const channelAxis = rank === 4 ? (mean?.channelAxis ?? 1) : rank - 1;
    const width = shape[channelAxis];
    if (dtype !== "float32" || rank < 2 || rank > 4 || typeof width !== "number") {
      throw new PolyheadError(
        "MODEL_UNSUPPORTED",
        `The head reads ${JSON.stringify(tap.name)}, which is ${dtype} [${shape.join(", ")}]; adapters are made for float32 taps [N, C], [N, T, C] and [N, C, H, W] with a known number of channels.`,
        { input, tap },
      );
    }
    const kind = rank === 2 ? "vector" : mean ? "pooled" : rank === 4 ? "map" : "tokens";
    return { input, tap, kind, channelAxis, width, vector: rank === 2 ? input : mean?.value };
  });
}

/** The head from the vector on: its only input is that value, [N, C] or with ones behind. */
export function headFromVector(head: Model, { vector, input }: HeadReading): Model {
  if (vector === undefined) throw new PolyheadError("INTERNAL", `${input} is not read as a vector.`, {});
  const index = new GraphIndex(head.graph);
  return extract(head, index, [vector], index.outputNames, inferTypes(head));
}

interface Mean {
  readonly value: string;
  readonly channelAxis: number;
}

/** The only value that is made of the input, when that is its mean over all but batch and channels. */
function meanOf(index: GraphIndex, input: string, rank: number): Mean | undefined {
  const readers = index.consumers.get(input) ?? [];
  const [reader] = readers;
  if (!reader || readers.length > 1 || index.outputNames.includes(input)) return undefined;
  const value = reader.output[0] ?? "";
  if (reader.opType === "GlobalAveragePool") return rank === 4 ? { value, channelAxis: 1 } : undefined;
  if (reader.opType !== "ReduceMean") return undefined;
  const axes = axesOf(index, reader)?.map((axis) => (axis < 0 ? axis + rank : axis));
  const channelAxis = [...Array(rank).keys()].find((axis) => axis > 0 && !axes?.includes(axis));
  const isAllElse = axes?.length === rank - 2 && !axes.includes(0);
  return isAllElse && channelAxis !== undefined && (rank === 4 || channelAxis === 2)
    ? { value, channelAxis }
    : undefined;
}

function axesOf(index: GraphIndex, node: Node): number[] | undefined {
  const given = intsAttribute(node, "axes");
  const constant = constantTensor(index, node.input[1] ?? "");
  return given ?? (constant && [...toNumbers(constant)]);
}

/** The value of an initializer or of a `Constant` node. */
export function constantTensor(index: GraphIndex, name: string): Tensor | undefined {
  const producer = index.producers.get(name);
  const found =
    index.weights.get(name) ?? (producer?.opType === "Constant" ? constantOf(producer) : undefined);
  return found && weightTensor(found);
}
