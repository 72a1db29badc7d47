/**
 * The Open Inference Protocol's names for element types, and what they are here. ONNX has types that the protocol
 * has not (complex, 8-bit floats, types narrower than a byte): models that take or make them cannot be described
 * to its clients.
 */
import { PolyheadError } from "../../base/errors.js";
import { DTYPES, type DType } from "../../tensor/dtype.js";
import type { SymbolicShape } from "../../tensor/shape.js";
import { shown } from "./shown.js";

const DTYPE_OF_DATATYPE = {
  BOOL: "bool",
  UINT8: "uint8",
  UINT16: "uint16",
  UINT32: "uint32",
  UINT64: "uint64",
  INT8: "int8",
  INT16: "int16",
  INT32: "int32",
  INT64: "int64",
  FP16: "float16",
  FP32: "float32",
  FP64: "float64",
  BYTES: "string",
  BF16: "bfloat16",
} as const satisfies Record<string, DType>;

/** The protocol's name of an element type. */
export type Datatype = keyof typeof DTYPE_OF_DATATYPE;

/** Every name, in the order of the specification. */
export const DATATYPES: readonly Datatype[] = Object.keys(DTYPE_OF_DATATYPE).filter(isDatatype);

const DATATYPE_OF_DTYPE: ReadonlyMap<DType, Datatype> = new Map(
  DATATYPES.map((datatype) => [DTYPE_OF_DATATYPE[datatype], datatype]),
);

/** Whether the protocol has this name. */
export function isDatatype(name: string): name is Datatype {
  return Object.hasOwn(DTYPE_OF_DATATYPE, name);
}

/**
 * The element type that a client named.
 * @param what names the tensor in the message
 * @throws PolyheadError INVALID_ARGUMENT
 */
export function dtypeOf(datatype: unknown, what: string): DType {
  if (typeof datatype !== "string" || !isDatatype(datatype)) {
    throw new PolyheadError(
      "INVALID_ARGUMENT",
      `${what} has the datatype ${shown(datatype)}; expected one of ${DATATYPES.join(", ")}.`,
      { expected: DATATYPES },
    );
  }
  return DTYPE_OF_DATATYPE[datatype];
}

/**
 * The protocol's name for an element type.
 * @throws PolyheadError MODEL_UNSUPPORTED for a type that the protocol has not
 */
export function datatypeOf(dtype: DType): Datatype {
  const datatype = DATATYPE_OF_DTYPE.get(dtype);
  if (datatype === undefined) {
    throw new PolyheadError(
      "MODEL_UNSUPPORTED",
      `The Open Inference Protocol has no datatype for ${dtype}; it has ${DATATYPES.join(", ")}.`,
      { dtype },
    );
  }
  return datatype;
}

/** Bytes of one element as raw content; undefined for BYTES, whose elements carry their lengths. */
export function elementSize(dtype: DType): number | undefined {
  return dtype === "string" ? undefined : DTYPES[dtype].bits / 8;
}

/** A shape as the protocol's metadata has it: -1 for what is open. */
export function metadataShape(shape: SymbolicShape): number[] {
  return shape.map((dimension) => (typeof dimension === "number" ? dimension : -1));
}
