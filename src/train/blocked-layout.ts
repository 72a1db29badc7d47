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
  valueInfo,
} from "../onnx/model.js";
import { inferValues } from "../onnx/shapes.js";
import { elementCount, type Shape, sameShape } from "../tensor/shape.js";
import { Builder, LEAST_OPSET } from "./autodiff/builder.js";
import { BlockedValues, DOMAIN } from "./blocked-values.js";
import { channelMap } from "./channel-maps.js";
import { asTurned, turnedShape, turnedWeights } from "./turned-weights.js";

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

/** One pass over a graph, node by node in running order. */
class Rewriting {
  readonly #model: Model;
  readonly #width: number;
  readonly #index: GraphIndex;
  readonly #constants: ReadonlyMap<string, readonly number[]>;
  readonly #builder: Builder;
  readonly #values: BlockedValues;
  /** Nodes that are part of a convolution before them. */
  readonly #done = new Set<Node>();

  constructor(model: Model, width: number) {
    this.#model = model;
    this.#width = width;
    this.#index = new GraphIndex(model.graph);
    const { types, constants } = inferValues(model);
    this.#constants = constants;
    const taken = [...types.keys(), ...this.#index.producers.keys()];
    this.#builder = new Builder(opsetVersion(model) ?? LEAST_OPSET, taken, "blocked");
    this.#values = new BlockedValues(width, this.#builder, types);
  }

  done(): Model {
    const outputs = new Set(this.#index.outputNames);
    for (const node of this.#index.order) {
      if (!this.#done.has(node)) this.#rewrite(node);
      // At once, because the runtime runs nodes that nobody reads in their order.
      for (const name of node.output) if (outputs.has(name)) this.#values.usual(name);
    }
    if (!this.#values.isUsed) return this.#model;
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
    for (const name of reads(node)) this.#values.usual(name);
    this.#builder.nodes.push(node);
  }

  #convolution(node: Node): boolean {
    if (node.opType !== "Conv") return false;
    const [x = "", weights = "", bias = ""] = node.input;
    const kernel = this.#values.shape(weights);
    if (!kernel) return false;
    const group = intAttribute(node, "group", 1);
    return this.#blockedConvolution(
      { x, bias, kernel, group, attributes: node.attribute },
      node.output[0] ?? "",
      {
        all: (isFirst) => this.#values.filters(weights, kernel, isFirst),
        each: () => this.#values.inBlocks(weights),
      },
    );
  }

  /**
   * A convolution of single planes by one block of filters, whose results are wanted filter by filter for all planes of
   * a group: blocks of all its planes lie as those of one image.
   */
  #filtersFirst(node: Node): boolean {
    const [x = "", weights = "", bias = ""] = node.input;
    const [kernel, made] = [this.#values.shape(weights), this.#values.shape(node.output[0] ?? "")];
    if (!kernel) return false;
    const grouping = this.#onlyReader(node.output[0] ?? "");
    const turning = grouping?.opType === "Reshape" ? this.#onlyReader(grouping.output[0] ?? "") : undefined;
    const [groups = 1, planes = 1, filters = 1] = this.#values.shape(grouping?.output[0] ?? "") ?? [];
    const [, block = 1, height = 1, columns = 1] = made ?? [];
    const isFit =
      node.opType === "Conv" &&
      bias === "" &&
      this.#values.isFloat32(x) &&
      this.#values.shape(x)?.[1] === 1 &&
      [block, filters].every((count) => count === this.#width) &&
      kernel.slice(2).every((size, axis) => size <= (made?.[axis + 2] ?? 0));
    const isTurned = turning?.opType === "Transpose" && intsAttribute(turning, "perm")?.join() === "0,2,1,3";
    if (!isFit || !isTurned || !grouping) return false;
    const blocks = this.#values.own(
      "Conv",
      [this.#values.usual(x), this.#values.filters(weights, kernel, true)],
      node.attribute,
    );
    const images = this.#builder.reshape(blocks, [groups, filters, planes * height, columns]);
    const first = this.#values.own("ReorderOutput", [images], [attribute("channels", filters)]);
    const shape = this.#builder.ints([groups, filters, planes, height * columns]);
    this.#builder.nodes.push(newNode("Reshape", [first, shape], turning.output));
    this.#done.add(grouping).add(turning);
    return true;
  }

  /** A transposed convolution that is a convolution with its weights turned round. */
  #transposedConvolution(node: Node): boolean {
    const turned = asTurned(node, this.#values.shape(node.input[1] ?? ""));
    if (!turned) return false;
    const { x, bias, weights, shape, group } = turned;
    const kernel = turnedShape(turned);
    const attributes = Object.entries(turned.attributes).map(([name, value]) => attribute(name, value));
    return this.#blockedConvolution({ x, bias, kernel, group, attributes }, node.output[0] ?? "", {
      all: (isFirst) =>
        isFirst || (shape[1] ?? 0) % this.#width !== 0
          ? this.#values.filters(
              turnedWeights(this.#builder, { ...turned, weights: this.#values.usual(weights) }),
              kernel,
              isFirst,
            )
          : this.#values.turnedFilters(weights, shape),
      each: () =>
        this.#values.inBlocks(
          turnedWeights(this.#builder, { ...turned, weights: this.#values.usual(weights) }),
          kernel,
        ),
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
    const to = this.#values.shape(y);
    if (!this.#values.isFloat32(x) || this.#values.shape(x)?.length !== 4 || !to) return false;
    const [filters = 1, own = 1, ...window] = kernel;
    const width = this.#width;
    const isDepthwise = group > 1 && group === filters && own === 1;
    const isFirst = group === 1 && own < width;
    const isWhole = group === 1 && own % width === 0;
    if (filters % width !== 0 || !(isDepthwise || isFirst || isWhole)) return false;
    // Gradients with respect to weights have images in the place of kernels, for which the layout was not made.
    if (!isDepthwise && window.some((size, axis) => size > (to[axis + 2] ?? 0))) return false;
    const inputs = [
      isFirst ? this.#values.usual(x) : this.#values.inBlocks(x),
      isDepthwise ? weights.each() : weights.all(isFirst),
      ...(bias === "" ? [] : [this.#values.usual(bias)]),
    ];
    const activation = this.#activation(y);
    const made = this.#values.own("Conv", inputs, [...attributes, ...(activation?.attributes ?? [])]);
    this.#values.keep(activation?.output ?? y, made);
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

  /** Operands of one shape, or single numbers. One in blocks is enough: taking the others there costs one pass. */
  #elementwise(node: Node): boolean {
    const [y = ""] = node.output;
    const shape = this.#values.shape(y);
    const names = node.input.filter((name) => name !== "");
    if (!ELEMENTWISE.has(node.opType) || !shape || !names.some((name) => this.#values.has(name)))
      return false;
    const isSingle = (name: string) => elementCount(this.#values.shape(name) ?? [0]) === 1;
    const fits = (name: string) =>
      isSingle(name) ||
      (sameShape(this.#values.shape(name) ?? [], shape) &&
        (this.#values.has(name) || this.#values.isFloat32(name)));
    if (!names.every(fits)) return false;
    const input = node.input.map((name) => {
      if (name === "") return "";
      return isSingle(name) ? this.#values.usual(name) : this.#values.inBlocks(name);
    });
    this.#write(node, input);
    return true;
  }

  /** Images and channels taken as channels of one image, or back. */
  #joined(node: Node): boolean {
    const [x = "", sizes = ""] = node.input;
    const [from, to] = [this.#values.shape(x), this.#values.shape(node.output[0] ?? "")];
    if (node.opType !== "Reshape" || !this.#values.has(x) || from?.length !== 4 || to?.length !== 4)
      return false;
    if (!sameShape(from.slice(2), to.slice(2))) return false;
    this.#write(node, [this.#values.inBlocks(x), sizes]);
    return true;
  }

  /** One number a channel for all its places: a convolution of each channel by one weight, in one pass. */
  #channelMap(node: Node): boolean {
    const map = channelMap(node, (name) => this.#values.shape(name));
    const [y = ""] = node.output;
    const channels = this.#values.shape(y)?.[1] ?? 0;
    if (!map || !this.#values.has(map.x) || channels % this.#width !== 0) return false;
    for (const name of map.operands) this.#values.usual(name);
    const { factor, summand } = map.write(this.#builder);
    const inputs = [
      this.#values.inBlocks(map.x),
      this.#builder.reshape(factor, [channels, 1, 1, 1]),
      summand,
    ];
    const activation = this.#activation(y);
    const attributes = [attribute("group", channels), ...(activation?.attributes ?? [])];
    this.#values.keep(activation?.output ?? y, this.#values.own("Conv", inputs, attributes));
    return true;
  }

  /** Sums and means of channels, such as gradients of biases: first over places, then over images. */
  #overChannels(node: Node): boolean {
    const [x = "", axes = ""] = node.input;
    const shape = this.#values.shape(x);
    const { opType } = node;
    if ((opType !== "ReduceSum" && opType !== "ReduceMean") || !this.#values.has(x) || !shape) return false;
    const over = this.#constants.get(axes) ?? intsAttribute(node, "axes");
    if (intAttribute(node, "keepdims", 1) !== 0 || over?.join() !== "0,2,3") return false;
    const [images = 1, channels = 1, ...sizes] = shape;
    const rows = [(images * channels) / this.#width, elementCount(sizes), this.#width];
    const inRows = this.#builder.reshape(this.#values.inBlocks(x), rows);
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
    this.#values.keep(node.output[0] ?? "", name);
  }
}
