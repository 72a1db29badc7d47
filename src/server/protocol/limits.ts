/** What a client may send at most: one record for all protocols. */
import { PolyheadError } from "../../base/errors.js";

/** Bounds on requests; every one is an inclusive most. */
export interface Limits {
  /** Bytes of an inference request, also after its compression is undone. */
  readonly bodyBytes: number;
  /** Bytes of a model file. */
  readonly uploadBytes: number;
  /** Bytes of a control request. */
  readonly controlBytes: number;
  /** Bytes of all HTTP headers, or of gRPC metadata. */
  readonly headerBytes: number;
  /** Elements of one tensor, and of all tensors of one request. */
  readonly tensorElements: number;
  /** Bytes of one element of a BYTES tensor. */
  readonly stringBytes: number;
  /** Dimensions of a tensor. */
  readonly dimensions: number;
  /** Inputs, outputs, parameters or routes of a request, and routes of one switch. */
  readonly entries: number;
  /** UTF-16 units of a name, an id, an author or a reason. */
  readonly nameLength: number;
  /** Pixels of an image. */
  readonly imagePixels: number;
  /** Milliseconds that a client may wait for an answer. */
  readonly timeout: number;
}

/** Limits that suit images of some megapixels and heads of some hundred megabytes. */
export const DEFAULT_LIMITS: Limits = {
  bodyBytes: 64 * 2 ** 20,
  uploadBytes: 2 ** 30,
  controlBytes: 2 ** 20,
  headerBytes: 16 * 2 ** 10,
  tensorElements: 2 ** 24,
  stringBytes: 2 ** 24,
  dimensions: 16,
  entries: 256,
  nameLength: 256,
  imagePixels: 50_000_000,
  timeout: 600_000,
};

/**
 * The error for what is larger than a limit.
 * @param what is too large, as the beginning of a sentence: `The body has`
 * @param unit of both numbers
 */
export function limitExceeded(
  what: string,
  got: number | string,
  limit: number,
  unit: string,
): PolyheadError {
  return new PolyheadError("LIMIT_EXCEEDED", `${what} ${got} ${unit}; the limit is ${limit}.`, {
    got,
    limit,
  });
}
