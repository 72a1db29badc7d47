/**
 * Messages to and from bytes. A stranger's bytes are looked at before they are decoded, because small messages can
 * become large structures; tensors sent raw stay where they lie.
 */
import {
  create,
  type DescMessage,
  fromBinary,
  type MessageInitShape,
  type MessageShape,
  toBinary,
} from "@bufbuild/protobuf";
import { asError, PolyheadError } from "../../base/errors.js";
import { checkWire } from "../../onnx/wire-check.js";

/** Memory that the structure of one request may take, in bytes, raw contents not counted. */
const STRUCTURE_BYTES = 256 * 2 ** 20;

/**
 * The message in a client's bytes.
 * @throws PolyheadError INVALID_ARGUMENT, LIMIT_EXCEEDED
 */
export function decode<Schema extends DescMessage>(schema: Schema, bytes: Uint8Array): MessageShape<Schema> {
  const broken = `This is not a message ${schema.typeName}`;
  checkWire(bytes, {
    schema,
    structureBytes: STRUCTURE_BYTES,
    code: "INVALID_ARGUMENT",
    broken,
    owner: "The request's",
    advice: "Send tensors as raw_input_contents.",
  });
  try {
    // Not a Buffer, whose slices would be Buffers too.
    const plain = new Uint8Array(bytes.buffer, bytes.byteOffset, bytes.length);
    return fromBinary(schema, plain, { readUnknownFields: false });
  } catch (thrown) {
    const cause = asError(thrown);
    throw new PolyheadError("INVALID_ARGUMENT", `${broken}: ${cause.message}.`, {}, { cause });
  }
}

/** The bytes of a new message. */
export function encode<Schema extends DescMessage>(schema: Schema, init: MessageInitShape<Schema>): Buffer {
  const bytes = toBinary(schema, create(schema, init));
  return Buffer.from(bytes.buffer, bytes.byteOffset, bytes.byteLength);
}
