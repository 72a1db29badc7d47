/**
 * Loaded into a server before its own code, so that the benchmark can ask what only the process itself knows:
 * processor time, resident memory, and how late its main thread's timers are.
 */
import { monitorEventLoopDelay } from "node:perf_hooks";
import { isMainThread } from "node:worker_threads";

/** Milliseconds between two looks at the event loop; the histogram counts them in. */
const RESOLUTION = 2;

if (isMainThread && process.send) {
  const delays = monitorEventLoopDelay({ resolution: RESOLUTION });
  delays.enable();
  process.on("message", () => {
    const late = (/** @type {number} */ nanoseconds) => Math.max(0, nanoseconds / 1e6 - RESOLUTION);
    process.send?.({
      rss: process.memoryUsage.rss(),
      cpu: process.cpuUsage(),
      delay: { p50: late(delays.percentile(50)), p99: late(delays.percentile(99)), max: late(delays.max) },
    });
    delays.reset();
  });
}
