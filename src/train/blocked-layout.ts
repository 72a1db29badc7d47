/**
 * Convolutions in the layout that ONNX Runtime itself prefers on processors with wide vectors: channels in blocks, and
 * the channels of a block side by side in memory (its operator set `com.microsoft.nchwc`). The runtime rewrites
 * models so while it loads them, but only where weights are constants, which they are not while they are trained.
 * So the step's graph is rewritten here: convolutions, what is done element by element between them, and the
 * borders to everything else. `block-width.ts` decides whether this is done.
 */
import { withGraph } from "../onnx/extract.js";
import { GraphIndex, reads } from "../onnx/graph.js";
import {
  type Attribute,
  attribute,
  copyOf,
  float,
  graph,
  intAttribute,
  intsAttribute,
  type Model,
  model as modelOf,
  type Node,
  node as newNode,
  opsetVersion,
  type ValueType,
  valueInfo,
} from "../onnx/model.js";
import { inferValues } from "../onnx/shapes.js";
import { elementCount, isConcrete, type Shape, sameShape } from "../tensor/shape.js";
import { tensor } from "../tensor/tensor.js";
import { Builder, LEAST_OPSET } from "./autodiff/builder.js";
import { channelMap } from "./channel-maps.js";
import { asTurned, backwards, turnedShape, turnedWeights } from "./turned-weights.js";

/** The runtime's operator set for its layout. */
const DOMAIN = "com.microsoft.nchwc";

/** Operators that do the same to every element, so that the order of elements is nothing to them. */
const ELEMENTWISE = new Set([
  ...["Abs", "Add", "And", "Cast", "Celu", "Clip", "Div", "Elu", "Equal", "Erf", "Exp", "Gelu", "Greater"],
  ...["GreaterOrEqual", "HardSigmoid", "HardSwish", "LeakyRelu", "Less", "LessOrEqual", "Log", "Max", "Min"],
  ...["Mul", "Neg", "Not", "Or", "Pow", "Reciprocal", "Relu", "Selu", "Sigmoid", "Sign", "Softplus", "Sqrt"],
  ...["Sub", "Sum", "Tanh", "ThresholdedRelu", "Where"],
]);

/** The function that takes four channels into one block; its output `y` shows how wide a block is. */
export function reorderModel(): Model {
  const reorder = newNode("ReorderInput", ["x"], ["y"]);
  reorder.domain = DOMAIN;
  const [inputs, outputs] = [[valueInfo("x", "float32", [1, 4, 1, 1])], [valueInfo("y", "float32")]];
  return withDomain(modelOf(graph("reorder", { nodes: [reorder], inputs, outputs, weights: [] })));
}

/**
 * The same function with its float32 convolutions over images in blocked layout, where channels fill whole blocks.
 * @param model shapes known; what has no known shape keeps its layout
 * @param width channels in a block
 */
export function blockedLayout(model: Model, width: number): Model {
  return new Rewriting(model, width).done();
}

function withDomain(model: Model): Model {
  const sets = model.opsetImport.flatMap((each, place) =>
    place === 0 ? [each, copyOf(each, { domain: DOMAIN, version: 1n })] : [each],
  );
  return copyOf(model, { opsetImport: sets });
}

/** A convolution but for its weights; `kernel` is their shape. */
interface Convolution {
  readonly x: string;
  readonly bias: string;
  readonly kernel: Shape;
  readonly group: number;
  readonly attributes: readonly Attribute[];
}

const range = (length: number) => Array.from({ length }, (_, at) => at);

/** One pass over a graph, node by node in running order. */
class Rewriting {
  readonly #model: Model;
  readonly #width: number;
  readonly #index: GraphIndex;
  readonly #types: ReadonlyMap<string, ValueType>;
  readonly #constants: ReadonlyMap<string, readonly number[]>;
  readonly #builder: Builder;
  /** Values that exist in blocks, and under which names. */
  readonly #blocked = new Map<string, string>();
  /** Those of them that do not exist in the usual layout so far. */
  readonly #onlyBlocked = new Set<string>();
  /** Nodes that are part of a convolution before them. */
  readonly #done = new Set<Node>();

