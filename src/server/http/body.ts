/**
 * Bodies of requests: read whole, up to their route's limit, and inflated up to the same limit. A body stays bytes
 * here; what it holds is its route's matter.
 */
import { promisify } from "node:util";
import { gunzip, inflate } from "node:zlib";
import type { FastifyInstance, FastifyRequest } from "fastify";
import type { Static, TSchema } from "typebox";
import { asError, PolyheadError } from "../../base/errors.js";
import { limitExceeded } from "../protocol/limits.js";
import { shown } from "../protocol/shown.js";
import { parseJson } from "./json-text.js";
import { checked } from "./validation.js";

const INFLATE = { gzip: promisify(gunzip), "x-gzip": promisify(gunzip), deflate: promisify(inflate) };

/** Makes the server read bodies of every content type but forms as bytes. */
export function readBodies(app: FastifyInstance): void {
  app.removeAllContentTypeParsers();
  app.addContentTypeParser("*", { parseAs: "buffer" }, async (request: FastifyRequest, body: Buffer) =>
    inflated(body, request.headers["content-encoding"], request.routeOptions.bodyLimit),
  );
}

/** The bytes of the request's body; empty when it has none. */
export function bytesOfBody({ body }: FastifyRequest): Uint8Array {
  return body instanceof Uint8Array ? body : new Uint8Array(0);
}

/**
 * The JSON of the request's body, or `{}` when the body is empty.
 * @throws PolyheadError INVALID_ARGUMENT
 */
export function jsonOfBody<Type extends TSchema>(request: FastifyRequest, schema: Type): Static<Type> {
  const bytes = bytesOfBody(request);
  return checked(schema, bytes.length === 0 ? {} : parseJson(bytes, "The body"), "The body");
}

/**
 * The media type of the request's body, without its parameters; empty when the client gave none.
 */
export function mediaType({ headers }: FastifyRequest): string {
  return headers["content-type"]?.split(";", 1)[0]?.trim().toLowerCase() ?? "";
}

async function inflated(body: Buffer, encoding: string | undefined, limit: number): Promise<Buffer> {
  const name = encoding?.trim().toLowerCase() ?? "identity";
  if (name === "identity" || name === "") return body;
  if (name !== "gzip" && name !== "x-gzip" && name !== "deflate") {
    throw new PolyheadError(
      "INVALID_ARGUMENT",
      `The body has the Content-Encoding ${shown(encoding)}; expected gzip, deflate or identity.`,
      { expected: Object.keys(INFLATE) },
    );
  }
  try {
    return await INFLATE[name](body, { maxOutputLength: limit });
  } catch (thrown) {
    const error = asError(thrown);
    if ("code" in error && error.code === "ERR_BUFFER_TOO_LARGE") {
      throw limitExceeded("The body inflates to", "too many", limit, "bytes");
    }
    throw new PolyheadError("INVALID_ARGUMENT", `The body is not ${name} as its Content-Encoding says.`, {});
  }
}
