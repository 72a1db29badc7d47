/** How pickles write text and whole numbers. Lengths are the reader's business. */

/** UTF-8, a mark at its begin included. */
export function text(bytes: Uint8Array): string {
  return new TextDecoder("utf-8", { ignoreBOM: true }).decode(bytes);
}

/** Python 2 text: one letter a byte, so that none is lost. */
export function latin1(bytes: Uint8Array): string {
  let made = "";
  for (const byte of bytes) made += String.fromCharCode(byte);
  return made;
}

/** The letter of a number in hexadecimal digits. */
export function codeUnit(hex: string): string {
  return String.fromCharCode(Number.parseInt(hex, 16));
}

/** Text as Python's `repr` writes it. */
export function quoted(line: string): string {
  const inner = line.replace(/^(['"])(.*)\1$/, "$2");
  return inner.replace(/\\(?:x([0-9a-fA-F]{2})|(.))/g, (_, hex, letter) =>
    hex ? codeUnit(hex) : ({ n: "\n", t: "\t", r: "\r" }[letter as string] ?? letter),
  );
}

/** A whole number of any width, little-endian, two's complement. */
export function longOf(bytes: Uint8Array): number | bigint {
  let value = 0n;
  for (const byte of bytes.toReversed()) value = (value << 8n) | BigInt(byte);
  return narrowed(BigInt.asIntN(8 * bytes.length, value));
}

/** As a plain number where it is one exactly. */
export function narrowed(value: bigint): number | bigint {
  const number = Number(value);
  return Number.isSafeInteger(number) ? number : value;
}
