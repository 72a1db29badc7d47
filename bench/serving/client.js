/**
 * The clients, in a process of their own: so many connections, each of which sends its next request when it has
 * the answer to the last, or at a pace of their own, whatever the server does. No two requests have equal inputs, so that nothing comes from the feature cache.
 */
import { readFileSync } from "node:fs";
import { Agent, request as httpRequest } from "node:http";
import { setTimeout as wait } from "node:timers/promises";
import { create, toBinary } from "@bufbuild/protobuf";
import { Client, credentials } from "@grpc/grpc-js";
import { ModelInferRequestSchema } from "../../dist/server/grpc/generated/inference_pb.js";
import { numbers } from "../models.js";
import { answerParent } from "./child.js";
import { INPUT } from "./models.js";

/**
 * @typedef {{ kind: "tensor" | "bare" | "json" | "image" | "grpc", address: string, routes: readonly string[],
 *   together?: boolean, shape: readonly number[], photo?: string, connections: number, seconds: number, settle?: number,
 *   pace?: { perSecond: number, seed: number } }} Load
 *   `together`: every request names all routes; else they take turns. `settle`: seconds before those that count, so that
 *   requests which all begin at once, and bodies which arrive all at once, are over; answers after the end do not count
 *   then. `bare`: a tensor without JSON before it. `pace`:
 *   requests come at random moments, so many a second; a latency counts from the moment that its request was due, and
 *   one that finds all connections taken waits for one
 */
/** @typedef {{ body: Buffer, headers: Record<string, string>, mark: (turn: number) => void }} Prepared */

const LENGTH = "inference-header-content-length";

/** @type {Record<Load["kind"], (load: Load, connection: number) => Prepared>} */
const PREPARE = {
  tensor: ({ shape, routes, together }, connection) => {
    const raw = tensorBytes(shape, connection);
    const parameters = { binary_data_output: true, ...(together && { routes: routes.join(",") }) };
    const input = { name: INPUT, shape, datatype: "FP32", parameters: { binary_data_size: raw.length } };
    const json = Buffer.from(JSON.stringify({ inputs: [input], parameters }));
    const padded = Buffer.concat([json, Buffer.alloc((4 - (json.length % 4)) % 4, " ")]);
    const body = Buffer.concat([padded, raw]);
    const headers = { "content-type": "application/octet-stream", [LENGTH]: String(padded.length) };
    return { body, headers, mark: (turn) => body.writeFloatLE(turn, padded.length) };
  },
  bare: ({ shape }, connection) => {
    const body = tensorBytes(shape, connection);
    const headers = { "content-type": "application/octet-stream", [LENGTH]: "0" };
    return { body, headers, mark: (turn) => body.writeFloatLE(turn, 0) };
  },
  json: ({ shape }, connection) => {
    const values = tensorOf(shape, connection);
    const data = Array.from(values, (value) => value.toFixed(4));
    const head = `{"inputs":[{"name":"${INPUT}","shape":${JSON.stringify(shape)},"datatype":"FP32","data":[`;
    const body = Buffer.from(`${head}${"0".padStart(12)},${data.slice(1).join(",")}]}]}`);
    const mark = (/** @type {number} */ turn) => body.write(String(turn).padStart(12), head.length);
    return { body, headers: { "content-type": "application/json" }, mark };
  },
  image: ({ photo = "" }) => {
    const file = readFileSync(photo);
    const body = Buffer.concat([file, Buffer.alloc(8)]); // decoders stop at the end of the image
    return {
      body,
      headers: { "content-type": "image/jpeg" },
      mark: (turn) => body.writeDoubleLE(turn, file.length),
    };
  },
  grpc: ({ shape }, connection) => {
    const raw = tensorBytes(shape, connection);
    return { body: raw, headers: {}, mark: (turn) => raw.writeFloatLE(turn, 0) };
  },
};

