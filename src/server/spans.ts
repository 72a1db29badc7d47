/**
 * Spans of what an answer took, for traces: the queue, then each segment that ran. The engine tells lengths and not
 * times of day, so the spans have measured lengths and lie one after the other before the answer.
 */
import { trace } from "@opentelemetry/api";
import type { Answer } from "../engine/index.js";

/** Writes the spans of an answer that has just come, as children of the active span; nothing when none records. */
export function spansOf({ queued, running, ran, cached, batchRows, generation }: Answer): void {
  if (!trace.getActiveSpan()?.isRecording()) return;
  const tracer = trace.getTracer("polyhead");
  const end = Date.now();
  const write = (name: string, start: number, length: number, attributes: Record<string, unknown>) => {
    const shown = Object.fromEntries(
      Object.entries(attributes).map(([key, value]) => [
        `polyhead.${key}`,
        value as string | number | boolean,
      ]),
    );
    tracer.startSpan(name, { startTime: start, attributes: shown }).end(start + length);
  };
  write("queue", end - running - queued, queued, { generation });
  let start = end - running;
  for (const { usedBy, milliseconds } of ran) {
    const attributes = {
      batch_rows: batchRows,
      cached,
      models: usedBy.map((each) => each.slice(0, 12)).join(","),
    };
    write(usedBy.length > 1 ? "backbone" : "head", start, milliseconds, attributes);
    start += milliseconds;
  }
}
