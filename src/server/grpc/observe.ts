/** What every call leaves behind: a line in the log, and a span for traces. */
import { performance } from "node:perf_hooks";
import type { Metadata } from "@grpc/grpc-js";
import {
  context,
  propagation,
  SpanKind,
  SpanStatusCode,
  type TextMapGetter,
  trace,
} from "@opentelemetry/api";
import type { Logger } from "pino";
import type { Call } from "./call.js";
import type { Failure } from "./status.js";

/** Where calls are told of. */
export type CallLogger = Pick<Logger, "info" | "error">;

/** A call that is watched. */
export interface ObservedCall {
  /** Runs something as a part of the call, so that spans begun in it belong to the call's. */
  run<Result>(act: () => Result): Result;
  /** A request of a stream failed; the stream goes on. */
  failed(failure: Failure): void;
  /** The call is over. */
  end(failure?: Failure): void;
}

const metadataGetter: TextMapGetter<Metadata> = {
  keys: (metadata) => Object.keys(metadata.getMap()),
  get: (metadata, key) => metadata.get(key).map(String),
};

/** Watches a call from now on. */
export function observe({ method, requestId }: Call, metadata: Metadata, logger: CallLogger): ObservedCall {
  const start = performance.now();
  const parent = propagation.extract(context.active(), metadata, metadataGetter);
  const attributes = { "rpc.system": "grpc", "rpc.method": method, "polyhead.request_id": requestId };
  const span = trace
    .getTracer("polyhead")
    .startSpan(`gRPC ${method}`, { kind: SpanKind.SERVER, attributes }, parent);
  const inside = trace.setSpan(parent, span);
  const common = { reqId: requestId, method };
  const failed = ({ name, status, public: { isHidden, error } }: Failure) => {
    span.setStatus({ code: SpanStatusCode.ERROR, message: status.details });
    if (isHidden) logger.error({ ...common, err: error }, "failed");
    else logger.info({ ...common, status: name, reason: status.details }, "refused");
  };
  return {
    run: (act) => context.with(inside, act),
    failed,
    end(failure) {
      if (failure) failed(failure);
      span.setAttribute("rpc.grpc.status_code", failure?.status.code ?? 0);
      span.end();
      const milliseconds = Math.round((performance.now() - start) * 1000) / 1000;
      logger.info({ ...common, status: failure?.name ?? "OK", milliseconds }, "answered");
    },
  };
}
