/**
 * Safetensors files: a length, a JSON header of names, dtypes, shapes and places, then the elements. Every place is
 * proved to lie within the file, and to be as long as dtype and shape say. Nothing is copied.
 */
import { byteLength } from "../tensor/dtype.js";
import { elementCount, formatShape } from "../tensor/shape.js";
import { malformed } from "./torch/objects.js";
import { StoredTensor, torchDtype } from "./torch/tensor.js";

/** The format's own limit of the header. */
const LONGEST_HEADER = 100_000_000;

/** PyTorch's names of the format's dtypes. */
const DTYPES: Readonly<Record<string, string>> = {
  F64: "float64",
  F32: "float32",
  F16: "float16",
  BF16: "bfloat16",
  I64: "int64",
  I32: "int32",
  I16: "int16",
  I8: "int8",
  U64: "uint64",
  U32: "uint32",
  U16: "uint16",
  U8: "uint8",
  BOOL: "bool",
  C64: "complex64",
  F8_E4M3: "float8_e4m3fn",
  F8_E5M2: "float8_e5m2",
};

/** Whether bytes begin as a safetensors file does: the length of a header that fits, and an object. */
export function isSafetensors(bytes: Uint8Array): boolean {
  const length = headerLength(bytes);
  return length !== undefined && bytes[8] === 0x7b && length >= 2 && length <= LONGEST_HEADER;
}

/**
 * The tensors of a safetensors file by name, in the order of the header; they alias the file's bytes.
 * @throws PolyheadError MODEL_MALFORMED; MODEL_UNSUPPORTED for unknown dtypes
 */
export function readSafetensors(bytes: Uint8Array): Map<string, StoredTensor> {
  const length = headerLength(bytes);
  if (length === undefined || length > LONGEST_HEADER || 8 + length > bytes.length)
    throw malformed("The safetensors file is cut off or has an impossible header.", { length });
  const header = parseHeader(bytes.subarray(8, 8 + length));
  const content = bytes.subarray(8 + length);
  const tensors = new Map<string, StoredTensor>();
  for (const [name, entry] of Object.entries(header)) {
    if (name === "__metadata__") continue;
    const { dtype: code, shape, data_offsets: place } = isRecord(entry) ? entry : {};
    const known = typeof code === "string" && Object.hasOwn(DTYPES, code) ? DTYPES[code] : code;
    const dtype = torchDtype(String(known));
    if (!isSizes(shape) || !isSizes(place) || place.length !== 2)
      throw malformed(`The header of the tensor ${JSON.stringify(name)} is broken.`, { tensor: name });
    const [start = 0, end = 0] = place;
    const size = byteLength(dtype, elementCount(shape));
    if (end - start !== size || end > content.length)
      throw malformed(
        `The tensor ${JSON.stringify(name)} is ${dtype} ${formatShape(shape)}, which takes ${size} bytes; the file gives it ${start} to ${end} of ${content.length}.`,
        { tensor: name, expected: size, got: place },
      );
    const part = content.subarray(start, end);
    tensors.set(
      name,
      new StoredTensor({ kind: "Untyped", length: size, bytes: () => part }, shape, { dtype }),
    );
  }
  return tensors;
}

function headerLength(bytes: Uint8Array): number | undefined {
  if (bytes.length < 10) return undefined;
  return Number(new DataView(bytes.buffer, bytes.byteOffset, 8).getBigUint64(0, true));
}

function parseHeader(bytes: Uint8Array): Readonly<Record<string, unknown>> {
  try {
    const header: unknown = JSON.parse(new TextDecoder("utf-8", { fatal: true }).decode(bytes));
    if (isRecord(header)) return header;
  } catch {
    // Said below.
  }
  throw malformed("The header of the safetensors file is not a JSON object.");
}

function isRecord(value: unknown): value is Readonly<Record<string, unknown>> {
  return typeof value === "object" && value !== null && !Array.isArray(value);
}

function isSizes(value: unknown): value is number[] {
  return Array.isArray(value) && value.every((each) => Number.isSafeInteger(each) && each >= 0);
}
