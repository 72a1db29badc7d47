/**
 * Small networks with random weights, written layer by layer: what is trained from nothing. The layers that such
 * networks need and no others, float32, images as [batch, channels, height, width]; weights have PyTorch's names. For
 * anything larger export a model from where it was made.
 */
import { PolyheadError } from "../base/errors.js";
import { type Random, seededRandom } from "../base/random.js";
import {
  type AttributeValue,
  graph,
  type Model,
  model,
  type Node,
  node,
  type ValueInfo,
  valueInfo,
  type Weight,
} from "../onnx/model.js";
import { weight } from "../onnx/weight.js";
import { formatShape, type SymbolicShape } from "../tensor/shape.js";
import { filled, kaimingNormal } from "./initial.js";

/** A value of the network. */
export interface Layer {
  readonly name: string;
  /** The first dimension is the batch. */
  readonly shape: SymbolicShape;
}

/** How a convolution goes over its input. */
export interface ConvolutionOptions {
  /** Height and width of the kernel; 3 by default. Half of it, rounded down, is padded on each side. */
  readonly kernel?: number;
  /** 1 by default. */
  readonly stride?: number;
  /** Variance of the weights; sqrt(2), for a rectifier behind, by default. */
  readonly gain?: number;
  /** What all biases begin with; 0 by default. */
  readonly bias?: number;
}

/** A network under construction. Every layer's output is a value of its name, which may become an output or a tap. */
export class Network {
  readonly #random: Random;
  readonly #inputs: ValueInfo[] = [];
  readonly #nodes: Node[] = [];
  readonly #weights: Weight[] = [];
  readonly #names = new Set<string>();

  /** @param seed decides all weights */
  constructor(seed: number) {
    this.#random = seededRandom(seed);
  }

  /** An input, float32. */
  input(name: string, shape: SymbolicShape): Layer {
    this.#inputs.push(valueInfo(this.#claim(name), "float32", shape));
    return { name, shape };
  }

