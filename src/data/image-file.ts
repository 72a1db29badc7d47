/** One image file of a data set: its bytes, its digest, and what is wrong with it. */
import { createHash } from "node:crypto";
import { PolyheadError } from "../base/errors.js";
import { readFileBytes } from "../files/disk.js";

const LARGEST_FILE = 2 ** 28;
/** What is wrong with one image, and not with the model or the machine. */
const IMAGE_PROBLEMS: ReadonlySet<string> = new Set(["DATA_MALFORMED", "LIMIT_EXCEEDED", "FILE_NOT_FOUND"]);

/** The bytes of an image file with their SHA-256 in hexadecimal. */
export interface ImageFile {
  readonly bytes: Uint8Array;
  readonly digest: string;
}

/**
 * Reads an image file without decoding it.
 * @throws PolyheadError FILE_NOT_FOUND; LIMIT_EXCEEDED above 256 MiB
 */
export async function readImageFile(path: string): Promise<ImageFile> {
  const bytes = await readFileBytes(path, LARGEST_FILE);
  return { bytes, digest: createHash("sha256").update(bytes).digest("hex") };
}

/** What `read` gives, or, as text, what is wrong with the image that it reads; other failures are thrown. */
export async function orProblem<Result extends object>(
  read: () => Promise<Result>,
): Promise<Result | string> {
  try {
    return await read();
  } catch (thrown) {
    if (thrown instanceof PolyheadError && IMAGE_PROBLEMS.has(thrown.code)) return thrown.message;
    throw thrown;
  }
}
