/** A whole model in ONNX Runtime itself, in a process of its own: what a server could reach at most. */
import { InferenceSession, Tensor } from "onnxruntime-node";
import { numbers } from "../models.js";
import { answerParent } from "./child.js";

/** @type {Map<string, InferenceSession>} */
const sessions = new Map();

answerParent(async ({ load, run }) => {
  if (load) {
    const { name, file, threads, spinning } = load;
    const session = await InferenceSession.create(file, {
      intraOpNumThreads: threads,
      interOpNumThreads: 1,
      extra: { session: { intra_op: { allow_spinning: spinning ? "1" : "0" } } },
      logSeverityLevel: 3,
    });
    sessions.set(name, session);
    return {};
  }
  const session = sessions.get(run.name);
  if (!session) throw new Error(`No model ${run.name}.`);
  const { shape, seconds } = run;
  const [batch = 1] = shape;
  const count = shape.reduce((/** @type {number} */ a, /** @type {number} */ b) => a * b, 1);
  const input = new Tensor("float32", numbers(count, 1), shape);
  let rows = 0;
  const used = process.cpuUsage();
  const start = performance.now();
  while (performance.now() - start < seconds * 1000) {
    await session.run({ [session.inputNames[0] ?? ""]: input });
    rows += batch;
  }
  const { user, system } = process.cpuUsage(used);
  return { perSecond: (rows * 1000) / (performance.now() - start), cpu: (user + system) / 1000 / rows };
});
