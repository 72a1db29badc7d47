/** The rows that batches are made of. */
import type { Random } from "../base/random.js";
import { DTYPES } from "../tensor/dtype.js";
import type { Tensor } from "../tensor/tensor.js";
import type { ArraySet } from "./array-set.js";

/** What a model takes for one example, as a batch of one, and what it should answer. */
export interface Row<Target> {
  readonly x: Tensor;
  readonly target: Target;
}

/** Makes rows. The same example and the same random numbers give the same row, whenever and however often. */
export interface RowSource<Target> {
  /** Number of examples. */
  readonly count: number;
  /**
   * The row of an example from 0 to `count` - 1; its arrays belong to the caller.
   * @throws PolyheadError for an example that can no longer be read
   */
  row(example: number, random: Random): Promise<Row<Target>>;
}

/** Random changes of rows of [channels, height, width]; others have none. */
export interface ArrayAugmentation {
  /** Probability of exchanging left and right. */
  readonly mirror?: number;
  /** Most elements by which a row is shifted, across and down; zeros come in. */
  readonly shift?: number;
}

/** Rows of an array. */
export class ArrayRows implements RowSource<number> {
  readonly count: number;
  readonly #set: ArraySet;
  readonly #examples: readonly number[];
  readonly #augmentation: ArrayAugmentation;

  /** @param examples which rows of the set, in which order; all by default */
  constructor(set: ArraySet, augmentation: ArrayAugmentation = {}, examples?: readonly number[]) {
    this.#set = set;
    this.#examples = examples ?? [...set.classes.keys()];
    this.#augmentation = augmentation;
    this.count = this.#examples.length;
  }

  async row(example: number, random: Random): Promise<Row<number>> {
    const { x, classes } = this.#set;
    const at = this.#examples[example] ?? 0;
    const shape = [1, ...x.shape.slice(1)];
    const width = x.data.length / classes.length;
    const values = (x.data as Float32Array).slice(at * width, (at + 1) * width);
    const { mirror = 0, shift = 0 } = this.#augmentation;
    const isMirrored = random() < mirror;
    const [right, down] = [random(), random()].map((each) => Math.floor(each * (2 * shift + 1)) - shift);
    const isPlain = !isMirrored && !right && !down;
    const data =
      isPlain || shape.length !== 4 ? values : moved(values, shape, isMirrored, right ?? 0, down ?? 0);
    return { x: { dtype: x.dtype, shape, data }, target: classes[at] ?? 0 };
  }
}

function moved(
  values: Float32Array,
  [, channels = 1, height = 1, width = 1]: readonly number[],
  isMirrored: boolean,
  right: number,
  down: number,
): Float32Array {
  const result = new Float32Array(values.length);
  for (let plane = 0; plane < channels; plane++) {
    for (let y = Math.max(0, down); y < Math.min(height, height + down); y++) {
      for (let x = Math.max(0, right); x < Math.min(width, width + right); x++) {
        const from = isMirrored ? width - 1 - (x - right) : x - right;
        result[(plane * height + y) * width + x] = values[(plane * height + y - down) * width + from] ?? 0;
      }
    }
  }
  return result;
}

/** Rows stacked into a new tensor [rows, ...] that shares no memory with them. All must have one dtype and shape. */
export function stacked(rows: readonly Tensor[]): Tensor {
  const [first] = rows;
  const { dtype = "float32", shape = [1] } = first ?? {};
  const width = first?.data.length ?? 0;
  const data = new DTYPES[dtype].array(rows.length * width);
  rows.forEach(({ data: values }, at) => {
    data.set(values as never, at * width);
  });
  return { dtype, shape: [rows.length, ...shape.slice(1)], data };
}
