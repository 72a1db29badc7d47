/**
 * Adapters as ordinary ONNX models: taps of one backbone in, stand-ins for the taps of another out. A vector passes
 * through one linear layer, or through the layers of a trained map; what a head takes the mean of anyway is pooled first and spread again; a map passes through
 * a 1x1 convolution, resized on whichever side of it is smaller. Any batch size, float32.
 */
import { PolyheadError } from "../base/errors.js";
import { type Tap, withMetadata } from "../onnx/metadata.js";
import {
  DEFAULT_OPSET,
  graph,
  type Model,
  model,
  type Node,
  node,
  valueInfo,
  type Weight,
} from "../onnx/model.js";
import { weight } from "../onnx/weight.js";
import type { Pooling } from "../teach/pooling.js";
import { float32, int64 } from "../tensor/tensor.js";
import type { AffineMap } from "./affine.js";
import { type FeatureMap, isAffine } from "./feature-map.js";
import type { HeadReading } from "./head-reading.js";

/** One output of an adapter: what it reads, what it stands in for, and the map between. */
export interface AdapterPart {
  readonly source: Tap;
  /** How the source becomes a vector, for heads that read one, and where a map has its channels. */
  readonly pooling?: Pooling | undefined;
  readonly reading: HeadReading;
  readonly map: FeatureMap;
}

/**
 * The adapter of one or several parts, with both ends in its metadata.
 * @param opset version of the operator set; that of the head, so that the two can become one model
 * @throws PolyheadError MODEL_UNSUPPORTED for sizes that are not known and maps of another kind
 */
export function adapterModel(parts: readonly AdapterPart[], opset = DEFAULT_OPSET): Model {
  const sources = [...new Map(parts.map(({ source }) => [source.name, source])).values()];
  const written = Math.max(opset, LEAST_OPSET);
  const build = new Builder(
    sources.map(({ name }) => name),
    written,
  );
  const outputs = parts.map((part) => {
    const { reading, source } = part;
    const { tap } = reading;
    const made = build.mapped(part);
    const name = build.named(made, `as_${tap.name}`);
    const free = source.shape[0] ?? "batch";
    return valueInfo(name, "float32", [typeof free === "string" ? free : "batch", ...tap.shape.slice(1)]);
  });
  const main = graph("adapter", {
    nodes: build.nodes,
    inputs: sources.map(({ name, shape }) => valueInfo(name, "float32", shape)),
    outputs,
    weights: build.weights,
  });
  return withMetadata(model(main, written), {
    role: "adapter",
    taps: sources,
    produces: parts.map(({ reading }) => reading.tap),
  });
}

/** From here on the operators below are what they are written as. */
const LEAST_OPSET = 13;
/** From here on ReduceMean is told its axes by an input. */
const AXES_AS_INPUT = 18;

/**
 * What an adapter does to a map before or after its convolution, alone: the source at the target's height and width.
 * Linear interpolation and a 1x1 convolution may change places, so that maps are fitted at the target's size.
 * @param pooling says where the source has its channels
 */
export function resizingModel(source: Tap, pooling: Pooling, target: Tap): Model {
  const build = new Builder([source.name], DEFAULT_OPSET);
  const [from, to] = [areaOf(source, pooling), areaOf(target)];
  if (!from || !to) throw unsizedMap(source, target);
  const name = build.named(
    build.resized(build.channelsFirst(source.name, pooling), from, to),
    `sized_${source.name}`,
  );
  const shape = [source.shape[0] ?? "batch", pooling.channels, to.height, to.width];
  return model(
    graph("resizing", {
      nodes: build.nodes,
      inputs: [valueInfo(source.name, "float32", source.shape)],
      outputs: [valueInfo(name, "float32", shape)],
      weights: build.weights,
    }),
  );
}

