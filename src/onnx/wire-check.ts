/**
 * A look at the wire structure of a file, or of another protobuf message of a stranger, before it is decoded. Two
 * bytes can become an object of some hundred bytes, so that a small message can fill the memory; here the memory is
 * estimated from the structure alone, without making anything. Weights stored raw cost nothing, because they stay
 * where they are. The walk also refuses what protobuf readers disagree about: lengths that leave their message, wire
 * types that are not the field's.
 */
import { type DescField, type DescMessage, ScalarType } from "@bufbuild/protobuf";
import { type ErrorCode, PolyheadError } from "../base/errors.js";
import { ModelProtoSchema } from "./generated/onnx_pb.js";

/** What is expected of some bytes, and how to speak of them. */
export interface WireExpectation {
  readonly schema: DescMessage;
  /** Memory that the decoded structure may take, in bytes, raw contents not counted. */
  readonly structureBytes: number;
  /** The failure of broken bytes, and what it says first. */
  readonly code: ErrorCode;
  readonly broken: string;
  /** What is too large, as the beginning of a sentence: `The model's`; and what to do about it. */
  readonly owner: string;
  readonly advice: string;
}

const MODEL_FILE: WireExpectation = {
  schema: ModelProtoSchema,
  structureBytes: 384 * 2 ** 20,
  code: "MODEL_MALFORMED",
  broken: "This is not an ONNX file, or it is damaged",
  owner: "The model's",
  advice: "Store weights as raw data, or as external data.",
};

/** How deep messages may be nested; a subgraph is three deep. */
const MAX_DEPTH = 96;

/** Measured on V8: what things take in memory beside their bytes in the file. */
const COST = { object: 64, field: 8, list: 32, view: 110, text: 24, number: 28, bigint: 40, unknown: 160 };

/** Protobuf's wire types; the two of groups are not used by ONNX. */
const WIRE = { varint: 0, fixed64: 1, delimited: 2, fixed32: 5 };

interface Field {
  /** How one value of it is written. */
  readonly wire: number;
  /** Whether values may be packed into one delimited field. */
  readonly packs: boolean;
  /** What one value costs, beside its text. */
  readonly cost: number;
  readonly isText: boolean;
  /** The fields of the message that it is. */
  readonly message?: () => Fields;
}
type Fields = ReadonlyMap<number, Field>;

/**
 * Refuses bytes whose structure is broken, or too large to be held in memory; bytes of an ONNX file, if nothing
 * else is expected.
 * @throws PolyheadError the expectation's code (MODEL_MALFORMED for a file), LIMIT_EXCEEDED
 */
export function checkWire(bytes: Uint8Array, expected: WireExpectation = MODEL_FILE): void {
  new Walk(bytes, expected).message(bytes.length, fieldsOf(expected.schema), 0);
}

class Walk {
  readonly #bytes: Uint8Array;
  readonly #expected: WireExpectation;
  #at = 0;
  #spent = 0;

  constructor(bytes: Uint8Array, expected: WireExpectation) {
    this.#bytes = bytes;
    this.#expected = expected;
  }

  message(end: number, fields: Fields, depth: number): void {
    if (depth > MAX_DEPTH) {
      throw new PolyheadError(
        "LIMIT_EXCEEDED",
        `${this.#expected.owner} parts are nested deeper than ${MAX_DEPTH} levels; flatten its subgraphs.`,
        { limit: MAX_DEPTH },
      );
    }
    while (this.#at < end) {
      const tag = this.#varint(end);
      if (tag > 0xffffffff) throw this.#broken("a field has an impossible number");
      const field = fields.get(tag >>> 3);
      const wire = tag & 7;
      if (tag >>> 3 === 0) throw this.#broken("a field has the number 0");
      if (field && wire !== field.wire && !(field.packs && wire === WIRE.delimited))
        throw this.#broken(`field ${tag >>> 3} has the wire type ${wire}`);
      if (wire === WIRE.delimited) this.#delimited(end, field, depth);
      else {
        this.#spend(field?.cost ?? COST.unknown);
        if (wire === WIRE.varint) this.#varint(end);
        else if (wire === WIRE.fixed64) this.#skip(8, end);
        else if (wire === WIRE.fixed32) this.#skip(4, end);
        else throw this.#broken(`a field has the wire type ${wire}`);
      }
    }
  }

