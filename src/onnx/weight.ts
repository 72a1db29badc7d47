/**
 * Constants of a model: the file's TensorProto to and from tensors. ONNX has two ways to store elements, raw
 * little-endian bytes and typed lists; both give the same bytes here, which is what identity is made from.
 */
import { create } from "@bufbuild/protobuf";
import { PolyheadError } from "../base/errors.js";
import { byteLength, DTYPES, type DType } from "../tensor/dtype.js";
import { elementCount, formatShape, type Shape } from "../tensor/shape.js";
import { bytesOf, fromBytes, type Tensor } from "../tensor/tensor.js";
import { TensorProto_DataType as Code, type TensorProto, TensorProtoSchema } from "./generated/onnx_pb.js";

const CODES: Readonly<Record<DType, Code>> = {
  float32: Code.FLOAT,
  uint8: Code.UINT8,
  int8: Code.INT8,
  uint16: Code.UINT16,
  int16: Code.INT16,
  int32: Code.INT32,
  int64: Code.INT64,
  string: Code.STRING,
  bool: Code.BOOL,
  float16: Code.FLOAT16,
  float64: Code.DOUBLE,
  uint32: Code.UINT32,
  uint64: Code.UINT64,
  complex64: Code.COMPLEX64,
  complex128: Code.COMPLEX128,
  bfloat16: Code.BFLOAT16,
  float8e4m3fn: Code.FLOAT8E4M3FN,
  float8e4m3fnuz: Code.FLOAT8E4M3FNUZ,
  float8e5m2: Code.FLOAT8E5M2,
  float8e5m2fnuz: Code.FLOAT8E5M2FNUZ,
  uint4: Code.UINT4,
  int4: Code.INT4,
  float4e2m1: Code.FLOAT4E2M1,
  float8e8m0: Code.FLOAT8E8M0,
  uint2: Code.UINT2,
  int2: Code.INT2,
};
const DTYPE_OF_CODE = new Map(Object.entries(CODES).map(([dtype, code]) => [code as number, dtype as DType]));

/** No runtime takes tensors of more dimensions. */
const MAX_RANK = 64;

/** ONNX's number of an element type. */
export function dtypeCode(dtype: DType): number {
  return CODES[dtype];
}

/** The element type of an ONNX number; undefined when there is none. */
export function dtypeOfCode(code: number): DType | undefined {
  return DTYPE_OF_CODE.get(code);
}

/**
 * The element type of a weight.
 * @throws PolyheadError MODEL_MALFORMED for a number that ONNX does not define
 */
export function weightDtype(of: TensorProto): DType {
  const dtype = dtypeOfCode(of.dataType);
  if (dtype) return dtype;
  throw new PolyheadError(
    "MODEL_MALFORMED",
    `Weight ${JSON.stringify(of.name)} has the unknown dtype number ${of.dataType}.`,
    {
      weight: of.name,
      dtype: of.dataType,
    },
  );
}

/**
 * The shape of a weight.
 * @throws PolyheadError MODEL_MALFORMED for negative or absurd dimensions
 */
export function weightShape(of: TensorProto): Shape {
  if (of.dims.length > MAX_RANK) {
    throw new PolyheadError(
      "MODEL_MALFORMED",
      `Weight ${JSON.stringify(of.name)} has ${of.dims.length} dimensions; expected at most ${MAX_RANK}.`,
      { weight: of.name, rank: of.dims.length },
    );
  }
  const shape = of.dims.map(Number);
  if (shape.some((size) => size < 0) || elementCount(shape) > Number.MAX_SAFE_INTEGER / 16) {
    throw new PolyheadError(
      "MODEL_MALFORMED",
      `Weight ${JSON.stringify(of.name)} has the impossible shape ${formatShape(shape)}.`,
      {
        weight: of.name,
        shape,
      },
    );
  }
  return shape;
}

/**
 * A weight's elements as little-endian bytes; an alias of the model's memory where it is stored raw. Strings
 * give their lengths and UTF-8 bytes.
 * @throws PolyheadError MODEL_MALFORMED when the number of bytes does not fit dtype and shape
 */
export function weightBytes(of: TensorProto): Uint8Array {
  const dtype = weightDtype(of);
  const count = elementCount(weightShape(of));
  const bytes = of.rawData.length > 0 ? of.rawData : typedListBytes(of, dtype);
  const fits =
    dtype === "string" ? of.stringData.length === count : bytes.length === byteLength(dtype, count);
  if (!fits) {
    throw new PolyheadError(
      "MODEL_MALFORMED",
      `Weight ${JSON.stringify(of.name)} is ${dtype} ${formatShape(of.dims.map(Number))}, which takes ${byteLength(dtype, count)} bytes; the file has ${bytes.length}.`,
      { weight: of.name, expected: byteLength(dtype, count), got: bytes.length },
    );
  }
  return bytes;
}

/** A weight as a tensor, sharing the model's memory where alignment allows. */
export function weightTensor(of: TensorProto): Tensor {
  const dtype = weightDtype(of);
  const bytes = weightBytes(of);
  const shape = weightShape(of);
  if (dtype === "string") {
    return { dtype, shape, data: of.stringData.map((text) => new TextDecoder().decode(text)) };
  }
  return fromBytes(dtype, shape, bytes);
}

/** A weight from a tensor, sharing its memory. */
export function weight(name: string, value: Tensor): TensorProto {
  const made = create(TensorProtoSchema, {
    name,
    dims: value.shape.map(BigInt),
    dataType: dtypeCode(value.dtype),
  });
  if (ArrayBuffer.isView(value.data)) made.rawData = bytesOf(value);
  else made.stringData = value.data.map((text) => new TextEncoder().encode(text));
  return made;
}

function typedListBytes(of: TensorProto, dtype: DType): Uint8Array {
  switch (dtype) {
    case "float32":
    case "complex64":
      return viewBytes(Float32Array.from(of.floatData));
    case "float64":
    case "complex128":
      return viewBytes(Float64Array.from(of.doubleData));
    case "int64":
      return viewBytes(BigInt64Array.from(of.int64Data));
    case "uint64":
      return viewBytes(BigUint64Array.from(of.uint64Data));
    case "uint32":
      return viewBytes(Uint32Array.from(of.uint64Data, Number));
    case "string":
      return stringBytes(of.stringData);
    default:
      return viewBytes(DTYPES[dtype].array.from(of.int32Data as never) as ArrayBufferView);
  }
}

function viewBytes(view: ArrayBufferView): Uint8Array {
  return new Uint8Array(view.buffer, view.byteOffset, view.byteLength);
}

function stringBytes(strings: readonly Uint8Array[]): Uint8Array {
  const out = new Uint8Array(strings.reduce((sum, text) => sum + 4 + text.length, 0));
  let at = 0;
  for (const text of strings) {
    new DataView(out.buffer).setUint32(at, text.length, true);
    out.set(text, at + 4);
    at += 4 + text.length;
  }
  return out;
}
