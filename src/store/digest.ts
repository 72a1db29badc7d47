/** Names of content: SHA-256 as the OCI specifications write it. Nothing else may become a file's name. */
import { createHash } from "node:crypto";

/** `sha256:` and 64 hexadecimal digits, lower case. */
export type Digest = `sha256:${string}`;

/** Whether a value is a digest, and so safe in a path. Other algorithms than SHA-256 are not supported. */
export function isDigest(value: unknown): value is Digest {
  return typeof value === "string" && value.startsWith("sha256:") && isHex(value.slice("sha256:".length));
}

/** Whether a value is the hexadecimal part of a digest, and so may be a revision. */
export function isHex(value: unknown): value is string {
  return typeof value === "string" && /^[0-9a-f]{64}$/.test(value);
}

/** The digest's hexadecimal part. */
export function hexOf(digest: Digest): string {
  return digest.slice("sha256:".length);
}

/** The digest of some bytes, given in pieces. */
export function digestOf(pieces: Iterable<Uint8Array>): Digest {
  const hash = createHash("sha256");
  for (const piece of pieces) hash.update(piece);
  return `sha256:${hash.digest("hex")}`;
}
