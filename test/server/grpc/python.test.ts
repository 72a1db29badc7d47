/** A client in another language, with other people's protobuf and gRPC, made from the published service. */
import { execFile, execFileSync } from "node:child_process";
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { promisify } from "node:util";
import { expect, it } from "vitest";
import { startGrpc } from "../../../src/server/grpc/server.js";
import { FakeService } from "../fake-service.js";

/** An interpreter with grpcio; Debian's stands apart from others that may come first. */
const python = ["python3", "/usr/bin/python3"].find((command) => works(command, ["-c", "import grpc"]));
const client = new URL("client.py", import.meta.url).pathname;
const proto = new URL("../../../proto", import.meta.url).pathname;

it.skipIf(python === undefined || !works("protoc", ["--version"]))(
  "Python's grpcio understands the server (needs python3-grpcio and protoc)",
  async () => {
    const service = new FakeService();
    const server = await startGrpc(service, {
      port: 0,
      logger: { info: () => undefined, error: () => undefined },
    });
    const stubs = mkdtempSync(join(tmpdir(), "polyhead-stubs-"));
    try {
      execFileSync("protoc", [`--proto_path=${proto}`, `--python_out=${stubs}`, "inference.proto"]);
      const { stdout } = await promisify(execFile)(python ?? "", [client, stubs, server.address]);
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

function works(command: string, args: string[]): boolean {
  try {
    execFileSync(command, args, { stdio: "ignore" });
    return true;
  } catch {
    return false;
  }
}
