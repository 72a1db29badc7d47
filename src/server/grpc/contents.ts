/**
 * Typed tensor contents: one list of protobuf numbers for each kind of element. FP16 and BF16 have none and go raw.
 */
import type { MessageInitShape } from "@bufbuild/protobuf";
import { PolyheadError } from "../../base/errors.js";
import type { DType } from "../../tensor/dtype.js";
import { DTYPES } from "../../tensor/dtype.js";
import { elementCount, formatShape, type Shape } from "../../tensor/shape.js";
import type { Tensor } from "../../tensor/tensor.js";
import { datatypeOf } from "../protocol/datatypes.js";
import type { Limits } from "../protocol/limits.js";
import { textOf } from "../protocol/raw-tensor.js";
import type { InferTensorContents, InferTensorContentsSchema } from "./generated/inference_pb.js";

type Lists = Omit<InferTensorContents, "$typeName" | "$unknown">;
type ListName = keyof Lists;

const LIST_OF_DTYPE: Partial<Record<DType, ListName>> = {
  bool: "boolContents",
  int8: "intContents",
  int16: "intContents",
  int32: "intContents",
  int64: "int64Contents",
  uint8: "uintContents",
  uint16: "uintContents",
  uint32: "uintContents",
  uint64: "uint64Contents",
  float32: "fp32Contents",
  float64: "fp64Contents",
  string: "bytesContents",
};
const LISTS: readonly ListName[] = [...new Set(Object.values(LIST_OF_DTYPE))];

/** Whether anything stands in the contents. */
export function hasContents(contents: InferTensorContents | undefined): boolean {
  return contents !== undefined && LISTS.some((list) => contents[list].length > 0);
}

/** Whether tensors of this type have typed contents. */
export function isTyped(dtype: DType): boolean {
  return LIST_OF_DTYPE[dtype] !== undefined;
}

/**
 * The tensor in typed contents.
 * @param shape checked before
 * @param what names the tensor in messages: `Input "x"`
 * @throws PolyheadError INPUT_MISMATCH when the list or its length is not the tensor's, INVALID_ARGUMENT,
 * DATA_MALFORMED, LIMIT_EXCEEDED
 */
export function readContents(
  dtype: DType,
  shape: Shape,
  contents: InferTensorContents | undefined,
  what: string,
  limits: Limits,
): Tensor {
  const list = LIST_OF_DTYPE[dtype];
  const count = elementCount(shape);
  const other = contents && LISTS.find((name) => name !== list && contents[name].length > 0);
  if (list === undefined || other !== undefined) {
    const expected = list === undefined ? "raw_input_contents" : fieldName(list);
    throw new PolyheadError(
      "INPUT_MISMATCH",
      `${what} of ${datatypeOf(dtype)} has ${other === undefined ? "no raw contents" : `values in ${fieldName(other)}`}; expected ${expected}.`,
      { dtype, expected },
    );
  }
  const got = contents?.[list].length ?? 0;
  if (got !== count) {
    throw new PolyheadError(
      "INPUT_MISMATCH",
      `${what} of shape ${formatShape(shape)} has ${got} elements in ${fieldName(list)}; expected ${count}.`,
      { dtype, shape, expected: count, got },
    );
  }
  return { dtype, shape, data: dataOf(dtype, contents, what, limits) };
}

function dataOf(
  dtype: DType,
  contents: InferTensorContents | undefined,
  what: string,
  limits: Limits,
): Tensor["data"] {
  switch (dtype) {
    case "string":
      return (contents?.bytesContents ?? []).map((element) => textOf(element, what, limits));
    case "bool":
      return Uint8Array.from(contents?.boolContents ?? [], Number);
    case "int64":
      return BigInt64Array.from(contents?.int64Contents ?? []);
    case "uint64":
      return BigUint64Array.from(contents?.uint64Contents ?? []);
    case "float32":
      return Float32Array.from(contents?.fp32Contents ?? []);
    case "float64":
      return Float64Array.from(contents?.fp64Contents ?? []);
    case "int8":
    case "int16":
    case "int32":
      return wholeNumbers(dtype, contents?.intContents ?? [], what);
    default:
      return wholeNumbers(dtype, contents?.uintContents ?? [], what);
  }
}

/** The lists are 32 bits wide, whatever the element type. */
function wholeNumbers(dtype: DType, values: readonly number[], what: string): Tensor["data"] {
  const data = new DTYPES[dtype].array(values.length);
  for (const [index, value] of values.entries()) {
    data[index] = value;
    if (data[index] !== value) {
      throw new PolyheadError(
        "INVALID_ARGUMENT",
        `${what} of ${datatypeOf(dtype)} has the value ${value}, which is out of its range.`,
        { dtype, got: value },
      );
    }
  }
  return data;
}

/** The typed contents of a tensor whose type has them. */
export function writeContents({ dtype, data }: Tensor): MessageInitShape<typeof InferTensorContentsSchema> {
  if (!ArrayBuffer.isView(data)) return { bytesContents: data.map((text) => new TextEncoder().encode(text)) };
  if (data instanceof BigInt64Array) return { int64Contents: [...data] };
  if (data instanceof BigUint64Array) return { uint64Contents: [...data] };
  const numbers = Array.from(data);
  switch (dtype) {
    case "bool":
      return { boolContents: numbers.map((value) => value !== 0) };
    case "float32":
      return { fp32Contents: numbers };
    case "float64":
      return { fp64Contents: numbers };
    case "int8":
    case "int16":
    case "int32":
      return { intContents: numbers };
    default:
      return { uintContents: numbers };
  }
}

/** The field as the protocol's files write it. */
function fieldName(list: ListName): string {
  return list.replace("Contents", "_contents");
}
