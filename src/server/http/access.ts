/**
 * Who is let in. Every route names the scope that it needs. Browsers are kept out unless the page's origin is
 * listed: a page of somebody else must neither read answers nor change routes, not even of a server without tokens
 * on its visitor's own machine, under whatever name it reaches that.
 */
import { isIP } from "node:net";
import type { FastifyInstance, FastifyReply, FastifyRequest } from "fastify";
import { PolyheadError } from "../../base/errors.js";
import type { Limits } from "../protocol/limits.js";
import { checkName } from "../protocol/names.js";
import { shown } from "../protocol/shown.js";
import type { Scope, Tokens } from "../protocol/tokens.js";
import type { Author } from "../service.js";

declare module "fastify" {
  interface FastifyContextConfig {
    /** What a token has to allow; `open` for routes that tell nothing of models. */
    readonly scope?: Scope | "open";
  }
  interface FastifyRequest {
    /** Name of the caller's token. */
    tokenName: string | undefined;
  }
}

/** How access is given. */
export interface AccessOptions {
  readonly tokens: Tokens;
  /** Origins of pages that may call this server: `https://example.org`. */
  readonly origins: readonly string[];
  /** Whether only this machine reaches the server. */
  readonly isLoopback: boolean;
}

const METHODS = "GET, HEAD, POST, DELETE";
const REQUEST_HEADERS =
  "authorization, content-type, content-encoding, inference-header-content-length, x-request-id, x-polyhead-author, traceparent";
const RESPONSE_HEADERS = "inference-header-content-length, x-request-id, retry-after";

/** Guards all routes of the server, those added later too. */
export function guard(app: FastifyInstance, { tokens, origins, isLoopback }: AccessOptions): void {
  app.decorateRequest("tokenName", undefined);
  app.addHook("onRoute", ({ url, config }) => {
    if (!config?.scope) throw new PolyheadError("INTERNAL", `The route ${url} names no scope.`, {});
  });
  app.addHook("onRequest", async (request, reply) => {
    if (isLoopback && !tokens.isRequired) checkHost(request);
    const origin = request.headers.origin;
    if (origin !== undefined && !isSameOrigin(request, origin)) {
      if (!origins.includes(origin)) {
        throw new PolyheadError(
          "FORBIDDEN",
          `Pages of the origin ${shown(origin)} may not call this server; its operator can list the origin.`,
          {},
        );
      }
      allowOrigin(reply, origin);
      if (request.method === "OPTIONS") return reply.code(204).send();
    }
    const { scope } = request.routeOptions.config;
    if (scope === "read" || scope === "control") {
      request.tokenName = tokens.authorize(request.headers.authorization, scope);
    }
    return undefined;
  });
}

/**
 * Who asks for a change: the token's name, else what the header X-Polyhead-Author says.
 * @throws PolyheadError INVALID_ARGUMENT
 */
export function authorOf(request: FastifyRequest, reason: string | undefined, limits: Limits): Author {
  const header = request.headers["x-polyhead-author"];
  const named =
    header === undefined ? "anonymous" : checkName(header, "The header X-Polyhead-Author", limits);
  return {
    by: request.tokenName ?? named,
    reason: reason === undefined || reason === "" ? undefined : checkName(reason, "The reason", limits),
  };
}

/** A page can make its own name mean this machine, but not an address or localhost. */
function checkHost(request: FastifyRequest): void {
  const host = (request.headers.host ?? "localhost").replace(/:\d+$/, "").replace(/^\[(.*)\]$/, "$1");
  if (isIP(host) !== 0 || host === "localhost" || host.endsWith(".localhost")) return;
  throw new PolyheadError(
    "FORBIDDEN",
    `The header Host is ${shown(host)}; a server without tokens answers to localhost and addresses only.`,
    {},
  );
}

function isSameOrigin(request: FastifyRequest, origin: string): boolean {
  return origin === `${request.protocol}://${request.headers.host}`;
}

function allowOrigin(reply: FastifyReply, origin: string): void {
  reply
    .header("access-control-allow-origin", origin)
    .header("vary", "Origin")
    .header("access-control-allow-methods", METHODS)
    .header("access-control-allow-headers", REQUEST_HEADERS)
    .header("access-control-expose-headers", RESPONSE_HEADERS)
    .header("access-control-max-age", "600");
}
