/** Spans around requests, as a tracer of the application's own sees them. */
import { AsyncLocalStorage } from "node:async_hooks";
import {
  type Context,
  type ContextManager,
  context,
  ROOT_CONTEXT,
  type Span,
  trace,
} from "@opentelemetry/api";
import { afterAll, expect, it } from "vitest";
import { arithmetic, DOUBLE, send, start, stopAll } from "./client.js";

afterAll(async () => {
  await stopAll();
  trace.disable();
  context.disable();
});

interface Recorded {
  readonly name: string;
  readonly attributes: Record<string, unknown>;
  status?: unknown;
  ended: number;
}

it("spans cover requests from their head to their answer, and are active while the service works", async () => {
  const spans: Recorded[] = [];
  const storage = new AsyncLocalStorage<Context>();
  const manager: ContextManager = {
    active: () => storage.getStore() ?? ROOT_CONTEXT,
    with: (active, run, self, ...values) => storage.run(active, () => run.apply(self, values)),
    bind: (_, target) => target,
    enable: () => manager,
    disable: () => manager,
  };
  context.setGlobalContextManager(manager);
  const startSpan = (name: string, options?: { attributes?: object }): Span => {
    const recorded: Recorded = { name, attributes: { ...options?.attributes }, ended: 0 };
    spans.push(recorded);
    const span = trace.wrapSpanContext({
      traceId: "1".repeat(32),
      spanId: String(spans.length).padStart(16, "0"),
      traceFlags: 1,
    });
    return Object.assign(span, {
      setAttribute(key: string, value: unknown) {
        recorded.attributes[key] = value;
        return span;
      },
      setStatus(status: unknown) {
        recorded.status = status;
        return span;
      },
      end: () => {
        recorded.ended++;
      },
    });
  };
  trace.setGlobalTracerProvider({
    getTracer: () => ({
      startSpan,
      startActiveSpan: () => expect.fail("spans are started, then made active"),
    }),
  });

  const active: unknown[] = [];
  const { url, service } = await start({}, await arithmetic());
  service.before = () => {
    active.push(trace.getActiveSpan()?.spanContext().spanId);
  };
  await send(url, "/v2/models/double/infer", { body: DOUBLE, headers: { "x-request-id": "one" } });
  service.failure = new Error("broken");
  await send(url, "/v2/models/double/infer", { body: DOUBLE });
  await send(url, "/nothing");
  await stopAll();
  expect(spans).toMatchObject([
    {
      name: "POST /v2/models/:model/infer",
      attributes: {
        "http.request.method": "POST",
        "http.response.status_code": 200,
        "polyhead.request_id": "one",
      },
      ended: 1,
    },
    { attributes: { "http.response.status_code": 500 }, status: { code: 2 }, ended: 1 },
    { attributes: { "http.response.status_code": 404 }, ended: 1 },
  ]);
  expect(active).toEqual(["0000000000000001", "0000000000000002"]);
});
