/** A client in another language, with other people's protobuf and gRPC, made from the published service. */
import { execFile } from "node:child_process";
import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { promisify } from "node:util";
import { expect, it } from "vitest";
import { modelBytes } from "../../../src/onnx/write.js";
import { startGrpc } from "../../../src/server/grpc/server.js";
import { food } from "../protocol-models.js";
import { endDeployments } from "../small-deployment.js";
import { pythonWithGrpc, writePythonStubs } from "./python-stubs.js";
import { served } from "./served.js";

const client = new URL("client.py", import.meta.url).pathname;

it.skipIf(pythonWithGrpc === undefined)(
  "Python's grpcio understands the server (needs python3-grpcio)",
  async () => {
    const service = await served();
    const server = await startGrpc(service, {
      port: 0,
      logger: { info: () => undefined, error: () => undefined },
    });
    const stubs = mkdtempSync(join(tmpdir(), "polyhead-stubs-"));
    try {
      writePythonStubs(stubs);
      const file = join(stubs, "food.onnx");
      writeFileSync(file, modelBytes(food(5)));
      const words = [client, stubs, server.address, file];
      const { stdout } = await promisify(execFile)(pythonWithGrpc ?? "", words);
      expect(JSON.parse(stdout)).toEqual({
        live: true,
        ready: true,
        server: "polyhead",
        inputs: [["image", "FP32", [-1, 3]]],
        config: ["food", true, [[3]]],
        raw: ["raw", "scores", [2, 4, 6]],
        typed: ["typed", [2, 4, 6]],
        revision: service.revisions.twice,
        several: ["food/scores", "food/names", "coco/model/boxes"],
        stream: [
          ["1", false],
          ["2", true],
          ["3", false],
        ],
        count: 5,
        unload: ["OK", "UNAVAILABLE"],
        load: ["OK", "READY", [5, 10, 15]],
        missing: "NOT_FOUND",
      });
    } finally {
      rmSync(stubs, { recursive: true });
      await server.close();
      await endDeployments();
    }
  },
);
