/** What is counted: the metrics against the text format's grammar and against requests, statistics, and spans. */
import { AsyncLocalStorage } from "node:async_hooks";
import { readFile } from "node:fs/promises";
import {
  type Context,
  type ContextManager,
  context,
  ROOT_CONTEXT,
  type Span,
  trace,
} from "@opentelemetry/api";
import { afterEach, describe, expect, it } from "vitest";
import { modelBytes } from "../../src/onnx/write.js";
import { float32 } from "../../src/tensor/tensor.js";
import { backbone, deploy, endDeployments, head, image, newFolder } from "./small-deployment.js";

afterEach(endDeployments);

const author = { by: "test" };

/** Samples by name and labels, of text that is checked against the format's grammar. */
function parse(text: string): { samples: Map<string, number>; types: Map<string, string> } {
  const [samples, types] = [new Map<string, number>(), new Map<string, string>()];
  expect(text.endsWith("\n")).toBe(true);
  let family = "";
  for (const line of text.slice(0, -1).split("\n")) {
    const [, name, type] = /^# TYPE ([a-z_]+) (counter|gauge|histogram)$/.exec(line) ?? [];
    if (name !== undefined && type !== undefined) {
      expect(types.has(name)).toBe(false);
      types.set(name, type);
      family = name;
      continue;
    }
    if (/^# HELP [a-z_]+ \S/.test(line)) continue;
    const sample =
      /^([a-z_]+)(\{(?:[a-z_]+="(?:[^"\\\n]|\\[\\"n])*",?)*\})? (-?[0-9.e+-]+|NaN|[+-]Inf)$/.exec(line);
    expect(sample, line).not.toBeNull();
    const [, own = "", labels = "", value] = sample ?? [];
    expect(own === family || (types.get(family) === "histogram" && own.startsWith(`${family}_`))).toBe(true);
    expect(samples.has(own + labels)).toBe(false);
    samples.set(own + labels, Number(value));
  }
  return { samples, types };
}

async function food() {
  const trunk = await backbone();
  const running = await deploy(await newFolder());
  await running.addModel(modelBytes(trunk), "trunk", author);
  const main = await running.addModel(modelBytes(head(trunk, [1, 0, 0, 1])), "food", author);
  return { running, trunk, main };
}

describe("metrics", () => {
  it("follow the text format, have the types that their names promise, and count each revision", async () => {
    const { running, trunk, main } = await food();
    const shadow = await running.addModel(modelBytes(head(trunk, [0, 1, 1, 0])), "food", author);
    await running.setTargets(
      { food: { revisions: [{ revision: main, weight: 1 }], shadows: [shadow] } },
      author,
    );
    const ask = (inputs = { image }) => running.infer({ routes: ["food"], inputs });
    for (let at = 0; at < 3; at++) await ask();
    await expect(ask({ image: float32([1], [1]) })).rejects.toMatchObject({ code: "INPUT_MISMATCH" });
    const { samples, types } = parse(running.metrics());
    for (const [name, type] of types) {
      expect(type, name).toBe(
        name.endsWith("_total")
          ? "counter"
          : ["polyhead_request_seconds", "polyhead_batch_rows"].includes(name)
            ? "histogram"
            : "gauge",
      );
    }
    const of = (name: string, revision: string, more = "") =>
      samples.get(`${name}{route="food",revision="${revision.slice(0, 12)}"${more}}`);
    expect(of("polyhead_requests_total", main)).toBe(3);
    expect(of("polyhead_failures_total", main)).toBe(0);
    expect(of("polyhead_rows_total", main)).toBe(3);
    expect(of("polyhead_cache_hits_total", main)).toBe(2);
    expect(of("polyhead_cache_misses_total", main)).toBe(1);
    expect(of("polyhead_request_seconds_count", main)).toBe(3);
    expect(of("polyhead_request_seconds_bucket", main, ',le="+Inf"')).toBe(3);
    expect(of("polyhead_batch_rows_bucket", main, ',le="1"')).toBe(3);
    expect(of("polyhead_batch_rows_sum", main)).toBe(3);
    for (const name of ["queue", "run", "backbone", "head"])
      expect(of(`polyhead_${name}_seconds_total`, main), name).toBeGreaterThan(0);
    expect(of("polyhead_shadow_rows_total", shadow)).toBe(3);
    expect(of("polyhead_shadow_failures_total", shadow)).toBe(0);
    expect(of("polyhead_shadow_agreement", shadow)).toBe(0);
    expect(of("polyhead_shadow_score_difference", shadow)).toBe(2);
    expect(of("polyhead_shadow_score_difference_max", shadow)).toBe(2);
    expect(of("polyhead_shadow_seconds_total", shadow)).toBeGreaterThan(0);
    expect(samples.get('polyhead_refusals_total{route="food",code="INPUT_MISMATCH"}')).toBe(1);
    expect(samples.get('polyhead_switches_total{route="food"}')).toBe(2);
    expect(samples.get("polyhead_routes")).toBe(2);
  });

  it("are all in the documentation, and nothing else is", async () => {
    const { running } = await food();
    const page = await readFile(new URL("../../docs/serve.md", import.meta.url), "utf8");
    const documented = new Set([...page.matchAll(/^\| `(polyhead_\w+)`/gm)].map(([, name]) => name));
    expect([...documented].sort()).toEqual([...parse(running.metrics()).types.keys()].sort());
  });
});

describe("statistics", () => {
  it("count a batch of several requests as one execution, and their rows as inferences", async () => {
    const { running, main } = await food();
    const rows = Array.from({ length: 12 }, (_, at) => ({
      image: float32([1, 2, 2, 2], [at, 1, 1, 1, 3, 3, 3, 3]),
    }));
    const ask = (inputs: { image: typeof image }) =>
      running.infer({ routes: ["food"], inputs, cache: false });
    await ask({ image }); // the first one is a measurement of how fast it is
    await Promise.all(rows.map(ask));
    const [statistics] = running.statistics("food", main);
    const executions = statistics?.batches.reduce((sum, { infer }) => sum + infer.count, 0);
    const inferences = statistics?.batches.reduce((sum, { size, infer }) => sum + size * infer.count, 0);
    expect(statistics).toMatchObject({
      inferenceCount: 13,
      success: { count: 13 },
      executionCount: executions,
    });
    expect(inferences).toBe(13);
    expect(executions).toBeLessThan(13);
  });

  it("have the parts of a request's time, which are no more than all of it", async () => {
    const { running, main } = await food();
    for (let time = 0; time < 5; time++)
      await running.infer({ routes: ["food"], inputs: { image }, cache: false });
    const [statistics] = running.statistics("food", main);
    const { queue, computeInput, computeInfer, computeOutput, success } = statistics ?? expect.fail();
    const parts = [queue, computeInput, computeInfer, computeOutput];
    for (const { count, ns } of parts) {
      expect(count).toBe(5);
      expect(ns).toBeGreaterThan(0);
    }
    expect(parts.reduce((sum, { ns }) => sum + ns, 0)).toBeLessThanOrEqual(success.ns + 5 * parts.length);
  });
});

describe("spans", () => {
  afterEach(() => {
    trace.disable();
    context.disable();
  });

  it("of a recorded request tell its queue, backbone and head", async () => {
    const { running } = await food();
    const storage = new AsyncLocalStorage<Context>();
    const manager: ContextManager = {
      active: () => storage.getStore() ?? ROOT_CONTEXT,
      with: (active, run, self, ...values) => storage.run(active, () => run.apply(self, values)),
      bind: (_, target) => target,
      enable: () => manager,
      disable: () => manager,
    };
    context.setGlobalContextManager(manager);
    const spans: { name: string; length: number; parent: string | undefined }[] = [];
    const parent: Span = Object.assign(
      trace.wrapSpanContext({ traceId: "1".repeat(32), spanId: "2".repeat(16), traceFlags: 1 }),
      { isRecording: () => true },
    );
    trace.setGlobalTracerProvider({
      getTracer: () => ({
        startSpan: (name, { startTime } = {}, given) => {
          const recorded = {
            name,
            length: Number.NaN,
            parent: trace.getSpan(given ?? context.active())?.spanContext().spanId,
          };
          spans.push(recorded);
          return Object.assign(trace.wrapSpanContext(parent.spanContext()), {
            end: (time?: unknown) => {
              recorded.length = Number(time) - Number(startTime);
            },
          });
        },
        startActiveSpan: () => expect.fail("spans are written when all is known"),
      }),
    });
    const ask = () => running.infer({ routes: ["food"], inputs: { image }, cache: false });
    await ask();
    expect(spans).toEqual([]);
    await context.with(trace.setSpan(ROOT_CONTEXT, parent), ask);
    expect(spans.map(({ name }) => name)).toEqual(["queue", "backbone", "head"]);
    for (const { length, parent: above } of spans) {
      expect(length).toBeGreaterThanOrEqual(0);
      expect(above).toBe("2".repeat(16));
    }
  });
});
