/**
 * Failures as HTTP answers: the status of the catalogue, `{"error": "..."}` as the Open Inference Protocol has it
 * with the catalogue's code beside the message outside of the protocol's own paths, and Retry-After where waiting
 * helps. What the HTTP library refuses keeps its status of 4xx.
 */
import type { Socket } from "node:net";
import type { FastifyError, FastifyReply, FastifyRequest } from "fastify";
import { type ErrorCode, PolyheadError } from "../../base/errors.js";
import { publicError, publicPlan, retryAfter } from "../protocol/public-error.js";

const PROTOCOL_PATH = /^\/v2(?:\/|$)/;

/** Answers a failure of any kind. */
export function answerError(thrown: unknown, request: FastifyRequest, reply: FastifyReply): FastifyReply {
  const refusal = refusalOf(thrown);
  if (refusal) return send(request, reply, refusal.status, refusal.message, refusal.code);
  const { code, message, isHidden, error } = publicError(thrown, request.id);
  const { http } = error.status;
  if (isHidden || http === 500) request.log.error({ err: error.cause ?? error }, error.message);
  if (http === 503) reply.header("retry-after", retryAfter(error));
  if (http === 401) reply.header("www-authenticate", 'Bearer realm="polyhead"');
  return send(request, reply, http, message, code, publicPlan(error));
}

/** Answers a request for a path that does not exist. */
export function answerNotFound(request: FastifyRequest, reply: FastifyReply): FastifyReply {
  const { method } = request;
  const path = (request.url.split("?", 1)[0] ?? "").slice(0, 100);
  return send(
    request,
    reply,
    404,
    `Nothing answers ${method} ${path}; see /openapi.json for all that does.`,
    "NOT_FOUND",
  );
}

/** Answers what is no HTTP request, came too slowly or has too large headers, and hangs up. */
export function answerBrokenClient(error: Error & { code?: string }, socket: Socket): void {
  if (error.code === "ECONNRESET" || !socket.writable) {
    socket.destroy();
    return;
  }
  const [status, message] = BROKEN[error.code ?? ""] ?? [
    "400 Bad Request",
    "This is not an HTTP/1.1 request.",
  ];
  const body = JSON.stringify({ error: message });
  socket.end(
    `HTTP/1.1 ${status}\r\nContent-Type: application/json\r\nContent-Length: ${body.length}\r\nConnection: close\r\n\r\n${body}`,
    () => socket.destroy(),
  );
}

const BROKEN: Readonly<Record<string, readonly [string, string]>> = {
  HPE_HEADER_OVERFLOW: [
    "431 Request Header Fields Too Large",
    "The headers are larger than the server's limit.",
  ],
  HPE_CHUNK_EXTENSIONS_OVERFLOW: [
    "413 Payload Too Large",
    "The chunk extensions are larger than the server's limit.",
  ],
  ERR_HTTP_REQUEST_TIMEOUT: ["408 Request Timeout", "The request did not arrive within the server's time."],
};

/** What the HTTP library and its parsers refuse by themselves. */
function refusalOf(thrown: unknown): { status: number; message: string; code: ErrorCode } | undefined {
  if (thrown instanceof PolyheadError || !(thrown instanceof Error)) return undefined;
  const { statusCode: status, message } = thrown as Partial<FastifyError> & Error;
  if (status === undefined || status < 400 || status > 499) return undefined;
  return {
    status,
    message: message.slice(0, 300),
    code: status === 413 ? "LIMIT_EXCEEDED" : "INVALID_ARGUMENT",
  };
}

function send(
  request: FastifyRequest,
  reply: FastifyReply,
  status: number,
  error: string,
  code: ErrorCode,
  plan?: unknown,
): FastifyReply {
  const body = PROTOCOL_PATH.test(request.url) ? { error } : { error, code, plan };
  // Bytes, because the library adds a charset to texts, and KServe's client reads errors of the plain type only.
  const bytes = Buffer.from(JSON.stringify(body));
  return reply.code(status).header("content-type", "application/json").send(bytes);
}
