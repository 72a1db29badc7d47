/**
 * Values of a graph in two layouts, the usual one and that of blocks of channels, brought from one to the other when
 * somebody wants them there. Weights come into the order in which the runtime's convolutions in blocks read them.
 */
import { type Attribute, attribute, node as newNode, type ValueType } from "../onnx/model.js";
import { elementCount, isConcrete, type Shape } from "../tensor/shape.js";
import { tensor } from "../tensor/tensor.js";
import type { Builder } from "./autodiff/builder.js";
import { backwards } from "./turned-weights.js";

/** The runtime's operator set for its layout. */
export const DOMAIN = "com.microsoft.nchwc";

const range = (length: number) => Array.from({ length }, (_, at) => at);

/** The values of one graph while it is written anew. */
export class BlockedValues {
  /** Channels in a block. */
  readonly width: number;
  readonly builder: Builder;
  readonly #types: ReadonlyMap<string, ValueType>;
  /** Values that exist in blocks, and under which names. */
  readonly #blocked = new Map<string, string>();
  /** Those of them that do not exist in the usual layout so far. */
  readonly #onlyBlocked = new Set<string>();

  constructor(width: number, builder: Builder, types: ReadonlyMap<string, ValueType>) {
    this.width = width;
    this.builder = builder;
    this.#types = types;
  }

  /** Whether any value exists in blocks. */
  get isUsed(): boolean {
    return this.#blocked.size > 0;
  }

  /** Whether a value exists in blocks. */
  has(value: string): boolean {
    return this.#blocked.has(value);
  }

  isFloat32(value: string): boolean {
    return this.#types.get(value)?.dtype === "float32";
  }

  /** Adds a node of the runtime's own operator set. */
  own(
    opType: string,
    inputs: readonly string[],
    attributes: readonly Attribute[] = [],
    output = this.builder.name(opType),
  ): string {
    const made = newNode(opType, inputs, [output]);
    made.domain = DOMAIN;
    made.attribute = [...attributes];
    this.builder.nodes.push(made);
    return output;
  }

  /** Shape of a value, where it is known. */
  shape(name: string): Shape | undefined {
    const shape = this.#types.get(name)?.shape;
    return shape && isConcrete(shape) ? shape : undefined;
  }

  /** Says that a value exists in blocks, and nowhere else so far. */
  keep(value: string, blocked: string): void {
    this.#blocked.set(value, blocked);
    this.#onlyBlocked.add(value);
  }

  /** The name of a value once it is there in the usual layout. */
  usual(value: string): string {
    const blocked = this.#blocked.get(value);
    if (blocked === undefined || !this.#onlyBlocked.delete(value)) return value;
    const [images = 1, channels = 1, ...sizes] = this.shape(value) ?? [];
    if (this.isFloat32(value) && channels % this.width === 0) {
      this.own("ReorderOutput", [blocked], [attribute("channels", channels)], value);
      return value;
    }
    const blocks = [(images * channels) / this.width, ...sizes, this.width];
    const turned = this.builder.transpose(this.builder.reshape(blocked, blocks), [0, 3, 1, 2]);
    const shape = this.builder.ints([images, channels, ...sizes]);
    this.builder.nodes.push(newNode("Reshape", [turned, shape], [value]));
    return value;
  }

  /** The name of a value in blocks. Its blocks go on from image to image, where only all channels together fill some. */
  inBlocks(value: string, shape = this.shape(value) ?? []): string {
    const known = this.#blocked.get(value);
    if (known !== undefined) return known;
    const [images = 1, channels = 1, ...sizes] = shape;
    const name =
      channels % this.width === 0
        ? this.own("ReorderInput", [value])
        : this.builder.reshape(
            this.own("ReorderInput", [this.builder.reshape(value, [1, images * channels, ...sizes])]),
            shape,
          );
    this.#blocked.set(value, name);
    return name;
  }

  /**
   * Weights over all channels, as the runtime has them: blocks of filters outside, then blocks of channels, places,
   * the channels of a block, and the filters of a block inside. With few channels there is one block of them. Filters
   * come into blocks as channels do, of an image that has all else in one column.
   */
  filters(weights: string, shape: Shape, isFirst: boolean): string {
    const [filters = 1, ...rest] = shape;
    const inner = isFirst ? this.usual(weights) : this.inBlocks(weights, shape);
    const column = this.builder.reshape(inner, [1, filters, elementCount(rest), 1]);
    return this.builder.reshape(this.own("ReorderInput", [column]), shape);
  }

  /**
   * The same of weights that are to be turned round. With their channels in blocks, as the convolution itself has them
   * on the way, the channels of a block lie side by side already: whole rows are moved, and the places of the kernel
   * turned.
   * @param shape of the weights as they are, [filters, channels, ...kernel], both in whole blocks
   */
  turnedFilters(weights: string, shape: Shape): string {
    const width = this.width;
    const [filters = 1, channels = 1, ...kernel] = shape;
    const size = elementCount(kernel);
    const rows = this.builder.reshape(this.inBlocks(weights), [(filters * channels * size) / width, width]);
    const order = range(channels / width).flatMap((block) =>
      range(filters / width).flatMap((outer) =>
        backwards(size).flatMap((place) =>
          range(width).map((inner) => ((outer * width + inner) * (channels / width) + block) * size + place),
        ),
      ),
    );
    const places = this.builder.constant(tensor("int32", [order.length], Int32Array.from(order)));
    return this.builder.reshape(this.builder.op("Gather", [rows, places]), [channels, filters, ...kernel]);
  }
}
