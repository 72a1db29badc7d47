// Regenerates the protobuf messages from proto/. Needs `protoc` on the PATH.
import { execFileSync } from "node:child_process";

/** Which folder holds what is made of which file. */
const OUTPUTS = {
  "src/onnx/generated": ["onnx.proto"],
  "src/server/grpc/generated": ["inference.proto", "health.proto", "error_details.proto"],
};

for (const [folder, files] of Object.entries(OUTPUTS)) {
  execFileSync(
    "protoc",
    [
      "--plugin=protoc-gen-es=node_modules/.bin/protoc-gen-es",
      `--es_out=${folder}`,
      "--es_opt=target=ts,import_extension=js",
      "--proto_path=proto",
      ...files.map((file) => `proto/${file}`),
    ],
    { stdio: "inherit" },
  );
}
