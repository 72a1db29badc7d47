/**
 * Random inputs for proofs: repeatable from a seed, of the dtype and shape that a model declares, and small, so
 * that whole numbers can be indices and images look like images.
 */
import { PolyheadError } from "../base/errors.js";
import { byteLength, DTYPES, type DType } from "../tensor/dtype.js";
import { elementCount, formatShape, type Shape } from "../tensor/shape.js";
import { type NumericArray, type Tensor, tensor } from "../tensor/tensor.js";
import { inMebibytes, MOST_RUN_BYTES } from "./memory.js";
import { declaredType, type ValueInfo } from "./model.js";

/** What fills the dimensions that a model leaves open. */
export interface SampleSizes {
  /** Rows: the size of first dimensions that are not fixed. */
  readonly batch: number;
  /** Sizes of other open dimensions by name; 64 for those not named. */
  readonly sizes?: ReadonlyMap<string, number>;
}

const OPEN_SIZE = 64;

/**
 * One random tensor for each input.
 * @throws PolyheadError MODEL_UNSUPPORTED for inputs of unknown rank or of a dtype that has no random values
 * @throws PolyheadError LIMIT_EXCEEDED for inputs of more than {@link MOST_RUN_BYTES}
 */
export function sampleInputs(
  inputs: readonly ValueInfo[],
  open: SampleSizes,
  seed: number,
): Map<string, Tensor> {
  const random = generator(seed);
  let bytes = 0;
  return new Map(
    [...sampleShapes(inputs, open)].map(([name, { dtype, shape }]) => {
      bytes += byteLength(dtype, elementCount(shape));
      if (!(bytes <= MOST_RUN_BYTES)) throw tooLarge(name, dtype, shape);
      return [name, tensor(dtype, shape, randomElements(name, dtype, shape, random))];
    }),
  );
}

/**
 * The dtypes and shapes of {@link sampleInputs}, of any size.
 * @throws PolyheadError MODEL_UNSUPPORTED for inputs of unknown rank
 */
export function sampleShapes(
  inputs: readonly ValueInfo[],
  open: SampleSizes,
): Map<string, { readonly dtype: DType; readonly shape: Shape }> {
  return new Map(
    inputs.map((info) => {
      const type = declaredType(info);
      if (!type?.shape) {
        throw new PolyheadError(
          "MODEL_UNSUPPORTED",
          `The input ${JSON.stringify(info.name)} declares no shape, so that it cannot be tried out.`,
          { input: info.name },
        );
      }
      const shape = type.shape.map((size, axis) =>
        typeof size === "number" ? size : axis === 0 ? open.batch : (open.sizes?.get(size) ?? OPEN_SIZE),
      );
      return [info.name, { dtype: type.dtype, shape }];
    }),
  );
}

function tooLarge(name: string, dtype: DType, shape: readonly number[]): PolyheadError {
  const [got, limit] = [`${dtype} ${formatShape(shape)}`, inMebibytes(MOST_RUN_BYTES)];
  return new PolyheadError(
    "LIMIT_EXCEEDED",
    `The model cannot be tried out: with the input ${JSON.stringify(name)}, ${got}, its inputs take more than ${limit}. Use smaller sizes for open dimensions, or correct the model.`,
    { input: name, got, limit: MOST_RUN_BYTES },
  );
}

/** Whether any input leaves its first dimension open. */
export function hasOpenBatch(inputs: readonly ValueInfo[]): boolean {
  return inputs.some((info) => typeof declaredType(info)?.shape?.[0] === "string");
}

function randomElements(
  name: string,
  dtype: DType,
  shape: readonly number[],
  random: () => number,
): NumericArray {
  const count = elementCount(shape);
  const fill = (element: () => number): NumericArray => {
    const data = new DTYPES[dtype].array(count) as Exclude<NumericArray, BigInt64Array | BigUint64Array>;
    for (let at = 0; at < count; at++) data[at] = element();
    return data;
  };
  switch (dtype) {
    case "float32":
    case "float64":
      return fill(() => random() * 2 - 1);
    case "float16": // sign, an exponent that makes 0.5 to 1, ten bits of fraction
      return fill(() => (random() < 0.5 ? 0x8000 : 0) | 0x3800 | Math.floor(random() * 0x400));
    case "bfloat16":
      return fill(() => (random() < 0.5 ? 0x8000 : 0) | 0x3f00 | Math.floor(random() * 0x80));
    case "uint8":
      return fill(() => Math.floor(random() * 256));
    case "bool":
      return fill(() => Math.floor(random() * 2));
    case "int8":
    case "int16":
    case "int32":
    case "uint16":
    case "uint32":
      return fill(() => Math.floor(random() * 8));
    case "int64":
      return BigInt64Array.from({ length: count }, () => BigInt(Math.floor(random() * 8)));
    case "uint64":
      return BigUint64Array.from({ length: count }, () => BigInt(Math.floor(random() * 8)));
    default:
      throw new PolyheadError(
        "MODEL_UNSUPPORTED",
        `The input ${JSON.stringify(name)} is ${dtype}, for which there are no random values; expected numbers.`,
        { input: name, dtype },
      );
  }
}

/** Mulberry32: a small generator of good quality for tests, numbers from 0 to below 1. */
function generator(seed: number): () => number {
  let state = seed >>> 0;
  return () => {
    state = (state + 0x6d2b79f5) >>> 0;
    let mixed = Math.imul(state ^ (state >>> 15), state | 1);
    mixed ^= mixed + Math.imul(mixed ^ (mixed >>> 7), mixed | 61);
    return ((mixed ^ (mixed >>> 14)) >>> 0) / 2 ** 32;
  };
}
