/** Clients of a server over HTTP and gRPC, as simple as they can be: a request, its answer, or why there is none. */

import { Agent, request as httpRequest } from "node:http";
import { create, fromBinary, toBinary } from "@bufbuild/protobuf";
import { Client, credentials } from "@grpc/grpc-js";
import {
  ModelInferRequestSchema,
  ModelInferResponseSchema,
} from "../../dist/server/grpc/generated/inference_pb.js";

/**
 * @typedef {{ route: string, revision: string, scores: Float32Array }} RouteAnswer
 * @typedef {{ status: number | string, error?: string, retryAfter?: number, generation: number,
 *   routes: readonly RouteAnswer[] }} InferAnswer where status is that of HTTP or the number of gRPC, or says why there was none
 * @typedef {{ routes: readonly string[], input: Float32Array, side: number, parameters?: Record<string, boolean | string>,
 *   signal?: AbortSignal }} Ask
 * @typedef {{ model_version: string, parameters: { generation: number },
 *   outputs: { data: number[], parameters?: { route?: string, revision?: string } }[] }} InferJson
 * @typedef {{ infer(ask: Ask): Promise<InferAnswer>, close(): void }} InferClient
 */

/**
 * @param {string} url
 * @param {{ json?: boolean }} [options] whether tensors go as JSON instead of as binary data
 * @returns {InferClient}
 */
export function httpClient(url, { json = false } = {}) {
  const agent = new Agent({ keepAlive: true });
  return {
    async infer({ routes, input, side, parameters = {}, signal }) {
      const [first = ""] = routes;
      const bytes = json ? Buffer.alloc(0) : Buffer.from(input.buffer, input.byteOffset, input.byteLength);
      const data = json ? { data: [...input] } : { parameters: { binary_data_size: bytes.length } };
      const head = Buffer.from(
        JSON.stringify({
          parameters: { routes, ...parameters },
          inputs: [{ name: "image", datatype: "FP32", shape: [1, 3, side, side], ...data }],
        }),
      );
      const headers = json
        ? { "content-type": "application/json" }
        : { "content-type": "application/octet-stream", "inference-header-content-length": head.length };
      const answer = await send(url, {
        method: "POST",
        path: `/v2/models/${first}/infer`,
        headers,
        body: Buffer.concat([head, bytes]),
        agent,
        signal,
      });
      if (answer.status !== 200) return { ...answer, generation: -1, routes: [] };
      const { model_version, parameters: said, outputs } = /** @type {InferJson} */ (answer.json);
      return {
        status: 200,
        generation: said.generation,
        routes: outputs.map((each) => ({
          route: each.parameters?.route ?? first,
          revision: each.parameters?.revision ?? model_version,
          scores: Float32Array.from(each.data),
        })),
      };
    },
    close: () => agent.destroy(),
  };
}

/**
 * @param {string} address
 * @returns {InferClient}
 */
export function grpcClient(address) {
  const client = new Client(address, credentials.createInsecure(), { "grpc.max_receive_message_length": -1 });
  const same = (/** @type {Buffer} */ bytes) => bytes;
  return {
    async infer({ routes, input, side, parameters = {}, signal }) {
      const [first = ""] = routes;
      const all = { routes: routes.join(","), ...parameters };
      const message = create(ModelInferRequestSchema, {
        modelName: first,
        parameters: Object.fromEntries(
          Object.entries(all).map(([name, value]) => [
            name,
            {
              parameterChoice:
                typeof value === "boolean"
                  ? { case: /** @type {const} */ ("boolParam"), value }
                  : { case: /** @type {const} */ ("stringParam"), value },
            },
          ]),
        ),
        inputs: [{ name: "image", datatype: "FP32", shape: [1n, 3n, BigInt(side), BigInt(side)] }],
        rawInputContents: [new Uint8Array(input.buffer, input.byteOffset, input.byteLength)],
      });
      const bytes = Buffer.from(toBinary(ModelInferRequestSchema, message));
      return new Promise((resolve) => {
        const path = "/inference.GRPCInferenceService/ModelInfer";
        const call = client.makeUnaryRequest(path, same, same, bytes, (error, answer) => {
          if (error || !answer) {
            const after = error?.metadata?.get("retry-after")[0];
            resolve({
              status: error?.code ?? "none",
              error: error?.details ?? "no answer",
              ...(after !== undefined && { retryAfter: Number(after) }),
              generation: -1,
              routes: [],
            });
            return;
          }
          const said = fromBinary(ModelInferResponseSchema, answer);
          resolve({
            status: 0,
            generation: Number(said.parameters.generation?.parameterChoice.value ?? -1),
            routes: said.outputs.map((output, at) => ({
              route: String(output.parameters.route?.parameterChoice.value ?? first),
              revision: String(output.parameters.revision?.parameterChoice.value ?? said.modelVersion),
              scores: floats(said.rawOutputContents[at]),
            })),
          });
        });
        if (signal?.aborted) call.cancel();
        signal?.addEventListener("abort", () => call.cancel(), { once: true });
      });
    },
    close: () => client.close(),
  };
}

/**
 * Control over HTTP.
 * @param {string} url
 * @param {string} method
 * @param {string} path
 * @param {Uint8Array | object} [body]
 */
export function control(url, method, path, body) {
  const isFile = body instanceof Uint8Array;
  return send(url, {
    method,
    path: `/polyhead/v1${path}`,
    headers: body ? { "content-type": isFile ? "application/octet-stream" : "application/json" } : {},
    body: isFile ? Buffer.from(body) : Buffer.from(body ? JSON.stringify(body) : ""),
  });
}

/**
 * @param {string} url
 * @param {{ method: string, path: string, headers?: Record<string, string | number>, body?: Buffer, agent?: Agent,
 *   signal?: AbortSignal | undefined }} what
 * @returns {Promise<{ status: number | string, error?: string, retryAfter?: number, json?: unknown }>} never rejects
 */
export function send(url, { method, path, headers = {}, body = Buffer.alloc(0), agent, signal }) {
  return new Promise((resolve) => {
    const fail = (/** @type {Error & { code?: string }} */ error) =>
      resolve({ status: error.code ?? error.name, error: error.message });
    const request = httpRequest(
      `${url}${path}`,
      {
        method,
        headers: { ...headers, "content-length": body.length },
        ...(agent && { agent }),
        ...(signal && { signal }),
      },
      (response) => {
        const parts = /** @type {Buffer[]} */ ([]);
        response.on("data", (part) => parts.push(part));
        response.on("error", fail);
        response.on("end", () => {
          const status = response.statusCode ?? 0;
          const after = response.headers["retry-after"];
          try {
            const json = JSON.parse(Buffer.concat(parts).toString());
            resolve({
              status,
              json,
              ...(json.error !== undefined && { error: json.error }),
              ...(after !== undefined && { retryAfter: Number(after) }),
            });
          } catch (thrown) {
            resolve({ status, error: `the answer is not JSON: ${thrown}` });
          }
        });
      },
    );
    request.on("error", fail);
    request.end(body);
  });
}

/** @param {Uint8Array | undefined} bytes */
function floats(bytes) {
  if (!bytes) return new Float32Array(0);
  return new Float32Array(new Uint8Array(bytes).buffer);
}
