/**
 * NumPy's array file, versions 1 to 3 (numpy.lib.format). Reads every element type that NumPy shares with
 * ONNX, in either byte order and either memory order; writes what NumPy itself would write, byte for byte.
 * Refused: Python objects, records, dates, long doubles, and on writing the types NumPy lacks (bfloat16,
 * float8, 4-bit and 2-bit types). Sizes are checked against the bytes at hand before anything is allocated.
 */
import { PolyheadError } from "../base/errors.js";
import { byteLength, DTYPES, type DType } from "./dtype.js";
import { elementCount, formatShape, type Shape } from "./shape.js";
import { bytesOf, fromBytes, type Tensor } from "./tensor.js";

/** NumPy's type codes: kind and bytes of one element. */
const TYPE_CODES = {
  f2: "float16",
  f4: "float32",
  f8: "float64",
  i1: "int8",
  i2: "int16",
  i4: "int32",
  i8: "int64",
  u1: "uint8",
  u2: "uint16",
  u4: "uint32",
  u8: "uint64",
  b1: "bool",
  c8: "complex64",
  c16: "complex128",
} as const satisfies Record<string, DType>;

const CODE_OF_DTYPE: ReadonlyMap<DType, string> = new Map(
  Object.entries(TYPE_CODES).map(([code, dtype]) => [dtype, code]),
);

const MAGIC = "\x93NUMPY";
const MAX_DIMENSIONS = 64;
/** NumPy aligns the elements to this many bytes and leaves room for a first dimension of 21 digits. */
const ALIGNMENT = 64;
const GROWTH_DIGITS = 21;

/** What the header of a file says. */
interface Header {
  readonly bigEndian: boolean;
  /** `f4`, `U10`, ... */
  readonly code: string;
  readonly fortran: boolean;
  readonly shape: Shape;
  /** Where the elements begin, in bytes. */
  readonly offset: number;
}

/**
 * The array in the bytes of a `.npy` file. Aligned little-endian row-major elements are used in place and
 * keep `bytes` alive; others are copied. Text (`U`, `S`) becomes dtype `string` without trailing NULs.
 * @throws PolyheadError DATA_MALFORMED
 */
export function readNpy(bytes: Uint8Array): Tensor {
  const header = readHeader(bytes);
  const { code, shape } = header;
  const text = /^([US])([1-9]\d{0,8})$/.exec(code);
  if (text) {
    const isUnicode = text[1] === "U";
    const width = Number(text[2]) * (isUnicode ? 4 : 1);
    const elements = ordered(header, elementBytes(bytes, header, width), width, isUnicode ? 4 : 1);
    const decode = isUnicode ? decodeUtf32 : decodeUtf8;
    const data = Array.from({ length: elementCount(shape) }, (_, index) =>
      decode(elements.subarray(index * width, (index + 1) * width)),
    );
    return { dtype: "string", shape, data };
  }
  const dtype = Object.hasOwn(TYPE_CODES, code) ? TYPE_CODES[code as keyof typeof TYPE_CODES] : undefined;
  if (!dtype) {
    throw malformed(`its type is ${JSON.stringify(code)}; expected a number, bool or text type`, {
      type: code,
    });
  }
  const width = byteLength(dtype, 1);
  const elements = elementBytes(bytes, header, width);
  return fromBytes(dtype, shape, ordered(header, elements, width, DTYPES[dtype].array.BYTES_PER_ELEMENT));
}

/**
 * The bytes of a `.npy` file with this tensor: little-endian, row-major. Strings become `<U` as wide as the
 * longest; NULs at the end of a string are lost, as in NumPy.
 * @throws PolyheadError INVALID_ARGUMENT for a dtype that NumPy has not
 */
export function writeNpy(value: Tensor): Uint8Array {
  if (value.dtype === "string") {
    const strings = (value.data as readonly string[]).map((item) => Array.from(item, codePoint));
    const length = strings.reduce((longest, item) => Math.max(longest, item.length), 1);
    const points = new Uint32Array(length * strings.length);
    strings.forEach((item, index) => {
      points.set(item, index * length);
    });
    return assemble(`<U${length}`, value.shape, new Uint8Array(points.buffer));
  }
  const code = CODE_OF_DTYPE.get(value.dtype);
  if (!code) {
    throw new PolyheadError(
      "INVALID_ARGUMENT",
      `NumPy has no ${value.dtype}; cast the tensor to one of ${[...CODE_OF_DTYPE.keys()].join(", ")} first.`,
      { dtype: value.dtype, expected: [...CODE_OF_DTYPE.keys()] },
    );
  }
  const order = byteLength(value.dtype, 1) === 1 ? "|" : "<";
  return assemble(order + code, value.shape, bytesOf(value));
}

function assemble(descr: string, shape: Shape, elements: Uint8Array): Uint8Array {
  const tuple = shape.length === 1 ? `(${shape[0]},)` : `(${shape.join(", ")})`;
  const growth = shape.length > 0 ? " ".repeat(GROWTH_DIGITS - String(shape[0]).length) : "";
  const dictionary = `{'descr': '${descr}', 'fortran_order': False, 'shape': ${tuple}, }${growth}`;
  // At most 64 dimensions of 21 digits: always within the 64 KiB of version 1.
  const prefix = MAGIC.length + 2 + 2;
  const offset = Math.ceil((prefix + dictionary.length + 1) / ALIGNMENT) * ALIGNMENT;
  const length = offset - prefix;
  const header = `${MAGIC}\x01\x00${String.fromCharCode(length & 0xff, length >> 8)}${dictionary.padEnd(length - 1)}\n`;
  const file = new Uint8Array(offset + elements.length);
  for (let index = 0; index < offset; index++) file[index] = header.charCodeAt(index);
  file.set(elements, offset);
  return file;
}