  constructor(model: Model, width: number) {
    this.#model = model;
    this.#width = width;
    this.#index = new GraphIndex(model.graph);
    const { types, constants } = inferValues(model);
    this.#types = types;
    this.#constants = constants;
    const taken = [...types.keys(), ...this.#index.producers.keys()];
    this.#builder = new Builder(opsetVersion(model) ?? LEAST_OPSET, taken, "blocked");
  }

  done(): Model {
    for (const node of this.#index.order) if (!this.#done.has(node)) this.#rewrite(node);
    for (const name of this.#index.outputNames) this.#usual(name);
    if (this.#blocked.size === 0) return this.#model;
    const main = copyOf(this.#model.graph, {
      node: this.#builder.nodes,
      initializer: [...this.#model.graph.initializer, ...this.#builder.weights],
    });
    return withGraph(withDomain(this.#model), main);
  }

  #rewrite(node: Node): void {
    if (node.domain === "") {
      if (this.#filtersFirst(node) || this.#convolution(node) || this.#transposedConvolution(node)) return;
      if (this.#elementwise(node) || this.#joined(node)) return;
      if (this.#channelMap(node) || this.#overChannels(node)) return;
    }
    for (const name of reads(node)) this.#usual(name);
    this.#builder.nodes.push(node);
  }

  #convolution(node: Node): boolean {
    if (node.opType !== "Conv") return false;
    const [x = "", weights = "", bias = ""] = node.input;
    const kernel = this.#shape(weights);
    if (!kernel) return false;
    const group = intAttribute(node, "group", 1);
    return this.#blockedConvolution(
      { x, bias, kernel, group, attributes: node.attribute },
      node.output[0] ?? "",
      {
        all: (isFirst) => this.#filters(weights, kernel, isFirst),
        each: () => this.#inBlocks(weights),
      },
    );
  }

  /**
   * A convolution of single planes by one block of filters, whose results are wanted filter by filter for all planes of
   * a group: blocks of all its planes lie as those of one image.
   */
  #filtersFirst(node: Node): boolean {
    const [x = "", weights = "", bias = ""] = node.input;
    const [kernel, made] = [this.#shape(weights), this.#shape(node.output[0] ?? "")];
    if (!kernel) return false;
    const grouping = this.#onlyReader(node.output[0] ?? "");
    const turning = grouping?.opType === "Reshape" ? this.#onlyReader(grouping.output[0] ?? "") : undefined;
    const [groups = 1, planes = 1, filters = 1] = this.#shape(grouping?.output[0] ?? "") ?? [];
    const [, block = 1, height = 1, columns = 1] = made ?? [];
    const isFit =
      node.opType === "Conv" &&
      bias === "" &&
      this.#types.get(x)?.dtype === "float32" &&
      this.#shape(x)?.[1] === 1 &&
      [block, filters].every((count) => count === this.#width) &&
      kernel.slice(2).every((size, axis) => size <= (made?.[axis + 2] ?? 0));
    const isTurned = turning?.opType === "Transpose" && intsAttribute(turning, "perm")?.join() === "0,2,1,3";
    if (!isFit || !isTurned || !grouping) return false;
    const blocks = this.#own("Conv", [this.#usual(x), this.#filters(weights, kernel, true)], node.attribute);
    const images = this.#builder.reshape(blocks, [groups, filters, planes * height, columns]);
    const first = this.#own("ReorderOutput", [images], [attribute("channels", filters)]);
    const shape = this.#builder.ints([groups, filters, planes, height * columns]);
    this.#builder.nodes.push(newNode("Reshape", [first, shape], turning.output));
    this.#done.add(grouping).add(turning);
    return true;
  }

  /** A transposed convolution that is a convolution with its weights turned round. */
  #transposedConvolution(node: Node): boolean {
    const turned = asTurned(node, this.#shape(node.input[1] ?? ""));
    if (!turned) return false;
    const { x, bias, weights, shape, group } = turned;
    const kernel = turnedShape(turned);
    const attributes = Object.entries(turned.attributes).map(([name, value]) => attribute(name, value));
    return this.#blockedConvolution({ x, bias, kernel, group, attributes }, node.output[0] ?? "", {
      all: (isFirst) =>
        isFirst || (shape[1] ?? 0) % this.#width !== 0
          ? this.#filters(
              turnedWeights(this.#builder, { ...turned, weights: this.#usual(weights) }),
              kernel,
              isFirst,
            )
          : this.#turnedFilters(weights, shape),
      each: () =>
        this.#inBlocks(turnedWeights(this.#builder, { ...turned, weights: this.#usual(weights) }), kernel),
    });
  }

  /**
   * Writes a convolution, where its channels fill blocks.
   * @param weights how they come into the runtime's order, over all channels or one channel each
   */
  #blockedConvolution(
    { x, bias, kernel, group, attributes }: Convolution,
    y: string,
    weights: { readonly all: (isFirst: boolean) => string; readonly each: () => string },
  ): boolean {
    const to = this.#shape(y);
    if (this.#types.get(x)?.dtype !== "float32" || this.#shape(x)?.length !== 4 || !to) return false;
    const [filters = 1, own = 1, ...window] = kernel;
    const width = this.#width;
    const isDepthwise = group > 1 && group === filters && own === 1;
    const isFirst = group === 1 && own < width;
    const isWhole = group === 1 && own % width === 0;
    if (filters % width !== 0 || !(isDepthwise || isFirst || isWhole)) return false;
    // Gradients with respect to weights have images in the place of kernels, for which the layout was not made.
    if (!isDepthwise && window.some((size, axis) => size > (to[axis + 2] ?? 0))) return false;
    const inputs = [
      isFirst ? this.#usual(x) : this.#inBlocks(x),
      isDepthwise ? weights.each() : weights.all(isFirst),
      ...(bias === "" ? [] : [this.#usual(bias)]),
    ];
    const activation = this.#activation(y);
    const made = this.#own("Conv", inputs, [...attributes, ...(activation?.attributes ?? [])]);
    this.#keep(activation?.output ?? y, made);
    return true;
  }

  /** What reads a value, where a convolution can do its work as well. */
  #activation(value: string): { output: string; attributes: Attribute[] } | undefined {
    const reader = this.#onlyReader(value);
    const attributes = reader && this.#activationOf(reader);
    if (!attributes) return undefined;
    this.#done.add(reader);
    return { output: reader.output[0] ?? "", attributes };
  }

  /** The node that alone reads a value, which is no output either. */
  #onlyReader(value: string): Node | undefined {
    const [reader, ...others] = this.#index.consumers.get(value) ?? [];
    const isOnly = reader?.domain === "" && others.length === 0 && !this.#index.outputNames.includes(value);
    return isOnly ? reader : undefined;
  }

  #activationOf({ opType, input }: Node): Attribute[] | undefined {
    if (opType === "Relu") return [attribute("activation", "Relu")];
    if (opType !== "Clip") return undefined;
    const [low, high] = input.slice(1).map((bound) => this.#constants.get(bound)?.[0]);
    if (low === undefined || high === undefined) return undefined;
    return [attribute("activation", "Clip"), attribute("activation_params", float([low, high]))];
  }

  /**
   * Weights over all channels, as the runtime has them: blocks of filters outside, then blocks of channels, places,
   * the channels of a block, and the filters of a block inside. With few channels there is one block of them. Filters
   * come into blocks as channels do, of an image that has all else in one column.
   */
  #filters(weights: string, shape: Shape, isFirst: boolean): string {
    const [filters = 1, ...rest] = shape;
    const inner = isFirst ? this.#usual(weights) : this.#inBlocks(weights, shape);
    const column = this.#builder.reshape(inner, [1, filters, elementCount(rest), 1]);
    return this.#builder.reshape(this.#own("ReorderInput", [column]), shape);
  }

  /**
   * The same of weights that are to be turned round. With their channels in blocks, as the convolution itself has them
   * on the way, the channels of a block lie side by side already: whole rows are moved, and the places of the kernel
   * turned.
   * @param shape of the weights as they are, [filters, channels, ...kernel], both in whole blocks
   */
  #turnedFilters(weights: string, shape: Shape): string {
    const width = this.#width;
    const [filters = 1, channels = 1, ...kernel] = shape;
    const size = elementCount(kernel);
    const rows = this.#builder.reshape(this.#inBlocks(weights), [(filters * channels * size) / width, width]);
    const order = range(channels / width).flatMap((block) =>
      range(filters / width).flatMap((outer) =>
        backwards(size).flatMap((place) =>
          range(width).map((inner) => ((outer * width + inner) * (channels / width) + block) * size + place),
        ),
      ),
    );
    const places = this.#builder.constant(tensor("int32", [order.length], Int32Array.from(order)));
    return this.#builder.reshape(this.#builder.op("Gather", [rows, places]), [channels, filters, ...kernel]);
  }

  /** Operands of one shape, or single numbers. One in blocks is enough: taking the others there costs one pass. */
  #elementwise(node: Node): boolean {
    const [y = ""] = node.output;
    const shape = this.#shape(y);
    const names = node.input.filter((name) => name !== "");
    if (!ELEMENTWISE.has(node.opType) || !shape || !names.some((name) => this.#blocked.has(name)))
      return false;
    const isSingle = (name: string) => elementCount(this.#shape(name) ?? [0]) === 1;
    const fits = (name: string) =>
      isSingle(name) ||
      (sameShape(this.#shape(name) ?? [], shape) &&
        (this.#blocked.has(name) || this.#types.get(name)?.dtype === "float32"));
    if (!names.every(fits)) return false;
    const input = node.input.map((name) => {
      if (name === "") return "";
      return isSingle(name) ? this.#usual(name) : this.#inBlocks(name);
    });
    this.#write(node, input);
    return true;
  }

  /** Images and channels taken as channels of one image, or back. */
  #joined(node: Node): boolean {
    const [x = "", sizes = ""] = node.input;
    const [from, to] = [this.#shape(x), this.#shape(node.output[0] ?? "")];
    if (node.opType !== "Reshape" || !this.#blocked.has(x) || from?.length !== 4 || to?.length !== 4)
      return false;
    if (!sameShape(from.slice(2), to.slice(2))) return false;
    this.#write(node, [this.#inBlocks(x), sizes]);
    return true;
  }

  /** One number a channel for all its places: a convolution of each channel by one weight, in one pass. */
  #channelMap(node: Node): boolean {
    const map = channelMap(node, (name) => this.#shape(name));
    const [y = ""] = node.output;
    const channels = this.#shape(y)?.[1] ?? 0;
    if (!map || !this.#blocked.has(map.x) || channels % this.#width !== 0) return false;
    for (const name of map.operands) this.#usual(name);
    const { factor, summand } = map.write(this.#builder);
    const inputs = [this.#inBlocks(map.x), this.#builder.reshape(factor, [channels, 1, 1, 1]), summand];
    const activation = this.#activation(y);
    const attributes = [attribute("group", channels), ...(activation?.attributes ?? [])];
    this.#keep(activation?.output ?? y, this.#own("Conv", inputs, attributes));
    return true;
  }

  /** Sums and means of channels, such as gradients of biases: first over places, then over images. */
  #overChannels(node: Node): boolean {
    const [x = "", axes = ""] = node.input;
    const shape = this.#shape(x);
    const { opType } = node;
    if ((opType !== "ReduceSum" && opType !== "ReduceMean") || !this.#blocked.has(x) || !shape) return false;
    const over = this.#constants.get(axes) ?? intsAttribute(node, "axes");
    if (intAttribute(node, "keepdims", 1) !== 0 || over?.join() !== "0,2,3") return false;
    const [images = 1, channels = 1, ...sizes] = shape;
    const rows = [(images * channels) / this.#width, elementCount(sizes), this.#width];
    const inRows = this.#builder.reshape(this.#inBlocks(x), rows);
    const perImage = this.#builder.reduce(opType, inRows, [1], false);
    this.#builder.reduce(opType, this.#builder.reshape(perImage, [images, channels]), [0], false);
    const last = this.#builder.nodes.pop();
    if (last) this.#builder.nodes.push(copyOf(last, { output: node.output }));
    return true;
  }

  /** The node with other inputs; its output is in blocks. */
  #write(node: Node, input: string[]): void {
    const name = this.#builder.name(node.opType);
    this.#builder.nodes.push(copyOf(node, { name, input, output: [name] }));
    this.#keep(node.output[0] ?? "", name);
  }

  #keep(value: string, blocked: string): void {
    this.#blocked.set(value, blocked);
    this.#onlyBlocked.add(value);
  }

  /** The name of a value once it is there in the usual layout. */
  #usual(value: string): string {
    const blocked = this.#blocked.get(value);
    if (blocked === undefined || !this.#onlyBlocked.delete(value)) return value;
    const [images = 1, channels = 1, ...sizes] = this.#shape(value) ?? [];
    if (this.#types.get(value)?.dtype === "float32" && channels % this.#width === 0) {
      this.#own("ReorderOutput", [blocked], [attribute("channels", channels)], value);
      return value;
    }
    const blocks = [(images * channels) / this.#width, ...sizes, this.#width];
    const turned = this.#builder.transpose(this.#builder.reshape(blocked, blocks), [0, 3, 1, 2]);
    const shape = this.#builder.ints([images, channels, ...sizes]);
    this.#builder.nodes.push(newNode("Reshape", [turned, shape], [value]));
    return value;
  }

  /** The name of a value in blocks. Its blocks go on from image to image, where only all channels together fill some. */
  #inBlocks(value: string, shape = this.#shape(value) ?? []): string {
    const known = this.#blocked.get(value);
    if (known !== undefined) return known;
    const [images = 1, channels = 1, ...sizes] = shape;
    const name =
      channels % this.#width === 0
        ? this.#own("ReorderInput", [value])
        : this.#builder.reshape(
            this.#own("ReorderInput", [this.#builder.reshape(value, [1, images * channels, ...sizes])]),
            shape,
          );
    this.#blocked.set(value, name);
    return name;
  }

  /** Adds a node of the runtime's own operator set. */
  #own(
    opType: string,
    inputs: readonly string[],
    attributes: readonly Attribute[] = [],
    output = this.#builder.name(opType),
  ): string {
    const made = newNode(opType, inputs, [output]);
    made.domain = DOMAIN;
    made.attribute = [...attributes];
    this.#builder.nodes.push(made);
    return output;
  }

  #shape(name: string): Shape | undefined {
    const shape = this.#types.get(name)?.shape;
    return shape && isConcrete(shape) ? shape : undefined;
  }
}
