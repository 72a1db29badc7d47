/**
 * Compressed answers, for clients that ask for one compression by its name, as Triton's do. A list of several is what
 * libraries send with everything; it asks for nothing, because tensors are large and hardly get smaller.
 */

import { promisify } from "node:util";
import { constants, deflate, gzip } from "node:zlib";
import type { FastifyReply, FastifyRequest } from "fastify";

const COMPRESS = { gzip: promisify(gzip), deflate: promisify(deflate) };

/** The body as the request wants it, whose headers are set accordingly. */
export async function compressed(
  request: FastifyRequest,
  reply: FastifyReply,
  body: Buffer,
): Promise<Buffer> {
  const wanted = String(request.headers["accept-encoding"] ?? "")
    .trim()
    .toLowerCase();
  reply.header("vary", "Accept-Encoding");
  if (wanted !== "gzip" && wanted !== "deflate") return body;
  reply.header("content-encoding", wanted);
  return COMPRESS[wanted](body, { level: constants.Z_BEST_SPEED });
}