  /**
   * A convolution, with the weights NAME.weight and NAME.bias.
   * @throws PolyheadError INVALID_ARGUMENT for an input without channels, or a stride over sides of unknown size
   */
  convolution(name: string, x: Layer, channels: number, options: ConvolutionOptions = {}): Layer {
    const { kernel = 3, stride = 1, gain, bias = 0 } = options;
    const [batch, inputs] = x.shape;
    if (typeof inputs !== "number" || x.shape.length !== 4) throw unlike(name, x, "[batch, channels, h, w]");
    this.#keep(`${name}.weight`, kaimingNormal([channels, inputs, kernel, kernel], this.#random, gain));
    this.#keep(`${name}.bias`, filled([channels], bias));
    const padding = Math.floor(kernel / 2);
    const side = (size: number | string) => {
      if (typeof size === "number") return Math.floor((size + 2 * padding - kernel) / stride) + 1;
      if (stride === 1 && kernel % 2 === 1) return size;
      throw unlike(name, x, "sides of known size");
    };
    return this.#add("Conv", name, [x.name, `${name}.weight`, `${name}.bias`], {
      shape: [batch ?? "N", channels, ...x.shape.slice(2).map(side)],
      attributes: {
        kernel_shape: [kernel, kernel],
        strides: [stride, stride],
        pads: new Array<number>(4).fill(padding),
      },
    });
  }

  /** A matrix product over [batch, features], with the weights NAME.weight and NAME.bias. */
  linear(name: string, x: Layer, features: number, gain = Math.SQRT2): Layer {
    const [batch = "N", inputs] = x.shape;
    if (typeof inputs !== "number" || x.shape.length !== 2) throw unlike(name, x, "[batch, features]");
    this.#keep(`${name}.weight`, kaimingNormal([features, inputs], this.#random, gain));
    this.#keep(`${name}.bias`, filled([features], 0));
    return this.#add("Gemm", name, [x.name, `${name}.weight`, `${name}.bias`], {
      shape: [batch, features],
      attributes: { transB: 1 },
    });
  }

  /**
   * A batch norm of scale 1 and shift 0, with the weights NAME.weight and NAME.bias; its statistics NAME.running_mean and
   * NAME.running_var, 0 and 1, are those of nothing before it was trained in batch mode.
   * @throws PolyheadError INVALID_ARGUMENT for an input without channels
   */
  batchNorm(name: string, x: Layer): Layer {
    const [, channels] = x.shape;
    if (typeof channels !== "number") throw unlike(name, x, "[batch, channels, ...]");
    const operands = ["weight", "bias", "running_mean", "running_var"].map((each) => `${name}.${each}`);
    for (const [at, operand] of operands.entries())
      this.#keep(operand, filled([channels], at % 3 === 0 ? 1 : 0));
    return this.#add("BatchNormalization", name, [x.name, ...operands], { shape: x.shape });
  }

  /** max(x, 0). */
  relu(name: string, x: Layer): Layer {
    return this.#add("Relu", name, [x.name], { shape: x.shape });
  }

  /** 1 / (1 + exp(-x)). */
  sigmoid(name: string, x: Layer): Layer {
    return this.#add("Sigmoid", name, [x.name], { shape: x.shape });
  }

  /** The maximum of squares of `size` by `size` that do not overlap. */
  maxPool(name: string, x: Layer, size = 2): Layer {
    const shape = x.shape.map((side, axis) => {
      if (axis < 2) return side;
      if (typeof side === "number") return Math.floor(side / size);
      throw unlike(name, x, "sides of known size");
    });
    const attributes = { kernel_shape: [size, size], strides: [size, size] };
    return this.#add("MaxPool", name, [x.name], { shape, attributes });
  }

  /** Sides times `factor`, each element repeated. */
  enlarge(name: string, x: Layer, factor: number): Layer {
    this.#keep(`${name}.scales`, {
      dtype: "float32",
      shape: [4],
      data: Float32Array.of(1, 1, factor, factor),
    });
    const shape = x.shape.map((side, axis) => {
      if (axis < 2) return side;
      if (typeof side === "number") return side * factor;
      throw unlike(name, x, "sides of known size");
    });
    const attributes = {
      mode: "nearest",
      nearest_mode: "floor",
      coordinate_transformation_mode: "asymmetric",
    };
    return this.#add("Resize", name, [x.name, "", `${name}.scales`], { shape, attributes });
  }

  /** The sum of values of one shape. */
  sum(name: string, layers: readonly Layer[]): Layer {
    const [first] = layers;
    if (!first) throw new PolyheadError("INVALID_ARGUMENT", `The sum ${name} has no terms.`, { name });
    const names = layers.map((each) => each.name);
    return this.#add("Sum", name, names, { shape: first.shape });
  }

  /** [batch, all else]. */
  flatten(name: string, x: Layer): Layer {
    const [batch = "N", ...sizes] = x.shape;
    const features = sizes.reduce<number>((product, size) => {
      if (typeof size === "number") return product * size;
      throw unlike(name, x, "sides of known size");
    }, 1);
    return this.#add("Flatten", name, [x.name], { shape: [batch, features], attributes: { axis: 1 } });
  }

  /** The network as a model with these outputs. */
  model(name: string, outputs: readonly Layer[]): Model {
    return model(
      graph(name, {
        nodes: this.#nodes,
        inputs: this.#inputs,
        outputs: outputs.map((each) => valueInfo(each.name, "float32", each.shape)),
        weights: this.#weights,
      }),
    );
  }

  #add(
    opType: string,
    name: string,
    inputs: readonly string[],
    made: {
      readonly shape: SymbolicShape;
      readonly attributes?: Readonly<Record<string, AttributeValue>>;
    },
  ): Layer {
    this.#nodes.push(node(opType, inputs, [this.#claim(name)], made.attributes));
    return { name, shape: made.shape };
  }

  #keep(name: string, value: Parameters<typeof weight>[1]): void {
    this.#weights.push(weight(this.#claim(name), value));
  }

  #claim(name: string): string {
    if (name === "" || this.#names.has(name)) {
      throw new PolyheadError(
        "INVALID_ARGUMENT",
        `The network has a value ${JSON.stringify(name)} already; expected a name of its own for every layer.`,
        { name },
      );
    }
    this.#names.add(name);
    return name;
  }
}

function unlike(layer: string, x: Layer, expected: string): PolyheadError {
  return new PolyheadError(
    "INVALID_ARGUMENT",
    `The layer ${JSON.stringify(layer)} takes ${expected}; got ${JSON.stringify(x.name)} of shape ${formatShape(x.shape)}.`,
    { layer, expected, got: x.shape },
  );
}
