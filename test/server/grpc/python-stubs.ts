/** Python's side of the published service without protoc: a module like the one that protoc writes. */
import { execFileSync } from "node:child_process";
import { writeFileSync } from "node:fs";
import { join } from "node:path";
import { toBinary } from "@bufbuild/protobuf";
import { FileDescriptorProtoSchema } from "@bufbuild/protobuf/wkt";
import { file_inference } from "../../../src/server/grpc/generated/inference_pb.js";

/** An interpreter with grpcio and protobuf; Debian's stands apart from others that may come first. */
export const pythonWithGrpc = ["python3", "/usr/bin/python3"].find((command) =>
  works(command, ["-c", "import grpc, google.protobuf"]),
);

/** Any interpreter. */
export const python = ["python3", "/usr/bin/python3"].find((command) => works(command, ["--version"]));

/** Writes `inference_pb2.py` into a folder. */
export function writePythonStubs(folder: string): void {
  const bytes = Buffer.from(toBinary(FileDescriptorProtoSchema, file_inference.proto));
  writeFileSync(
    join(folder, "inference_pb2.py"),
    `import base64
from google.protobuf import descriptor_pool, message_factory

_pool = descriptor_pool.DescriptorPool()
_pool.AddSerializedFile(base64.b64decode("${bytes.toString("base64")}"))
DESCRIPTOR = _pool.FindFileByName("${file_inference.proto.name}")
_make = getattr(message_factory, "GetMessageClass", None) or message_factory.MessageFactory(_pool).GetPrototype
for _name, _described in DESCRIPTOR.message_types_by_name.items():
    globals()[_name] = _make(_described)
`,
  );
}

function works(command: string, args: string[]): boolean {
  try {
    execFileSync(command, args, { stdio: "ignore" });
    return true;
  } catch {
    return false;
  }
}
