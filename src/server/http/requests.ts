/** What every request has: an id, a line in the log, a span for traces, and a signal for when its client goes. */
import { randomUUID } from "node:crypto";
import type { IncomingMessage } from "node:http";
import {
  type Context,
  context,
  propagation,
  type Span,
  SpanKind,
  SpanStatusCode,
  trace,
} from "@opentelemetry/api";
import type { FastifyInstance, FastifyReply, FastifyRequest } from "fastify";
import { ERROR_CATALOGUE, PolyheadError } from "../../base/errors.js";

declare module "fastify" {
  interface FastifyRequest {
    /** The request's span with its context; none before the request is let in. */
    trace: { readonly span: Span; readonly context: Context } | undefined;
  }
}

const ABORTED_STATUS = ERROR_CATALOGUE.ABORTED.http;
const SANE_ID = /^[\w.:+/=-]{1,128}$/;

/** The client's X-Request-Id when it is a sane one, else a new id. */
export function requestId({ headers }: IncomingMessage): string {
  const given = headers["x-request-id"];
  return typeof given === "string" && SANE_ID.test(given) ? given : randomUUID();
}

/** Gives requests their id in the answer, their span and their line in the log. */
export function observe(app: FastifyInstance): void {
  const tracer = trace.getTracer("polyhead");
  app.decorateRequest("trace", undefined);
  app.addHook("onRequest", async (request, reply) => {
    reply.header("x-request-id", request.id).header("x-content-type-options", "nosniff");
    const route = request.routeOptions.url ?? "";
    const parent = propagation.extract(context.active(), request.headers);
    const attributes = {
      "http.request.method": request.method,
      "http.route": route,
      "polyhead.request_id": request.id,
    };
    const span = tracer.startSpan(
      `${request.method} ${route}`,
      { kind: SpanKind.SERVER, attributes },
      parent,
    );
    request.trace = { span, context: trace.setSpan(parent, span) };
  });
  // Not earlier: reading the body would lose the context.
  app.addHook("preHandler", (request, _reply, done) => {
    if (request.trace) context.with(request.trace.context, done);
    else done();
  });
  app.addHook("onResponse", async (request, reply) => {
    const { statusCode: status } = reply;
    endSpan(request, status);
    const milliseconds = Math.round(reply.elapsedTime * 1000) / 1000;
    request.log.info(
      {
        method: request.method,
        url: request.url.slice(0, 300),
        status,
        milliseconds,
        token: request.tokenName,
      },
      "answered",
    );
  });
  app.addHook("onRequestAbort", async (request) => {
    endSpan(request, ABORTED_STATUS);
    request.log.info({ method: request.method, url: request.url.slice(0, 300) }, "client gone");
  });
}

/** Once: an aborted request may be answered all the same. */
function endSpan(request: FastifyRequest, status: number): void {
  const { span } = request.trace ?? {};
  request.trace = undefined;
  span?.setAttribute("http.response.status_code", status);
  if (status >= 500) span?.setStatus({ code: SpanStatusCode.ERROR });
  span?.end();
}

/** A signal that is aborted when the client hangs up before it has its answer. */
export function signalOf(reply: FastifyReply): AbortSignal {
  const controller = new AbortController();
  const gone = () => {
    if (!reply.raw.writableFinished) {
      controller.abort(new PolyheadError("ABORTED", "The client hung up before its answer was ready.", {}));
    }
  };
  if (reply.raw.destroyed) gone();
  else reply.raw.once("close", gone);
  return controller.signal;
}
