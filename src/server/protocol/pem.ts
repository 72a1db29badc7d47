/** Certificates and keys of the operator, from files. */
import { readFile } from "node:fs/promises";
import { asError, PolyheadError } from "../../base/errors.js";

/** The bytes of a PEM file. @throws PolyheadError FILE_NOT_FOUND */
export async function readPem(file: string): Promise<Buffer> {
  try {
    return await readFile(file);
  } catch (thrown) {
    throw new PolyheadError("FILE_NOT_FOUND", `The TLS file cannot be read: ${asError(thrown).message}.`, {
      file,
    });
  }
}
