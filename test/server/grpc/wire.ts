/**
 * A client that knows the published service by its field numbers only: messages are put together and taken apart
 * byte by byte, without the descriptors of the code under test.
 */
import { type CallOptions, Client, credentials, Metadata, type ServiceError, status } from "@grpc/grpc-js";

/** A field's value: a varint, or what is delimited. */
export type Value = number | bigint | boolean | string | Uint8Array;
/** Fields of a message in their order. */
export type Fields = readonly (readonly [field: number, value: Value])[];
/** Fields of a message that was read, by number. */
export type Read = ReadonlyMap<number, readonly (bigint | Buffer)[]>;

/** The bytes of a message. */
export function message(...fields: Fields): Buffer {
  return Buffer.concat(
    fields.map(([field, value]) => {
      if (typeof value === "string" || value instanceof Uint8Array) {
        const bytes = typeof value === "string" ? Buffer.from(value, "utf8") : Buffer.from(value);
        return Buffer.concat([varint((BigInt(field) << 3n) | 2n), varint(BigInt(bytes.length)), bytes]);
      }
      return Buffer.concat([varint(BigInt(field) << 3n), varint(BigInt.asUintN(64, BigInt(value)))]);
    }),
  );
}

/** Numbers as one packed field of varints. */
export function packed(values: readonly (number | bigint)[]): Buffer {
  return Buffer.concat(values.map((value) => varint(BigInt.asUintN(64, BigInt(value)))));
}

/** Floats as one packed field. */
export function floats(values: readonly number[]): Buffer {
  return Buffer.from(Float32Array.from(values).buffer);
}

/** An entry of a map from text to a message. */
export function entry(key: string, value: Uint8Array): Buffer {
  return message([1, key], [2, value]);
}

/** The fields of a message. */
export function read(bytes: Uint8Array): Read {
  const found = new Map<number, (bigint | Buffer)[]>();
  const buffer = Buffer.from(bytes.buffer, bytes.byteOffset, bytes.length);
  let at = 0;
  const next = () => {
    let value = 0n;
    for (let shift = 0n; ; shift += 7n) {
      const byte = buffer[at++];
      if (byte === undefined) throw new Error("the message ends within a number");
      value |= BigInt(byte & 0x7f) << shift;
      if (byte < 0x80) return value;
    }
  };
  while (at < buffer.length) {
    const tag = next();
    const field = Number(tag >> 3n);
    let value: bigint | Buffer;
    if ((tag & 7n) === 0n) value = next();
    else if ((tag & 7n) === 2n) {
      const length = Number(next());
      value = buffer.subarray(at, at + length);
      at += length;
    } else throw new Error(`unexpected wire type ${tag & 7n}`);
    found.set(field, [...(found.get(field) ?? []), value]);
  }
  return found;
}

/** All delimited values of a field. */
export function parts(of: Read, field: number): Buffer[] {
  return (of.get(field) ?? []).filter((value) => Buffer.isBuffer(value));
}

/** The one text of a field; empty when it is not there. */
export function text(of: Read, field: number): string {
  return parts(of, field)[0]?.toString("utf8") ?? "";
}

/** The one number of a field; 0 when it is not there. */
export function number(of: Read, field: number): number {
  const [value] = of.get(field) ?? [];
  return typeof value === "bigint" ? Number(BigInt.asIntN(64, value)) : 0;
}

/** A repeated whole number, packed or not. */
export function numbers(of: Read, field: number): number[] {
  return (of.get(field) ?? []).flatMap((value) => {
    if (typeof value === "bigint") return [Number(BigInt.asIntN(64, value))];
    const all: number[] = [];
    let current = 0n;
    let shift = 0n;
    for (const byte of value) {
      current |= BigInt(byte & 0x7f) << shift;
      shift += 7n;
      if (byte >= 0x80) continue;
      all.push(Number(BigInt.asIntN(64, current)));
      current = 0n;
      shift = 0n;
    }
    return all;
  });
}

/** How a call ended. */
export interface Answer {
  readonly code: status;
  readonly details: string;
  /** The message of a call that went well. */
  readonly bytes: Buffer;
  readonly trailers: Metadata;
}

/** A client of one address. */
export class WireClient {
  readonly client: Client;

  constructor(address: string, channel = credentials.createInsecure()) {
    this.client = new Client(address, channel, {
      "grpc.max_receive_message_length": -1,
      "grpc.max_send_message_length": -1,
      "grpc.enable_retries": 0,
    });
  }

  /** Calls a method of the inference service, or one given with its service. */
  call(
    method: string,
    request: Uint8Array,
    metadata: Readonly<Record<string, string>> = {},
    options: CallOptions = {},
  ): Promise<Answer> {
    return new Promise((resolve) => {
      this.client.makeUnaryRequest(
        pathOf(method),
        (bytes: Uint8Array) => Buffer.from(bytes),
        (bytes) => bytes,
        request,
        metadataOf(metadata),
        options,
        (error: ServiceError | null, bytes?: Buffer) =>
          resolve({
            code: error?.code ?? status.OK,
            details: error?.details ?? "",
            bytes: bytes ?? Buffer.alloc(0),
            trailers: error?.metadata ?? new Metadata(),
          }),
      );
    });
  }

  /** The message that a call is answered with. */
  async ok(
    method: string,
    request: Uint8Array,
    metadata: Readonly<Record<string, string>> = {},
  ): Promise<Read> {
    const { code, details, bytes } = await this.call(method, request, metadata);
    if (code !== status.OK) throw new Error(`${method}: ${status[code]}: ${details}`);
    return read(bytes);
  }

  /** A stream in both directions. */
  stream(method: string, metadata: Readonly<Record<string, string>> = {}) {
    return this.client.makeBidiStreamRequest(
      pathOf(method),
      (bytes: Uint8Array) => Buffer.from(bytes),
      (bytes: Buffer) => bytes,
      metadataOf(metadata),
    );
  }

  close(): void {
    this.client.close();
  }
}

function pathOf(method: string): string {
  return method.includes("/") ? method : `/inference.GRPCInferenceService/${method}`;
}

function metadataOf(entries: Readonly<Record<string, string>>): Metadata {
  const metadata = new Metadata();
  for (const [key, value] of Object.entries(entries)) metadata.set(key, value);
  return metadata;
}

function varint(value: bigint): Buffer {
  const bytes: number[] = [];
  let rest = value;
  do {
    bytes.push(Number(rest & 0x7fn) | (rest > 0x7fn ? 0x80 : 0));
    rest >>= 7n;
  } while (rest > 0n);
  return Buffer.from(bytes);
}
