/** A server under measurement: `polyhead serve` as people start it, on a store of its own. */
import { mkdtemp, rm } from "node:fs/promises";
import { Agent, request as httpRequest } from "node:http";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { sparing } from "../../dist/cli/relaunch.js";
import { modelBytes } from "../../dist/onnx/write.js";
import { routeTo, Store } from "../../dist/store/index.js";
import { Child } from "./child.js";

/** @typedef {import("../models.js").Model} Model */
/**
 * @typedef {string | { revisions: { revision: string, weight: number }[], shadows?: string[] }} Target of a route; a
 *   revision for short
 */
/**
 * @typedef {{ rss: number, cpu: { user: number, system: number }, delay: { p50: number, p99: number, max: number } }}
 *   Observation bytes, microseconds, milliseconds
 */
/** @typedef {{ name: string, batch_stats: { batch_size: number, compute_infer: { count: number } }[] }} Statistics */

const COMMAND = fileURLToPath(new URL("../../bin/polyhead.js", import.meta.url));
const OBSERVE = new URL("observe.js", import.meta.url).href;

/** A running server. */
export class BenchServer {
  #child;
  #folder;
  // Connections that nobody uses are closed before the server does it.
  #agent = new Agent({ keepAlive: true, timeout: 2000 });
  http;
  grpc;

  /**
   * @param {Child<object, Observation>} child
   * @param {string} folder
   * @param {{ http: string, grpc: string }} addresses
   */
  constructor(child, folder, { http, grpc }) {
    this.#child = child;
    this.#folder = folder;
    this.http = http;
    this.grpc = grpc;
  }

  /**
   * A server with these models, those with a name under a route of that name.
   * @param {{ backbone?: Model, routes: Record<string, Model> }} models
   * @param {readonly string[]} [flags]
   */
  static async start({ backbone, routes }, flags = []) {
    const folder = await mkdtemp(join(tmpdir(), "polyhead-bench-"));
    const store = await Store.open(folder);
    if (backbone) await store.put(backbone, { title: "backbone.onnx" });
    const targets = new Map();
    for (const [name, model] of Object.entries(routes))
      targets.set(name, routeTo(await store.put(model, { title: `${name}.onnx` })));
    await store.change(
      (all) => {
        for (const [name, target] of targets) all.set(name, target);
      },
      { by: "bench", reason: "add" },
    );
    const addresses = ["--http", "127.0.0.1:0", "--grpc", "127.0.0.1:0"];
    const child = new Child(
      [
        ...["--import", OBSERVE, COMMAND, "serve", "--json", "--store", folder, ...addresses],
        ...["--log-level", "warn", ...flags],
      ],
      // What the command sets for itself with a second start, in which nothing could be observed.
      { env: sparing(process.env), output: "pipe" },
    );
    return new BenchServer(child, folder, JSON.parse(await child.line()));
  }

  /**
   * Memory now, and what happened since the last call.
   * @returns {Promise<Observation>}
   */
  observe() {
    return this.#child.ask({});
  }

  /**
   * Rows that were answered in batches of each size.
   * @returns {Promise<Map<number, number>>}
   */
  async batches() {
    const { model_stats: models } = /** @type {{ model_stats: Statistics[] }} */ (
      await this.#json("/v2/models/stats")
    );
    const rows = new Map();
    for (const { batch_stats: batches } of models)
      for (const { batch_size: size, compute_infer: infer } of batches)
        rows.set(size, (rows.get(size) ?? 0) + infer.count);
    return rows;
  }

  /**
   * @param {Model} model
   * @returns {Promise<string>} its revision, kept ready for the route
   */
  upload(model, /** @type {string} */ route) {
    return this.uploadFile(modelBytes(model), route);
  }

  /**
   * @param {Uint8Array} bytes of a model
   * @returns {Promise<string>} its revision, kept ready for the route
   */
  async uploadFile(bytes, /** @type {string} */ route) {
    const headers = { "content-type": "application/octet-stream" };
    const body = Buffer.from(bytes);
    const answer = await this.#json(`/polyhead/v1/models?route=${route}`, { method: "POST", headers, body });
    return /** @type {{ revision: string }} */ (answer).revision;
  }

  /** @param {Record<string, Target>} targets */
  switch(targets) {
    const headers = { "content-type": "application/json" };
    return this.#json("/polyhead/v1/switch", { method: "POST", headers, body: JSON.stringify({ targets }) });
  }

  async close() {
    this.#agent.destroy();
    await this.#child.close("SIGTERM");
    await rm(this.#folder, { recursive: true });
  }

  /**
   * Without `fetch`, which takes more than twice the processor time: what this process takes is missing for the server.
   * @param {string} path
   * @param {{ method?: string, headers?: Record<string, string>, body?: string | Buffer }} [request]
   * @returns {Promise<unknown>}
   */
  #json(path, { method = "GET", headers = {}, body } = {}) {
    return new Promise((resolve, reject) => {
      const sent = httpRequest(
        new URL(path, this.http),
        { method, headers, agent: this.#agent },
        (response) => {
          let text = "";
          response.setEncoding("utf8");
          response.on("data", (piece) => {
            text += piece;
          });
          response.on("error", reject);
          response.on("end", () => {
            const { statusCode = 0 } = response;
            if (statusCode < 300) resolve(JSON.parse(text));
            else reject(new Error(`${path}: ${statusCode} ${text}`));
          });
        },
      );
      sent.on("error", reject);
      sent.end(body);
    });
  }
}