/** The mean of a value over axes, under any operator set. */
export function meanOver(
  value: string,
  axes: readonly number[],
  opset: number,
  names: { readonly output: string; readonly axes: string },
): { readonly node: Node; readonly weights: readonly Weight[] } {
  if (opset < AXES_AS_INPUT)
    return { node: node("ReduceMean", [value], [names.output], { axes, keepdims: 0 }), weights: [] };
  return {
    node: node("ReduceMean", [value, names.axes], [names.output], { keepdims: 0 }),
    weights: [weight(names.axes, int64([axes.length], axes))],
  };
}

/** Nodes of an adapter, one after the other. */
class Builder {
  readonly nodes: Node[] = [];
  readonly weights: Weight[] = [];
  readonly #taken: Set<string>;
  readonly #opset: number;

  constructor(taken: readonly string[], opset: number) {
    this.#taken = new Set(taken);
    this.#opset = opset;
  }

  mapped(part: AdapterPart): string {
    const { reading, source, pooling, map } = part;
    if (reading.kind === "vector" || reading.kind === "pooled") {
      const axes = pooling?.axes ?? [];
      const vector = axes.length > 0 ? this.#mean(source.name, axes) : source.name;
      const made = this.#layers(vector, map, (value, layer) => this.#linear(value, layer));
      return reading.kind === "vector" ? made : this.#spread(made, reading);
    }
    if (reading.kind === "tokens")
      return this.#layers(source.name, map, (value, layer) => this.#tokens(value, layer));
    return this.#map(part);
  }

