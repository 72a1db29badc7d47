/**
 * The process in which a {@link Trial} runs. A thread of it has ONNX Runtime; this one only watches how much processor
 * time and memory that takes, and ends the process when it is more than allowed: nothing else can stop a run. The
 * process also ends when its parent has gone, and takes the folder of the trial, its only argument, with it.
 */
import { rmSync } from "node:fs";
import { PolyheadError } from "../../base/errors.js";
import { inMebibytes } from "../../onnx/memory.js";
import { OrtWorker } from "../../runtime/node/ort-worker.js";
import { type PlainResult, plain, type Task } from "../../runtime/node/protocol.js";
import type { Allowance, TrialRequest, TrialResponse } from "./protocol.js";

const WATCH_EVERY_MILLISECONDS = 20;

const [, , folder] = process.argv;
const worker = OrtWorker.start();
let last: Promise<void> = Promise.resolve();
process.on("message", (request: TrialRequest) => {
  last = last.then(() => answer(request));
});
process.once("disconnect", () => {
  if (folder !== undefined) rmSync(folder, { recursive: true, force: true });
  end();
});

async function answer({ id, task, allowance }: TrialRequest): Promise<void> {
  const watch = watchOver(id, allowance);
  try {
    const result = await perform(task);
    send({ id, result, taken: [] });
  } catch (thrown) {
    send(failure(id, thrown));
  } finally {
    clearInterval(watch);
  }
}

async function perform(task: Task): Promise<PlainResult | undefined> {
  const backend = await worker;
  switch (task.kind) {
    case "create":
      await backend.create(task.session, task.model, task.options);
      return undefined;
    case "run": {
      const { failures, ...result } = await backend.run(task.program, task.values);
      return { ...result, failures: [...failures].map(([name, error]) => [name, plain(error)]) };
    }
    case "release":
      await backend.release(task.number);
      return undefined;
    default:
      throw new PolyheadError("INTERNAL", `A trial has no use for the task ${task.kind}.`, {});
  }
}

function watchOver(id: number, { seconds, bytes }: Allowance): NodeJS.Timeout {
  const start = process.cpuUsage();
  return setInterval(() => {
    const { user, system } = process.cpuUsage(start);
    const rss = process.memoryUsage.rss();
    const excess =
      (user + system) / 1e6 > seconds
        ? `more than ${seconds.toFixed(1)} s of processor time`
        : rss > bytes
          ? `more than ${inMebibytes(bytes)} of memory`
          : undefined;
    if (excess === undefined) return;
    const error = new PolyheadError(
      "LIMIT_EXCEEDED",
      `ONNX Runtime took ${excess} for the model, which is far more than its size and operators explain; it was stopped. Look for loops without an end and for sizes that the data decides.`,
      { seconds, bytes },
    );
    send(failure(id, error), end);
  }, WATCH_EVERY_MILLISECONDS);
}

function failure(id: number, thrown: unknown): TrialResponse {
  const error =
    thrown instanceof PolyheadError ? thrown : new PolyheadError("INTERNAL", `The trial failed: ${thrown}`);
  return { id, error: plain(error), taken: [] };
}

function send(response: TrialResponse, done: () => void = () => {}): void {
  process.send?.(response, undefined, undefined, done);
}

function end(): void {
  process.kill(process.pid, "SIGKILL");
}