answerParent(async (/** @type {Load} */ load) => {
  const agent = new Agent({ keepAlive: true, maxSockets: load.connections });
  const client = load.kind === "grpc" ? new Client(load.address, credentials.createInsecure()) : undefined;
  const latencies = /** @type {number[]} */ ([]);
  let failed = 0;
  let failure = "";
  let turn = 0;
  let sent = 0;
  let answered = 0;
  const { settle = 0 } = load;
  const start = performance.now() + settle * 1000;
  const end = start + load.seconds * 1000;
  const isCounted = (/** @type {number} */ now) => settle === 0 || (now >= start && now <= end);
  const due = load.pace && arrivals(load.pace, load.seconds)[Symbol.iterator]();
  /** When the next request is to be sent; undefined when there is none. */
  const nextDue = () => {
    if (!due) return performance.now() < end ? performance.now() : undefined;
    const next = due.next();
    return next.done ? undefined : start + next.value;
  };
  const connect = async (/** @type {number} */ connection) => {
    const prepared = bodyOf(load, connection);
    for (let time = nextDue(); time !== undefined; time = nextDue()) {
      if (due) await wait(Math.max(0, time - performance.now()));
      const route = load.routes[load.together ? 0 : turn % load.routes.length] ?? "";
      prepared.mark(marks++);
      turn++;
      sent++;
      const reason = client
        ? await call(client, route, load.shape, prepared)
        : await post(agent, `${load.address}/v2/models/${route}/infer`, prepared);
      const now = performance.now();
      if (reason !== undefined) failed++;
      else answered += Number(isCounted(now));
      if (isCounted(now)) latencies.push(now - time);
      failure ||= reason ?? "";
    }
  };
  await Promise.all(Array.from({ length: load.connections }, (_, at) => connect(at)));
  const seconds = settle === 0 ? (performance.now() - start) / 1000 : load.seconds;
  agent.destroy();
  client?.close();
  return { perSecond: answered / seconds, latencies, sent, failed, failure };
});

/**
 * Moments at which requests are due, in milliseconds, as if each came by itself (a Poisson process); equal seeds are
 * equal moments.
 * @param {NonNullable<Load["pace"]>} pace
 * @param {number} seconds
 */
function arrivals({ perSecond, seed }, seconds) {
  const chances = numbers(Math.ceil(perSecond * seconds * 2) + 100, seed);
  const found = [];
  let time = 0;
  for (const chance of chances) {
    time -= (1000 / perSecond) * Math.log(Math.max(1e-9, (chance + 1) / 2));
    if (time >= seconds * 1000) break;
    found.push(time);
  }
  return found;
}

/** Requests so far, of all loads. */
let marks = 1;
/** @type {Map<string, Prepared>} bodies take long to make */
const bodies = new Map();

/**
 * @param {Load} load
 * @param {number} connection
 */
function bodyOf(load, connection) {
  const key = JSON.stringify([load.kind, load.shape, load.together && load.routes, connection]);
  const known = bodies.get(key) ?? PREPARE[load.kind](load, connection);
  bodies.set(key, known);
  return known;
}

/**
 * @param {Agent} agent
 * @param {string} url
 * @param {Prepared} prepared
 * @returns {Promise<string | undefined>} why it was not answered
 */
function post(agent, url, { body, headers }) {
  return new Promise((resolve, reject) => {
    const request = httpRequest(url, {
      method: "POST",
      agent,
      headers: { ...headers, "content-length": body.length },
    });
    request.on("error", reject);
    request.on("response", (response) => {
      const isAnswered = response.statusCode === 200;
      let text = "";
      response.on("data", (bytes) => {
        if (!isAnswered) text += bytes;
      });
      response.on("error", reject);
      response.on("end", () => resolve(isAnswered ? undefined : `${response.statusCode} ${text}`));
    });
    request.end(body);
  });
}

/**
 * @param {Client} client
 * @param {string} route
 * @param {readonly number[]} shape
 * @param {Prepared} prepared
 * @returns {Promise<string | undefined>} why it was not answered
 */
function call(client, route, shape, { body }) {
  const message = create(ModelInferRequestSchema, {
    modelName: route,
    inputs: [{ name: INPUT, datatype: "FP32", shape: shape.map(BigInt) }],
    rawInputContents: [body],
  });
  const bytes = Buffer.from(toBinary(ModelInferRequestSchema, message));
  const same = (/** @type {Buffer} */ each) => each;
  return new Promise((resolve) => {
    const path = "/inference.GRPCInferenceService/ModelInfer";
    client.makeUnaryRequest(path, same, same, bytes, (error) => resolve(error?.message));
  });
}

/**
 * @param {readonly number[]} shape
 * @param {number} seed
 */
function tensorOf(shape, seed) {
  const count = shape.reduce((a, b) => a * b, 1);
  return numbers(count, seed + 1).map((value) => 127.5 * (value + 1));
}

/**
 * @param {readonly number[]} shape
 * @param {number} seed
 */
function tensorBytes(shape, seed) {
  return Buffer.from(tensorOf(shape, seed).buffer);
}