  /** All layers of a map, each applied as `linear` says. */
  #layers(
    value: string,
    { hidden, isRectified, ...direct }: FeatureMap,
    linear: (value: string, layer: AffineMap) => string,
  ): string {
    let made = linear(value, direct);
    if (hidden) {
      const inside = this.apply("Relu", [linear(value, hidden.inward)]);
      const outward = { weights: hidden.outward, bias: new Float64Array(hidden.outward.rows) };
      made = this.apply("Add", [made, linear(inside, outward)]);
    }
    return isRectified ? this.apply("Relu", [made]) : made;
  }

  /** A map with its channels in front of height and width. */
  channelsFirst(value: string, pooling: Pooling | undefined): string {
    return isChannelsLast(pooling) ? this.apply("Transpose", [value], { perm: [0, 3, 1, 2] }) : value;
  }

  /** The last value under the name that people see. */
  named(value: string, wanted: string): string {
    const name = this.#free(wanted);
    this.nodes.push(node("Identity", [value], [name]));
    return name;
  }

  apply(opType: string, inputs: readonly string[], attributes = {}): string {
    const name = this.#free(opType.toLowerCase());
    this.nodes.push(node(opType, inputs, [name], attributes));
    return name;
  }

  #linear(vector: string, { weights, bias }: AffineMap): string {
    const matrix = this.#weight("matrix", [weights.rows, weights.columns], weights.data);
    return this.apply("Gemm", [vector, matrix, this.#weight("bias", [bias.length], bias)], { transB: 1 });
  }

  #tokens(value: string, { weights, bias }: AffineMap): string {
    const transposed = new Float32Array(weights.data.length);
    weights.data.forEach((number, at) => {
      transposed[(at % weights.columns) * weights.rows + Math.floor(at / weights.columns)] = number;
    });
    const matrix = this.#weight("matrix", [weights.columns, weights.rows], transposed);
    const product = this.apply("MatMul", [value, matrix]);
    return this.apply("Add", [product, this.#weight("bias", [bias.length], bias)]);
  }

  /** The vector at every place of a tap, whose mean it then is. */
  #spread(vector: string, { tap, channelAxis }: HeadReading): string {
    const axes = [...tap.shape.keys()].filter((axis) => axis !== 0 && axis !== channelAxis);
    const sizes = tap.shape.map((size, axis) => (axis > 0 && typeof size === "number" ? size : 1));
    const column = this.apply("Unsqueeze", [vector, this.#integers("axes", axes)]);
    return this.apply("Expand", [column, this.#integers("sizes", sizes)]);
  }

  #mean(value: string, axes: readonly number[]): string {
    const names = { output: this.#free("mean"), axes: this.#free("axes") };
    const made = meanOver(value, axes, this.#opset, names);
    this.nodes.push(made.node);
    this.weights.push(...made.weights);
    return names.output;
  }

  #map({ source, pooling, reading, map }: AdapterPart): string {
    const target = reading.tap;
    const [from, to] = [areaOf(source, pooling), areaOf(target)];
    if (!from || !to) throw unsizedMap(source, target);
    // Interpolation may come after an affine map, and then there is less to map; a rectifier has to come after it.
    const isLater = isAffine(map) && from.height * from.width < to.height * to.width;
    const given = this.channelsFirst(source.name, pooling);
    const before = isLater ? given : this.resized(given, from, to);
    const made = this.#layers(before, map, (value, layer) => this.#convolution(value, layer));
    return isLater ? this.resized(made, from, to) : made;
  }

  #convolution(value: string, { weights, bias }: AffineMap): string {
    const kernel = this.#weight("kernel", [weights.rows, weights.columns, 1, 1], weights.data);
    return this.apply("Conv", [value, kernel, this.#weight("bias", [bias.length], bias)]);
  }

  /** A map at another height and width. */
  resized(value: string, from: Area, to: Area): string {
    if (from.height === to.height && from.width === to.width) return value;
    const [down, across] = [from.height / to.height, from.width / to.width];
    if (Number.isInteger(down) && Number.isInteger(across)) {
      const window = [down, across];
      return this.apply("AveragePool", [value], { kernel_shape: window, strides: window });
    }
    const attributes = { mode: "linear", coordinate_transformation_mode: "half_pixel" };
    const scales = [1, 1, to.height / from.height, to.width / from.width];
    if (scales.every((scale) => Number.isInteger(Math.log2(scale)))) {
      return this.apply("Resize", [value, "", this.#weight("scales", [4], scales)], attributes);
    }
    const kept = this.apply("Shape", [value], { start: 0, end: 2 });
    const sizes = this.apply("Concat", [kept, this.#integers("sizes", [to.height, to.width])], { axis: 0 });
    return this.apply("Resize", [value, "", "", sizes], attributes);
  }

  #weight(wanted: string, shape: readonly number[], values: ArrayLike<number>): string {
    const name = this.#free(wanted);
    this.weights.push(weight(name, float32(shape, values)));
    return name;
  }

  #integers(wanted: string, values: readonly number[]): string {
    const name = this.#free(wanted);
    this.weights.push(weight(name, int64([values.length], values)));
    return name;
  }

  #free(wanted: string): string {
    let name = wanted;
    for (let suffix = 1; this.#taken.has(name); suffix++) name = `${wanted}_${suffix}`;
    this.#taken.add(name);
    return name;
  }
}

/** Places of a map. */
export interface Area {
  readonly height: number;
  readonly width: number;
}

function isChannelsLast(pooling: Pooling | undefined): boolean {
  return pooling?.axes.length === 2 && pooling.axes[0] === 1;
}

/** Height and width of a map; undefined where they are open. */
export function areaOf({ shape }: Pick<Tap, "shape">, pooling?: Pooling): Area | undefined {
  const [height, width] = isChannelsLast(pooling) ? shape.slice(1, 3) : shape.slice(2);
  return typeof height === "number" && typeof width === "number" ? { height, width } : undefined;
}

function unsizedMap(source: Tap, target: Tap): PolyheadError {
  return new PolyheadError(
    "MODEL_UNSUPPORTED",
    `A map is adapted to a map of known size; ${JSON.stringify(source.name)} is [${source.shape.join(", ")}] and ${JSON.stringify(target.name)} is [${target.shape.join(", ")}]. Fix the height and width of the open one.`,
    { source, target },
  );
}
