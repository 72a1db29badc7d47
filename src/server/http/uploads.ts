/** Files that clients send: as the whole body, or as the one file of a form with its fields. */
import type {} from "@fastify/multipart";
import type { FastifyRequest } from "fastify";
import { PolyheadError } from "../../base/errors.js";
import { bytesOfBody } from "./body.js";

/** A file with what was said about it. */
export interface Upload {
  readonly file: Uint8Array;
  /** Of the query, and over these of the form. */
  readonly fields: Readonly<Record<string, unknown>>;
}

const MOST_FIELDS = 20;
const FIELD_BYTES = 10_000;

/**
 * The file of a request.
 * @param limit bytes of the file
 * @throws PolyheadError INVALID_ARGUMENT without exactly one file
 */
export async function uploadOf(request: FastifyRequest, limit: number): Promise<Upload> {
  const query = request.query as Readonly<Record<string, unknown>>;
  if (!request.isMultipart()) {
    const file = bytesOfBody(request);
    if (file.length === 0)
      throw new PolyheadError("INVALID_ARGUMENT", "The body is empty; expected a file.", {});
    return { file, fields: query };
  }
  const limits = {
    fileSize: limit,
    files: 1,
    fields: MOST_FIELDS,
    fieldSize: FIELD_BYTES,
    parts: MOST_FIELDS + 1,
  };
  const fields = new Map(Object.entries(query));
  let file: Uint8Array | undefined;
  for await (const part of request.parts({ limits })) {
    if (part.type === "file") file = await part.toBuffer();
    else fields.set(part.fieldname, part.value);
  }
  if (!file || file.length === 0) {
    throw new PolyheadError(
      "INVALID_ARGUMENT",
      "The form has no file, or an empty one; expected one file.",
      {},
    );
  }
  return { file, fields: Object.fromEntries(fields) };
}
