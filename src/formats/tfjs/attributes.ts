/**
 * The attributes of a TensorFlow node as protobuf's JSON writes them: `{"i": "1"}`, `{"s": "<base64>"}`,
 * `{"list": {"i": [...]}}`, zero values left out. Dtypes are read as TF.js reads them, which computes
 * in float32, int32, bool and string only.
 */
import type { DType } from "../../tensor/dtype.js";
import {
  asList,
  asNumber,
  asRecord,
  asText,
  asWholeNumber,
  isRecord,
  type JsonRecord,
  malformed,
} from "./json.js";

/** No TF.js tensor has more axes than six; some room for what others write. */
export const HIGHEST_RANK = 8;

/** The dtypes that TF.js computes in and that ONNX has as well. */
export type TfjsDType = Extract<DType, "float32" | "int32" | "bool" | "string">;

const DTYPES: Readonly<Record<string, TfjsDType>> = {
  DT_FLOAT: "float32",
  DT_HALF: "float32",
  DT_DOUBLE: "float32",
  DT_INT32: "int32",
  DT_INT64: "int32",
  DT_INT8: "int32",
  DT_UINT8: "int32",
  DT_BOOL: "bool",
  DT_STRING: "string",
};

/** Numbers of TensorFlow's DataType enumeration, which some writers use in place of the names. */
const DTYPE_NAMES: Readonly<Record<number, string>> = {
  1: "DT_FLOAT",
  2: "DT_DOUBLE",
  3: "DT_INT32",
  4: "DT_UINT8",
  6: "DT_INT8",
  7: "DT_STRING",
  9: "DT_INT64",
  10: "DT_BOOL",
  19: "DT_HALF",
};

/** The dtype TF.js computes a TensorFlow type in; undefined when it has none. */
export function tfjsDType(type: unknown): TfjsDType | undefined {
  const name = typeof type === "number" ? DTYPE_NAMES[type] : type;
  return typeof name === "string" && Object.hasOwn(DTYPES, name) ? DTYPES[name] : undefined;
}

/**
 * Sizes of a TensorShapeProto, -1 where unknown; undefined when the rank is unknown.
 * @throws PolyheadError MODEL_MALFORMED for sizes that no tensor can have
 */
export function shapeProto(value: unknown, what: string): number[] | undefined {
  const shape = asRecord(value, what);
  if (shape.unknownRank === true || shape.unknown_rank === true) return undefined;
  const dimensions = asList(shape.dim ?? [], what);
  if (dimensions.length > HIGHEST_RANK) throw malformed(`${what} has ${dimensions.length} axes.`, { what });
  return dimensions.map((dimension) => {
    const size = asWholeNumber(asRecord(dimension, what).size ?? 0, what);
    if (size >= -1 && size < 2 ** 31) return size;
    throw malformed(`${what} has the impossible dimension ${size}; expected -1 or a size below 2^31.`, {
      what,
      size,
    });
  });
}

/** Attributes of one node, read on demand. All methods throw MODEL_MALFORMED for values of a wrong type. */
export class Attributes {
  readonly #owner: string;
  readonly #raw: JsonRecord;

  /** @param owner the node, for error messages */
  constructor(owner: string, raw: JsonRecord) {
    this.#owner = owner;
    this.#raw = raw;
  }

  /** Whether the node states the attribute. */
  has(name: string): boolean {
    return Object.hasOwn(this.#raw, name);
  }

  /** A whole number. */
  int(name: string, fallback: number): number {
    const value = this.#field(name, "i");
    return value === undefined ? fallback : asWholeNumber(value, this.#what(name));
  }

  /** A real number. */
  float(name: string, fallback: number): number {
    const value = this.#field(name, "f") ?? this.#field(name, "i");
    return value === undefined ? fallback : asNumber(value, this.#what(name));
  }

  /** A truth value. */
  bool(name: string, fallback = false): boolean {
    if (!this.has(name)) return fallback;
    return this.#field(name, "b") === true;
  }

  /** A text, whether in base64 or as a list of character codes. */
  text(name: string, fallback: string): string {
    const value = this.#field(name, "s");
    return value === undefined ? fallback : decodeText(value, this.#what(name));
  }

  /** A list of whole numbers; undefined when it is not stated or empty. */
  ints(name: string): number[] | undefined {
    const values = this.#list(name, "i").map((item) => asWholeNumber(item, this.#what(name)));
    return values.length > 0 ? values : undefined;
  }

  /** A list of texts, empty when it is not stated. */
  texts(name: string): string[] {
    return this.#list(name, "s").map((item) => decodeText(item, this.#what(name)));
  }

  /** A dtype as TF.js computes it; undefined when it is not stated or TF.js has none. */
  dtype(name: string): TfjsDType | undefined {
    return tfjsDType(this.#field(name, "type"));
  }

  /** A shape with -1 for unknown sizes; undefined when it is not stated or its rank is unknown. */
  shape(name: string): number[] | undefined {
    const value = this.#field(name, "shape");
    return value === undefined ? undefined : shapeProto(value, this.#what(name));
  }

  #field(name: string, kind: string): unknown {
    if (!this.has(name)) return undefined;
    return asRecord(this.#raw[name], this.#what(name))[kind] ?? undefined;
  }

  #list(name: string, kind: string): readonly unknown[] {
    const list = this.#field(name, "list");
    return isRecord(list) ? asList(list[kind] ?? [], this.#what(name)) : [];
  }

  #what(name: string): string {
    return `Attribute ${JSON.stringify(name)} of node ${JSON.stringify(this.#owner)}`;
  }
}

function decodeText(value: unknown, what: string): string {
  if (Array.isArray(value)) return String.fromCharCode(...value.map((code) => asWholeNumber(code, what)));
  try {
    return atob(asText(value, what));
  } catch (cause) {
    throw malformed(`${what} is not base64: ${String(cause)}`, { what });
  }
}
