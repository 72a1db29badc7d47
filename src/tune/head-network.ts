/**
 * Heads to train: the graph of a classifier of some shape, on a tap or on the tap's mean, with random weights that the
 * seed decides. Features are brought to mean 0 and deviation 1 first, by numbers that are measured, not trained. The last
 * layer begins at zero, so that training begins from no opinion.
 */
import { PolyheadError } from "../base/errors.js";
import { gaussian, seededRandom } from "../base/random.js";
import { graph, type Model, model, type Node, node, valueInfo } from "../onnx/model.js";
import { dtypeCode, weight } from "../onnx/weight.js";
import type { Standardisation } from "../teach/classifier.js";
import type { Pooling } from "../teach/pooling.js";
import type { DType } from "../tensor/dtype.js";
import { elementCount, formatShape, type Shape, type SymbolicShape } from "../tensor/shape.js";
import { float32, int64, type Tensor } from "../tensor/tensor.js";

/** What a head is made of. */
export interface HeadShape {
  /**
   * `linear`: the mean over height and width, one layer; `mlp`: a hidden layer between; `conv`: a 3 x 3 convolution over
   * the tap before the mean, for taps with height and width.
   */
  readonly kind: "linear" | "mlp" | "conv";
  /** Width of the hidden layer or channels of the convolution. */
  readonly hidden: number;
}

/** Names of all kinds. */
export const HEAD_KINDS = ["linear", "mlp", "conv"] as const satisfies readonly HeadShape["kind"][];

/** The value that a head reads. */
export interface HeadInput {
  readonly name: string;
  readonly dtype: DType;
  readonly shape: SymbolicShape;
  /** How it becomes a vector; without axes it is one. */
  readonly pooling: Pooling;
}

/** How a head is built. */
export interface HeadNetworkOptions {
  readonly input: HeadInput;
  readonly shape: HeadShape;
  readonly classes: number;
  readonly standardisation: Standardisation;
  readonly seed: number;
  /** Operator set of the graph; 17 by default. */
  readonly opset?: number | undefined;
  /** {@link HEAD_OUTPUTS} by default. */
  readonly outputs?: HeadOutputs | undefined;
  /** Values that take the place of the random ones, by name. */
  readonly values?: ReadonlyMap<string, Tensor> | undefined;
}

/** Every initializer of a head begins so, which tells it from the backbone's. */
export const HEAD_PREFIX = "head/";

/** Names of a head's outputs, [batch, classes] each. */
export interface HeadOutputs {
  readonly logits: string;
  readonly probabilities: string;
}

/** What outputs are called where these names are free. */
export const HEAD_OUTPUTS: HeadOutputs = { logits: "logits", probabilities: "probabilities" };

const [MEAN, DEVIATION] = [`${HEAD_PREFIX}mean`, `${HEAD_PREFIX}deviation`];

/** Whether an initializer of a head is trained. */
export function isTrainedInHead(name: string): boolean {
  return name.startsWith(HEAD_PREFIX) && name !== MEAN && name !== DEVIATION;
}

/** Whether an initializer is a bias, which is not pulled towards zero. */
export function isHeadBias(name: string): boolean {
  return name.startsWith(HEAD_PREFIX) && name.endsWith("bias");
}

/**
 * The head's graph, without metadata.
 * @throws PolyheadError MODEL_UNSUPPORTED for a convolution over a tap without height and width
 */
export function headNetwork(options: HeadNetworkOptions): Model {
  const { input, shape, classes, opset = 17, outputs = HEAD_OUTPUTS } = options;
  const writer = new Writer(options);
  if (input.dtype !== "float32") writer.apply("Cast", [], { to: dtypeCode("float32") });
  const width = shape.kind === "conv" ? convolved(writer, options) : pooledAndStandard(writer, options);
  if (shape.kind === "mlp") {
    writer.layer("hidden", "Gemm", [shape.hidden, width], { transB: 1 }, "random");
    writer.apply("Relu", []);
  }
  writer.layer(
    "output",
    "Gemm",
    [classes, shape.kind === "linear" ? width : shape.hidden],
    { transB: 1 },
    "zeros",
  );
  writer.end(outputs.logits);
  writer.apply("Softmax", [], { axis: -1 });
  writer.end(outputs.probabilities);
  const output = (name: string) => valueInfo(name, "float32", ["batch", classes]);
  return model(
    graph("head", {
      nodes: writer.nodes,
      inputs: [valueInfo(input.name, input.dtype, input.shape)],
      outputs: [output(outputs.logits), output(outputs.probabilities)],
      weights: [...writer.values].map(([name, value]) => weight(name, value)),
    }),
    opset,
  );
}

