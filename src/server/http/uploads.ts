/** Files that clients send: as the whole body, or as the one file of a form with its fields. */
import type {} from "@fastify/multipart";
import type { FastifyRequest } from "fastify";
import { asError, PolyheadError } from "../../base/errors.js";
import { bytesOfBody } from "./body.js";

/** A file with what was said about it. */
export interface Upload {
  readonly file: Uint8Array;
  /** Of the query, and over these of the form. */
  readonly fields: object;
}

const MOST_FIELDS = 20;
const FIELD_BYTES = 10_000;

/**
 * The file of a request.
 * @param limit bytes of the file
 * @throws PolyheadError INVALID_ARGUMENT without exactly one file
 */
export async function uploadOf(request: FastifyRequest, limit: number): Promise<Upload> {
  const query = queryOf(request);
  if (!request.isMultipart()) {
    const file = bytesOfBody(request);
    if (file.length === 0)
      throw new PolyheadError("INVALID_ARGUMENT", "The body is empty; expected a file.", {});
    return { file, fields: query };
  }
  const { file, fields } = await readForm(request, limit);
  if (!file || file.length === 0) {
    throw new PolyheadError(
      "INVALID_ARGUMENT",
      "The form has no file, or an empty one; expected one file.",
      {},
    );
  }
  return { file, fields: { ...query, ...Object.fromEntries(fields) } };
}

/** The fields of the request's query, by name. */
export function queryOf({ query }: FastifyRequest): object {
  return typeof query === "object" && query !== null ? query : {};
}

async function readForm(request: FastifyRequest, limit: number) {
  const limits = {
    fileSize: limit,
    files: 1,
    fields: MOST_FIELDS,
    fieldSize: FIELD_BYTES,
    parts: MOST_FIELDS + 1,
  };
  const fields = new Map<string, unknown>();
  let file: Uint8Array | undefined;
  try {
    for await (const part of request.parts({ limits })) {
      if (part.type === "file") file = await part.toBuffer();
      else fields.set(part.fieldname, part.value);
    }
  } catch (thrown) {
    const error = asError(thrown);
    // The library's own refusals have a status; the rest is the parser's word on the form.
    if ("statusCode" in error) throw error;
    throw new PolyheadError("INVALID_ARGUMENT", `The form is not one: ${error.message}.`, {});
  }
  return { file, fields };
}
