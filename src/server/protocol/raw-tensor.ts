/**
 * Raw tensor contents, as the binary tensor extension and gRPC's raw contents have them: little-endian elements
 * in row-major order; a BOOL is one byte of 0 or 1; an element of BYTES is its length in four bytes and then its
 * bytes, which here must be UTF-8. Numbers are used where they lie; only unaligned ones are copied.
 */
import { PolyheadError } from "../../base/errors.js";
import { byteLength, type DType } from "../../tensor/dtype.js";
import { elementCount, formatShape, type Shape } from "../../tensor/shape.js";
import { bytesOf, fromBytes, type Tensor } from "../../tensor/tensor.js";
import { type Limits, limitExceeded } from "./limits.js";
import { shown } from "./shown.js";

const LENGTH_BYTES = 4;

/**
 * A client's shape: whole numbers from 0 on, as many elements as allowed.
 * @param what names the tensor in messages: `Input "x"`
 * @throws PolyheadError INVALID_ARGUMENT, LIMIT_EXCEEDED
 */
export function checkShape(shape: unknown, what: string, limits: Limits): Shape {
  if (!Array.isArray(shape)) {
    throw new PolyheadError(
      "INVALID_ARGUMENT",
      `${what} has no shape; expected a list of whole numbers.`,
      {},
    );
  }
  if (shape.length > limits.dimensions) {
    throw limitExceeded(`${what} has`, shape.length, limits.dimensions, "dimensions");
  }
  let elements = 1;
  const checked = shape.map((dimension: unknown, axis) => {
    const size = typeof dimension === "bigint" ? Number(dimension) : dimension;
    if (typeof size !== "number" || !Number.isInteger(size) || size < 0) {
      throw new PolyheadError(
        "INVALID_ARGUMENT",
        `${what} has ${shown(size)} as dimension ${axis} of its shape; expected a whole number from 0 on.`,
        { axis },
      );
    }
    elements *= Math.max(size, 1);
    return size;
  });
  // Dimensions beside one of 0 count too, so that no arithmetic on the shape can overflow.
  if (elements > limits.tensorElements) {
    throw limitExceeded(
      `${what} of shape ${formatShape(checked)} has`,
      elements,
      limits.tensorElements,
      "elements",
    );
  }
  return checked;
}

/**
 * The tensor in raw contents. Numbers share memory with `bytes` where these are aligned.
 * @param shape checked by {@link checkShape}
 * @throws PolyheadError INPUT_MISMATCH when size and shape differ, DATA_MALFORMED, LIMIT_EXCEEDED
 */
export function readRawTensor(
  dtype: DType,
  shape: Shape,
  bytes: Uint8Array,
  what: string,
  limits: Limits,
): Tensor {
  if (dtype === "string") return { dtype, shape, data: readStrings(shape, bytes, what, limits) };
  const expected = byteLength(dtype, elementCount(shape));
  if (bytes.length !== expected) {
    throw new PolyheadError(
      "INPUT_MISMATCH",
      `${what} of ${dtype} and shape ${formatShape(shape)} has ${bytes.length} bytes of raw content; expected ${expected}.`,
      { dtype, shape, expected, got: bytes.length },
    );
  }
  if (dtype === "bool") {
    const wrong = bytes.find((byte) => byte > 1);
    if (wrong !== undefined) {
      throw new PolyheadError("DATA_MALFORMED", `${what} has a BOOL of value ${wrong}; expected 0 or 1.`, {
        got: wrong,
      });
    }
  }
  return fromBytes(dtype, shape, bytes);
}

/** The raw contents of a tensor; those of numbers share its memory. */
export function writeRawTensor(tensor: Tensor): Uint8Array {
  if (ArrayBuffer.isView(tensor.data)) return bytesOf(tensor);
  const texts = tensor.data.map((text) => new TextEncoder().encode(text));
  const result = new Uint8Array(texts.reduce((sum, text) => sum + LENGTH_BYTES + text.length, 0));
  const view = new DataView(result.buffer);
  let at = 0;
  for (const text of texts) {
    view.setUint32(at, text.length, true);
    result.set(text, at + LENGTH_BYTES);
    at += LENGTH_BYTES + text.length;
  }
  return result;
}

/**
 * An element of a BYTES tensor as text.
 * @throws PolyheadError DATA_MALFORMED when it is not UTF-8
 */
export function textOf(element: Uint8Array, what: string, limits: Limits): string {
  if (element.length > limits.stringBytes) {
    throw limitExceeded(`An element of ${what} has`, element.length, limits.stringBytes, "bytes");
  }
  try {
    return new TextDecoder("utf-8", { fatal: true, ignoreBOM: true }).decode(element);
  } catch {
    throw new PolyheadError(
      "DATA_MALFORMED",
      `${what} has an element of ${element.length} bytes that is not UTF-8; models take text only.`,
      {},
    );
  }
}

function readStrings(shape: Shape, bytes: Uint8Array, what: string, limits: Limits): string[] {
  const count = elementCount(shape);
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  const texts: string[] = [];
  let at = 0;
  while (at < bytes.length) {
    const start = at + LENGTH_BYTES;
    const end = start <= bytes.length ? start + view.getUint32(at, true) : Number.POSITIVE_INFINITY;
    if (end > bytes.length) {
      throw new PolyheadError(
        "DATA_MALFORMED",
        `${what} has raw BYTES that end within element ${texts.length}; expected four bytes of length and then as many bytes.`,
        { element: texts.length },
      );
    }
    if (texts.length === count) break;
    texts.push(textOf(bytes.subarray(start, end), what, limits));
    at = end;
  }
  if (texts.length !== count || at !== bytes.length) {
    const got = texts.length === count ? "more" : texts.length;
    throw new PolyheadError(
      "INPUT_MISMATCH",
      `${what} of shape ${formatShape(shape)} has ${got} elements of raw BYTES; expected ${count}.`,
      { shape, expected: count, got },
    );
  }
  return texts;
}