function pooledAndStandard(writer: Writer, { input, standardisation }: HeadNetworkOptions): number {
  const { axes, channels } = input.pooling;
  if (axes.length > 0) writer.mean(axes);
  writer.standard(standardisation, [channels]);
  return channels;
}

function convolved(writer: Writer, { input, standardisation, shape }: HeadNetworkOptions): number {
  const { axes, channels } = input.pooling;
  if (axes.length !== 2) {
    throw new PolyheadError(
      "MODEL_UNSUPPORTED",
      `A convolutional head reads a tap with height and width; ${JSON.stringify(input.name)} is ${formatShape(input.shape)}. Take a linear head or an mlp, or another tap.`,
      { tap: input.name, got: input.shape },
    );
  }
  if (axes[0] === 1) writer.apply("Transpose", [], { perm: [0, 3, 1, 2] });
  writer.standard(standardisation, [channels, 1, 1]);
  writer.layer("convolution", "Conv", [shape.hidden, channels, 3, 3], { pads: [1, 1, 1, 1] }, "random");
  writer.apply("Relu", []);
  writer.mean([2, 3]);
  return shape.hidden;
}

/** Nodes one after the other, and their weights. */
class Writer {
  readonly nodes: Node[] = [];
  readonly values = new Map<string, Tensor>();
  readonly #options: HeadNetworkOptions;
  readonly #random: () => number;
  #at: string;

  constructor(options: HeadNetworkOptions) {
    this.#options = options;
    this.#at = options.input.name;
    this.#random = seededRandom(options.seed);
  }

  apply(opType: string, others: readonly string[], attributes: Parameters<typeof node>[3] = {}): void {
    const made = `${HEAD_PREFIX}${this.nodes.length}`;
    this.nodes.push(node(opType, [this.#at, ...others], [made], attributes));
    this.#at = made;
  }

  /** Gives the last value its name. */
  end(name: string): void {
    const last = this.nodes.pop();
    if (last) this.nodes.push(Object.assign(last, { output: [name] }));
    this.#at = name;
  }

  mean(axes: readonly number[]): void {
    if ((this.#options.opset ?? 17) < 18) this.apply("ReduceMean", [], { axes: [...axes], keepdims: 0 });
    else this.apply("ReduceMean", [this.#keep("axes", int64([axes.length], axes))], { keepdims: 0 });
  }

  standard({ mean, deviation }: Standardisation, shape: Shape): void {
    this.apply("Sub", [this.#keep(MEAN.slice(HEAD_PREFIX.length), float32(shape, mean))]);
    this.apply("Div", [this.#keep(DEVIATION.slice(HEAD_PREFIX.length), float32(shape, deviation))]);
  }

  /** A layer with weights (He et al. 2015, or zeros) and a bias of zeros. */
  layer(
    name: string,
    opType: string,
    shape: Shape,
    attributes: Parameters<typeof node>[3],
    start: "random" | "zeros",
  ): void {
    const [outputs = 1] = shape;
    const count = elementCount(shape);
    const scale = start === "zeros" ? 0 : Math.sqrt((2 * outputs) / count);
    const drawn = Float32Array.from({ length: count }, () => scale * gaussian(this.#random));
    const weights = this.#keep(`${name}.weight`, float32(shape, drawn));
    this.apply(
      opType,
      [weights, this.#keep(`${name}.bias`, float32([outputs], new Float32Array(outputs)))],
      attributes,
    );
  }

  #keep(name: string, value: Tensor): string {
    const own = HEAD_PREFIX + name;
    this.values.set(own, this.#options.values?.get(own) ?? value);
    return own;
  }
}
