/**
 * Tensors as files of weights hold them: a view of a storage with any strides, which is read into a dense tensor
 * only when somebody wants its elements. Several tensors may be views of one storage.
 */
import { PolyheadError } from "../../base/errors.js";
import { byteLength, DTYPES, type DType } from "../../tensor/dtype.js";
import { elementCount, formatShape, type Shape } from "../../tensor/shape.js";
import { fromBytes, type Tensor, toNumbers } from "../../tensor/tensor.js";
import { malformed, type Storage, unsupported } from "./objects.js";

/** No runtime takes tensors of more dimensions. */
const MOST_AXES = 64;
/** A view may repeat the elements of its storage, as `expand` does it, up to so many elements. */
const MOST_REPEATED = 2 ** 20;

/** Element types by the names of their storages. */
const KINDS: Readonly<Record<string, DType>> = {
  Double: "float64",
  Float: "float32",
  Half: "float16",
  BFloat16: "bfloat16",
  Long: "int64",
  Int: "int32",
  Short: "int16",
  Char: "int8",
  Byte: "uint8",
  Bool: "bool",
  ComplexFloat: "complex64",
  ComplexDouble: "complex128",
};

/** Element types by PyTorch's own names, as newer files and safetensors' dtypes give them. */
const TYPES: Readonly<Record<string, DType>> = {
  float64: "float64",
  double: "float64",
  float32: "float32",
  float: "float32",
  float16: "float16",
  half: "float16",
  bfloat16: "bfloat16",
  int64: "int64",
  long: "int64",
  int32: "int32",
  int: "int32",
  int16: "int16",
  short: "int16",
  int8: "int8",
  uint8: "uint8",
  uint16: "uint16",
  uint32: "uint32",
  uint64: "uint64",
  bool: "bool",
  complex64: "complex64",
  complex128: "complex128",
  float8_e4m3fn: "float8e4m3fn",
  float8_e4m3fnuz: "float8e4m3fnuz",
  float8_e5m2: "float8e5m2",
  float8_e5m2fnuz: "float8e5m2fnuz",
};

/** A tensor in a file. */
export class StoredTensor {
  readonly dtype: DType;
  readonly shape: Shape;
  readonly #storage: Storage;
  readonly #offset: number;
  readonly #strides: readonly number[];

  /**
   * @param offset in elements
   * @param strides in elements; those of a dense tensor when left out
   * @param dtype by default that of the storage
   * @throws PolyheadError MODEL_MALFORMED when the view leaves its storage; MODEL_UNSUPPORTED for unknown dtypes
   */
  constructor(
    storage: Storage,
    shape: Shape,
    { offset = 0, strides, dtype }: { offset?: number; strides?: readonly number[]; dtype?: DType } = {},
  ) {
    this.dtype = dtype ?? storageDtype(storage.kind);
    this.shape = shape;
    this.#storage = storage;
    this.#offset = offset;
    this.#strides = strides ?? denseStrides(shape);
    const numbers = [offset, ...shape, ...this.#strides];
    if (shape.length > MOST_AXES || shape.length !== this.#strides.length || !numbers.every(isSize))
      throw malformed(
        `A tensor of shape ${formatShape(shape.slice(0, 8))} has impossible sizes or strides.`,
        {
          shape,
        },
      );
    const count = elementCount(shape);
    const last = shape.reduce((sum, size, axis) => sum + (size - 1) * (this.#strides[axis] ?? 0), offset);
    const held =
      storage.kind === "Untyped" ? Math.floor(storage.length / byteLength(this.dtype, 1)) : storage.length;
    if (count > 0 && last >= held)
      throw malformed(
        `A tensor of shape ${formatShape(shape)} reads element ${last} of a storage that has ${held}.`,
        { shape, got: last, limit: held },
      );
    if (count > held && count > MOST_REPEATED)
      throw new PolyheadError(
        "LIMIT_EXCEEDED",
        `A tensor of shape ${formatShape(shape)} repeats the ${held} elements of its storage; save it as a tensor of its own (contiguous()).`,
        { shape, limit: MOST_REPEATED },
      );
  }

  /** The elements, densely; a view of the file where they lie there like that. */
  read(): Tensor {
    const width = byteLength(this.dtype, 1);
    const bytes = this.#storage.bytes();
    const count = elementCount(this.shape);
    const start = this.#offset * width;
    if (this.#isDense())
      return fromBytes(this.dtype, this.shape, bytes.subarray(start, start + count * width));
    const made = new Uint8Array(count * width);
    const place = this.shape.map(() => 0);
    let from = this.#offset;
    for (let at = 0; at < count; at++) {
      made.set(bytes.subarray(from * width, (from + 1) * width), at * width);
      for (let axis = place.length - 1; axis >= 0; axis--) {
        const [size = 1, stride = 0, now = 0] = [this.shape[axis], this.#strides[axis], place[axis]];
        from += stride;
        if (now + 1 < size) {
          place[axis] = now + 1;
          break;
        }
        from -= size * stride;
        place[axis] = 0;
      }
    }
    return fromBytes(this.dtype, this.shape, made);
  }

  /**
   * The elements as float32; other real dtypes are widened or narrowed to it.
   * @throws PolyheadError MODEL_UNSUPPORTED for complex numbers and those of 8 bits
   */
  readFloat32(): Tensor {
    const value = this.read();
    if (value.dtype === "float32") return value;
    if (DTYPES[value.dtype].bits > 64 || /^(complex|float8)/.test(value.dtype))
      throw unsupported(`Weights of dtype ${value.dtype} are not supported; convert them to float32.`, {
        dtype: value.dtype,
      });
    return { dtype: "float32", shape: value.shape, data: Float32Array.from(toNumbers(value)) };
  }

  #isDense(): boolean {
    const dense = denseStrides(this.shape);
    return this.shape.every((size, axis) => size <= 1 || this.#strides[axis] === dense[axis]);
  }
}

/**
 * The element type of a storage by its class, such as `Float`.
 * @throws PolyheadError MODEL_UNSUPPORTED for quantised and unknown ones
 */
export function storageDtype(kind: string): DType {
  const dtype = Object.hasOwn(KINDS, kind) ? KINDS[kind] : kind === "Untyped" ? "uint8" : undefined;
  if (dtype) return dtype;
  throw unsupported(
    `Tensors of type ${kind} are not supported; expected one of ${Object.keys(KINDS).join(", ")}.`,
    {
      got: kind,
    },
  );
}

/**
 * The element type of PyTorch's name, such as `float32`.
 * @throws PolyheadError MODEL_UNSUPPORTED
 */
export function torchDtype(name: string): DType {
  const dtype = Object.hasOwn(TYPES, name) ? TYPES[name] : undefined;
  if (dtype) return dtype;
  throw unsupported(`Tensors of dtype ${name} are not supported; convert them to float32.`, { got: name });
}

function denseStrides(shape: Shape): number[] {
  return shape.map((_, axis) => elementCount(shape.slice(axis + 1)));
}

function isSize(value: unknown): boolean {
  return Number.isSafeInteger(value) && (value as number) >= 0;
}
