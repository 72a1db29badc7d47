// Regenerates src/onnx/generated/onnx_pb.ts from proto/onnx.proto. Needs `protoc` on the PATH.
import { execFileSync } from "node:child_process";

execFileSync(
  "protoc",
  [
    "--plugin=protoc-gen-es=node_modules/.bin/protoc-gen-es",
    "--es_out=src/onnx/generated",
    "--es_opt=target=ts,import_extension=js",
    "--proto_path=proto",
    "proto/onnx.proto",
  ],
  { stdio: "inherit" },
);
