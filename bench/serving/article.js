/** PyTorch behind Python's own server, beside the same network served. */
import { spawn } from "node:child_process";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { loadModel } from "../../dist/index.js";
import { splitModel } from "../../dist/onnx/split.js";
import { threads } from "../models.js";
import { BenchServer } from "./server.js";
import { interleaveSlices, ratesTable } from "./slices.js";

/** @typedef {import("./slices.js").Client} Client */
/** @typedef {import("./slices.js").Plan} Plan */

/**
 * PyTorch behind Python's own server, and the same network served; left out by name where there is no PyTorch.
 * @param {{ client: Client, folder: string, plan: Plan }} bench
 */
export async function measureArticle({ client, folder, plan }) {
  const script = fileURLToPath(new URL("article.py", import.meta.url));
  const reasons = [];
  for (const python of ["python3", "/usr/bin/python3"]) {
    const file = join(folder, "article.onnx");
    const child = spawn(python, ["-W", "ignore", script, String(threads), file], { stdio: "pipe" });
    let [output, errors] = ["", ""];
    child.stderr.setEncoding("utf8").on("data", (text) => {
      errors += text;
    });
    child.on("error", ({ message }) => {
      errors += message;
    });
    const ended = new Promise((resolve) => child.on("close", resolve));
    const started = new Promise((resolve) => {
      child.stdout.setEncoding("utf8").on("data", (text) => {
        output += text;
        if (output.includes("\n")) resolve(undefined);
      });
    });
    try {
      await Promise.race([started, ended]);
      const [port] = output.trim().split("\n");
      if (port) return await besideArticle(`http://127.0.0.1:${port}`, file, { client, plan });
      reasons.push(`${python}: ${errors.trim().split("\n").at(-1)}`);
    } finally {
      child.kill("SIGKILL");
      await ended;
    }
  }
  return { text: `skipped: PyTorch (${reasons.join("; ")})`, results: {}, targets: [] };
}

/**
 * @param {string} address
 * @param {string} file
 * @param {{ client: Client, plan: Plan }} bench
 */
async function besideArticle(address, file, { client, plan }) {
  const whole = await loadModel(file);
  const gemm = whole.graph.node.at(-1)?.input[0] ?? "";
  const { backbone, heads } = await splitModel(whole, { at: [gemm] });
  const [head] = heads;
  if (!head) throw new Error("PyTorch's network has no head.");
  const server = await BenchServer.start({ backbone, routes: { "head-0": head.model } });
  try {
    const bare = { kind: /** @type {const} */ ("bare"), routes: ["head-0"], shape: [1, 3, 224, 224] };
    const send =
      (/** @type {{ address: string, connections: number }} */ load) => (/** @type {number} */ seconds) =>
        client.ask({ ...bare, seconds, ...load });
    const results = await interleaveSlices(
      {
        "Polyhead, 8 clients": send({ address: server.http, connections: 8 }),
        "PyTorch and http.server, 8 clients": send({ address, connections: 8 }),
        "Polyhead, one client": send({ address: server.http, connections: 1 }),
        "PyTorch and http.server, one client": send({ address, connections: 1 }),
      },
      plan,
    );
    const text = `MobileNetV3 (224 x 224, random weights) and one head\n${ratesTable(results, results["Polyhead, 8 clients"]?.perSecond.median ?? 0)}`;
    return { text, results: { article: results }, targets: [] };
  } finally {
    await server.close();
  }
}
