/**
 * NumPy's arrays, scalars and dtypes as pickles hold them. An array becomes a stored tensor, a scalar a number.
 */
import type { DType } from "../../tensor/dtype.js";
import { elementCount } from "../../tensor/shape.js";
import { toNumbers } from "../../tensor/tensor.js";
import { type Buildable, malformed, unsupported } from "./objects.js";
import { StoredTensor } from "./tensor.js";

const DTYPES: Readonly<Record<string, DType>> = {
  f8: "float64",
  f4: "float32",
  f2: "float16",
  i8: "int64",
  i4: "int32",
  i2: "int16",
  i1: "int8",
  u8: "uint64",
  u4: "uint32",
  u2: "uint16",
  u1: "uint8",
  b1: "bool",
};

/** A NumPy dtype: its code, and the byte order that its state gives. */
export class NumpyDtype implements Buildable {
  readonly #code: string;
  #order = "|";

  constructor(code: unknown) {
    this.#code = String(code);
  }

  build(state: unknown): void {
    if (Array.isArray(state) && typeof state[1] === "string") this.#order = state[1];
  }

  /** Whether it is one of numbers, rather than text, objects or records. */
  get isNumeric(): boolean {
    return Object.hasOwn(DTYPES, this.#code);
  }

  /** @throws PolyheadError MODEL_UNSUPPORTED for text, objects, records and big-endian numbers */
  get dtype(): DType {
    const dtype = Object.hasOwn(DTYPES, this.#code) ? DTYPES[this.#code] : undefined;
    if (dtype && this.#order !== ">") return dtype;
    throw unsupported(
      `NumPy arrays of dtype ${JSON.stringify(this.#order + this.#code)} are not supported.`,
      {
        dtype: this.#order + this.#code,
      },
    );
  }
}

/** A NumPy array; its content is its state. */
export class NumpyArray implements Buildable {
  #state: readonly unknown[] = [];

  build(state: unknown): void {
    if (!Array.isArray(state)) throw malformed("A NumPy array in this file has no content.");
    this.#state = state;
  }

  /** Whether it holds numbers. */
  get isNumeric(): boolean {
    const [, , dtype] = this.#state;
    return !(dtype instanceof NumpyDtype) || dtype.isNumeric;
  }

  /** @throws PolyheadError MODEL_MALFORMED, MODEL_UNSUPPORTED */
  get tensor(): StoredTensor {
    const [, shape, dtype, isFortran, content] = this.#state;
    const bytes = bytesOf(content);
    if (!Array.isArray(shape) || !(dtype instanceof NumpyDtype) || !bytes)
      throw malformed("A NumPy array in this file is broken.");
    return arrayOver(bytes, dtype, shape, isFortran === true);
  }
}

/** A NumPy scalar as a number; undefined for those that are none. */
export function numpyScalar([dtype, content]: readonly unknown[]): unknown {
  const bytes = bytesOf(content);
  if (!(dtype instanceof NumpyDtype) || !dtype.isNumeric || !bytes) return null;
  return toNumbers(arrayOver(bytes, dtype, [], false).read())[0] ?? null;
}

function arrayOver(
  bytes: Uint8Array,
  { dtype }: NumpyDtype,
  shape: number[],
  isFortran: boolean,
): StoredTensor {
  const storage = { kind: "Untyped", length: bytes.length, bytes: () => bytes };
  if (!isFortran) return new StoredTensor(storage, shape, { dtype });
  const strides = shape.map((_, axis) => elementCount(shape.slice(0, axis)));
  return new StoredTensor(storage, shape, { dtype, strides });
}

/** Bytes, which Python 2 writes as text. */
function bytesOf(content: unknown): Uint8Array | undefined {
  if (content instanceof Uint8Array) return content;
  return typeof content === "string" ? Uint8Array.from(content, (letter) => letter.charCodeAt(0)) : undefined;
}