  #delimited(end: number, field: Field | undefined, depth: number): void {
    const length = this.#varint(end);
    if (this.#at + length > end) throw this.#broken(`a field says it has ${length} bytes`);
    if (field?.message) {
      this.#spend(field.cost);
      this.message(this.#at + length, field.message(), depth + 1);
      return;
    }
    if (field?.packs) this.#spend(field.cost * this.#packedCount(length, field.wire));
    else this.#spend((field?.cost ?? COST.unknown) + (field?.isText ? length : 0));
    this.#at += length;
  }

  #packedCount(length: number, wire: number): number {
    if (wire === WIRE.fixed32) return length / 4;
    if (wire === WIRE.fixed64) return length / 8;
    let count = 0;
    for (let at = this.#at; at < this.#at + length; at++) if ((this.#bytes[at] ?? 0) < 0x80) count++;
    return count;
  }

  /** A number of up to ten bytes; what exceeds 53 bits is only known to be large. */
  #varint(end: number): number {
    let value = 0;
    for (let place = 0; place < 10; place++) {
      if (this.#at >= end) break;
      const byte = this.#bytes[this.#at++] ?? 0;
      value += (byte & 0x7f) * 2 ** (7 * place);
      if (byte < 0x80) return value;
    }
    throw this.#broken("a number does not end");
  }

  #skip(count: number, end: number): void {
    this.#at += count;
    if (this.#at > end) throw this.#broken("a field does not end");
  }

  #spend(cost: number): void {
    const { structureBytes, owner, advice } = this.#expected;
    this.#spent += cost;
    if (this.#spent <= structureBytes) return;
    throw new PolyheadError(
      "LIMIT_EXCEEDED",
      `${owner} structure would take more than ${structureBytes / 2 ** 20} MiB of memory, raw contents not counted. ${advice}`,
      { limit: structureBytes, bytes: this.#bytes.length },
    );
  }

  #broken(what: string): PolyheadError {
    return new PolyheadError(
      this.#expected.code,
      `${this.#expected.broken}: ${what} at byte ${this.#at} of ${this.#bytes.length}.`,
      { at: this.#at, bytes: this.#bytes.length },
    );
  }
}

const known = new Map<DescMessage, Fields>();

function fieldsOf(message: DescMessage): Fields {
  const found = known.get(message);
  if (found) return found;
  const made = new Map(message.fields.map((field) => [field.number, describe(field)]));
  known.set(message, made);
  return made;
}

function describe(field: DescField): Field {
  if (field.fieldKind === "map") return describeMap(field);
  if (field.message) return describeMessage(field.message);
  return describeScalar(field.scalar, field.fieldKind === "list");
}

/** An entry of a map is a message of its key and its value. */
function describeMap(field: DescField & { fieldKind: "map" }): Field {
  const entry: Fields = new Map([
    [1, describeScalar(field.mapKey, false)],
    [2, field.message ? describeMessage(field.message) : describeScalar(field.scalar, false)],
  ]);
  return { wire: WIRE.delimited, packs: false, cost: COST.unknown, isText: false, message: () => entry };
}

function describeMessage(message: DescMessage): Field {
  return {
    wire: WIRE.delimited,
    packs: false,
    cost: objectCost(message),
    isText: false,
    message: () => fieldsOf(message),
  };
}

function describeScalar(scalar: ScalarType | undefined, isList: boolean): Field {
  switch (scalar) {
    case ScalarType.STRING:
      return { wire: WIRE.delimited, packs: false, cost: COST.text, isText: true };
    case ScalarType.BYTES:
      return { wire: WIRE.delimited, packs: false, cost: COST.view, isText: false };
    case ScalarType.FLOAT:
      return { wire: WIRE.fixed32, packs: isList, cost: COST.number, isText: false };
    case ScalarType.DOUBLE:
      return { wire: WIRE.fixed64, packs: isList, cost: COST.number, isText: false };
    case ScalarType.INT64:
    case ScalarType.UINT64:
      return { wire: WIRE.varint, packs: isList, cost: COST.bigint, isText: false };
    default:
      return { wire: WIRE.varint, packs: isList, cost: COST.number, isText: false };
  }
}

function objectCost({ fields }: DescMessage): number {
  const lists = fields.filter(({ fieldKind }) => fieldKind === "list").length;
  const views = fields.filter(
    ({ fieldKind, scalar }) => fieldKind === "scalar" && scalar === ScalarType.BYTES,
  ).length;
  return COST.object + COST.field * fields.length + COST.list * lists + COST.view * views;
}
