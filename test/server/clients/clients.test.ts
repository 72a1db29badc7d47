/** Triton's and KServe's clients replayed against a real deployment, by scripts in their language. */
import { execFile } from "node:child_process";
import { mkdtemp, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { promisify } from "node:util";
import { pino } from "pino";
import { afterEach, expect, it } from "vitest";
import { modelBytes } from "../../../src/onnx/write.js";
import { startGrpc } from "../../../src/server/grpc/server.js";
import { startHttp } from "../../../src/server/http/start-http.js";
import { python, pythonWithGrpc, writePythonStubs } from "../grpc/python-stubs.js";
import { backbone, deploy, endDeployments, head, newFolder } from "../small-deployment.js";

const logger = pino({ level: "silent" });
const closing: (() => Promise<void>)[] = [];
afterEach(async () => {
  for (const close of closing.splice(0).reverse()) await close();
  await endDeployments();
});

/** A deployment with the route `food`, whose backbone was kept as `trunk`, and the file of another head. */
async function deployment() {
  const running = await deploy(await newFolder());
  const trunk = await backbone();
  await running.keep(trunk, "trunk.onnx");
  await running.addModel(modelBytes(head(trunk, [1, 0, 0, 1])), "food", { by: "test" });
  const folder = await mkdtemp(join(tmpdir(), "clients-"));
  closing.push(() => rm(folder, { recursive: true, force: true }));
  const file = join(folder, "model.onnx");
  await writeFile(file, modelBytes(head(trunk, [0, 1, 1, 0])));
  return { running, folder, file };
}

async function run(interpreter: string | undefined, script: string, ...words: string[]): Promise<unknown> {
  const path = new URL(script, import.meta.url).pathname;
  const { stdout } = await promisify(execFile)(interpreter ?? "", [path, ...words]);
  return JSON.parse(stdout);
}

const tensor = (name: string, shape: number[]) => ({ name, datatype: "FP32", shape });

it.skipIf(python === undefined)(
  "HTTP clients of Triton and KServe work unchanged (needs python3)",
  async () => {
    const { running, file } = await deployment();
    const server = await startHttp(running, { port: 0, logger });
    closing.push(() => server.close());
    const { hostname, port } = new URL(server.address);
    const answer = (encoding: string | null, id: string | null = null) => [encoding, id, { scores: [1, 3] }];
    expect(await run(python, "http_clients.py", hostname, port, file)).toEqual({
      live: [200, 200, 200],
      ready: [200, true],
      server: true,
      metadata: ["food", [tensor("image", [-1, 2, 2, 2])], [tensor("scores", [-1, 2])]],
      same: true,
      backbone: [tensor("mean", [-1, 2, 1, 1])],
      config: {
        name: "food",
        platform: "onnxruntime_onnx",
        backend: "onnxruntime",
        max_batch_size: 2 ** 24 / 8,
        input: [{ name: "image", data_type: "TYPE_FP32", dims: [2, 2, 2] }],
        output: [{ name: "scores", data_type: "TYPE_FP32", dims: [2] }],
      },
      config_of_version: "food",
      binary: answer(null, "1"),
      versioned: answer(null),
      output: answer(null),
      output_json: answer(null),
      json: answer(null),
      classes: [null, null, { scores: ["3:1:b", "1:0:a"] }],
      class_json: [null, null, { scores: ["3:1:b"] }],
      gzip: answer("gzip"),
      deflate: answer("deflate"),
      chunked: answer(null),
      sequence: answer(null),
      custom: answer(null),
      shared: [400, true],
      unknown: [404, true],
      stats: true,
      stats_of_version: true,
      stats_of_all: ["food"],
      regions: [[], []],
      unregister: [null, null],
      register: [400, true],
      index: { food: "READY", trunk: "READY" },
      load: [{}, {}, "READY"],
      unload: [{}, "UNAVAILABLE", false, {}, true],
      load_unknown: [404, true],
      kserve: [
        [200, "7d1c", "food", [1, 3]],
        [200, "7d1c", "food", [1, 3]],
      ],
      kserve_ready: [true, true],
      kserve_error: [400, "application/json", true],
    });
  },
);

it.skipIf(pythonWithGrpc === undefined)(
  "gRPC clients of Triton and KServe work unchanged (needs python3-grpcio)",
  async () => {
    const { running, folder, file } = await deployment();
    const server = await startGrpc(running, { port: 0, logger });
    closing.push(() => server.close());
    writePythonStubs(folder);
    const scores = {
      scores: [
        [1, 2],
        [1, 3],
      ],
    };
    expect(await run(pythonWithGrpc, "grpc_clients.py", folder, server.address, file)).toEqual({
      live: [true, true],
      ready: [true, false],
      extensions: true,
      metadata: [[-1, 2]],
      backbone: ["mean"],
      config: ["onnxruntime_onnx", [[2, 2, 2]]],
      raw: ["1", "food", scores],
      classes: {
        scores: [
          [1, 2],
          ["3:1:b", "1:0:a"],
        ],
      },
      gzip: scores,
      deflate: scores,
      sequence: scores,
      shared: ["INVALID_ARGUMENT", true],
      stream: [["", "s", true]],
      statistics: true,
      regions: 0,
      region: ["NOT_FOUND", true],
      unregister: "OK",
      register: ["UNIMPLEMENTED", true],
      load: ["OK", "READY"],
      unload: ["OK", "UNAVAILABLE", false],
      unknown: ["NOT_FOUND", true],
      kserve: [[1, 3], scores, true],
    });
  },
);
