/** A client in another language, with other people's protobuf and gRPC, made from the published service. */
import { execFile } from "node:child_process";
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { promisify } from "node:util";
import { expect, it } from "vitest";
import { startGrpc } from "../../../src/server/grpc/server.js";
import { FakeService } from "../fake-service.js";
import { pythonWithGrpc, writePythonStubs } from "./python-stubs.js";

const client = new URL("client.py", import.meta.url).pathname;

it.skipIf(pythonWithGrpc === undefined)(
  "Python's grpcio understands the server (needs python3-grpcio)",
  async () => {
    const service = new FakeService();
    const server = await startGrpc(service, {
      port: 0,
      logger: { info: () => undefined, error: () => undefined },
    });
    const stubs = mkdtempSync(join(tmpdir(), "polyhead-stubs-"));
    try {
      writePythonStubs(stubs);
      const { stdout } = await promisify(execFile)(pythonWithGrpc ?? "", [client, stubs, server.address]);
      expect(JSON.parse(stdout)).toEqual({
        live: true,
        ready: true,
        server: "polyhead",
        inputs: [["image", "FP32", [-1, 3]]],
        config: ["food", true, [[3]]],
        raw: ["raw", "scores", [2, 4, 6]],
        typed: ["typed", [2, 4, 6]],
        revision: "sha256-food2",
        several: ["food/scores", "food/names", "coco/model/boxes"],
        stream: [
          ["1", false],
          ["2", true],
          ["3", false],
        ],
        count: 12,
        unload: ["OK", "UNAVAILABLE"],
        load: ["OK", "READY"],
        missing: "NOT_FOUND",
      });
      expect(service.changes.map(({ file }) => file)).toEqual([
        undefined,
        new Uint8Array(Buffer.from("onnx")),
      ]);
    } finally {
      rmSync(stubs, { recursive: true });
      await server.close();
    }
  },
);
