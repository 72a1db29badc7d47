/** Protobuf by hand, to write what no honest writer would. */

/** A whole number of up to 64 bits. */
export function varint(value: number | bigint): Uint8Array {
  const out: number[] = [];
  let rest = BigInt(value);
  do {
    const byte = Number(rest & 0x7fn);
    rest >>= 7n;
    out.push(rest > 0n ? byte | 0x80 : byte);
  } while (rest > 0n);
  return Uint8Array.from(out);
}

/** Pieces in a row. */
export function bytes(...pieces: readonly (Uint8Array | readonly number[])[]): Uint8Array {
  return joined(pieces);
}

/** A list of pieces in a row. */
export function joined(pieces: readonly (Uint8Array | readonly number[])[]): Uint8Array {
  return new Uint8Array(Buffer.concat(pieces.map((piece) => Uint8Array.from(piece))));
}

/** A field with a length; `claimed` is the length it says it has. */
export function field(number: number, content: Uint8Array | string, claimed?: number): Uint8Array {
  const data = typeof content === "string" ? new TextEncoder().encode(content) : content;
  return bytes(varint((number << 3) | 2), varint(claimed ?? data.length), data);
}

/** A field that is a whole number. */
export function int(number: number, value: number | bigint): Uint8Array {
  return bytes(varint(number << 3), varint(value));
}

/** The same piece many times. */
export function times(count: number, piece: Uint8Array): Uint8Array {
  const out = new Uint8Array(count * piece.length);
  for (let at = 0; at < out.length; at += piece.length) out.set(piece, at);
  return out;
}

/** A model file around the fields of its graph. */
export function file(...graphFields: readonly Uint8Array[]): Uint8Array {
  return bytes(int(1, 8), field(8, int(2, 17)), field(7, bytes(...graphFields)));
}

/** A node as a field of a graph. */
export function nodeField(
  opType: string,
  inputs: readonly string[],
  outputs: readonly string[],
  ...more: Uint8Array[]
): Uint8Array {
  const read = inputs.map((name) => field(1, name));
  const made = outputs.map((name) => field(2, name));
  return field(1, joined([...read, ...made, field(4, opType), ...more]));
}

/** A graph input or output of float32 as a field of a graph: 11 or 12. */
export function valueField(number: number, name: string, shape: readonly (number | bigint)[]): Uint8Array {
  const dims = shape.map((size) => field(1, int(1, size)));
  const type = field(1, bytes(int(1, 1), field(2, bytes(...dims))));
  return field(number, bytes(field(1, name), field(2, type)));
}