function readHeader(bytes: Uint8Array): Header {
  const latin1 = (from: number, to: number) => String.fromCharCode(...bytes.subarray(from, to));
  if (latin1(0, MAGIC.length) !== MAGIC) throw malformed("it does not begin with \\x93NUMPY");
  const version = bytes[6] ?? 0;
  if (version < 1 || version > 3)
    throw malformed(`its version is ${version}; expected 1, 2 or 3`, { version });
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  const start = version === 1 ? 10 : 12;
  if (bytes.length < start) throw malformed("it ends within its header");
  const length = version === 1 ? view.getUint16(8, true) : view.getUint32(8, true);
  const offset = start + length;
  if (offset > bytes.length) throw malformed("it ends within its header");
  // NumPy, too, refuses headers that are longer than any honest one.
  if (length > 0xffff) throw malformed(`its header has ${length} bytes; expected at most 65535`, { length });
  const text = latin1(start, offset);
  const type = /'descr'\s*:\s*'([<>|=]?)([A-Za-z]\d*)'/.exec(text);
  const order = /'fortran_order'\s*:\s*(True|False)\b/.exec(text);
  const tuple = /'shape'\s*:\s*\(([\d\sL,]*)\)/.exec(text);
  if (!type || !order || !tuple) {
    throw malformed(
      `its header is ${JSON.stringify(text.slice(0, 200).trim())}; expected descr, fortran_order and shape`,
    );
  }
  return {
    bigEndian: type[1] === ">",
    code: type[2] ?? "",
    fortran: order[1] === "True",
    shape: parseShape(tuple[1] ?? ""),
    offset,
  };
}

/** The shape in `2, 3` or `2,`; Python 2 wrote `2L`. */
function parseShape(text: string): Shape {
  const parts = text.split(",").map((part) => part.trim());
  if (parts.at(-1) === "") parts.pop();
  const shape = parts.map((part) => (/^\d+L?$/.test(part) ? Number.parseInt(part, 10) : Number.NaN));
  if (shape.length > MAX_DIMENSIONS || !shape.every(Number.isSafeInteger)) {
    throw malformed(`its shape is (${text.slice(0, 200)}); expected at most ${MAX_DIMENSIONS} whole numbers`);
  }
  return shape;
}

/** The part of the file with the elements, after a check that it has the size that the header promises. */
function elementBytes(bytes: Uint8Array, { shape, offset }: Header, width: number): Uint8Array {
  const expected = elementCount(shape) * width;
  const got = bytes.length - offset;
  if (got !== expected) {
    throw malformed(
      `a shape of ${formatShape(shape)} needs ${expected} bytes of elements and it has ${got}`,
      {
        shape,
        expected,
        got,
      },
    );
  }
  // A plain view: `slice` of a Node Buffer would not copy.
  return new Uint8Array(bytes.buffer, bytes.byteOffset + offset, got);
}

/** The elements in row-major order and little-endian; `part` is the width of what the byte order applies to. */
function ordered(header: Header, elements: Uint8Array, width: number, part: number): Uint8Array {
  const { shape } = header;
  const copied = header.fortran && shape.length > 1 ? fromFortran(elements, shape, width) : elements;
  if (!header.bigEndian || part === 1) return copied;
  const swapped = copied === elements ? elements.slice() : copied;
  for (let start = 0; start < swapped.length; start += part) swapped.subarray(start, start + part).reverse();
  return swapped;
}

/** Elements of `width` bytes, first dimension fastest, as row-major ones. */
function fromFortran(source: Uint8Array, shape: Shape, width: number): Uint8Array {
  const strides: number[] = [];
  let stride = width;
  for (const dimension of shape) {
    strides.push(stride);
    stride *= dimension;
  }
  const result = new Uint8Array(source.length);
  const index = shape.map(() => 0);
  let from = 0;
  for (let to = 0; to < result.length; to += width) {
    for (let byte = 0; byte < width; byte++) result[to + byte] = source[from + byte] ?? 0;
    for (let axis = shape.length - 1; axis >= 0; axis--) {
      const next = (index[axis] ?? 0) + 1;
      from += strides[axis] ?? 0;
      index[axis] = next;
      if (next < (shape[axis] ?? 0)) break;
      from -= next * (strides[axis] ?? 0);
      index[axis] = 0;
    }
  }
  return result;
}

function codePoint(character: string): number {
  return character.codePointAt(0) ?? 0;
}

function decodeUtf32(bytes: Uint8Array): string {
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  let length = bytes.length / 4;
  while (length > 0 && view.getUint32(4 * (length - 1), true) === 0) length--;
  let text = "";
  for (let index = 0; index < length; index++) {
    const point = view.getUint32(4 * index, true);
    if (point > 0x10ffff) throw malformed(`its text has ${point}, which is no Unicode character`, { point });
    text += String.fromCodePoint(point);
  }
  return text;
}

function decodeUtf8(bytes: Uint8Array): string {
  let length = bytes.length;
  while (length > 0 && bytes[length - 1] === 0) length--;
  return new TextDecoder("utf-8", { ignoreBOM: true }).decode(bytes.subarray(0, length));
}

function malformed(reason: string, details: Readonly<Record<string, unknown>> = {}): PolyheadError {
  return new PolyheadError(
    "DATA_MALFORMED",
    `This is not a NumPy array (.npy) that can be read: ${reason}.`,
    details,
  );
}
