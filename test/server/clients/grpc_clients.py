"""What Triton's and KServe's Python clients send over gRPC, and what they read of the answers.

Usage: python3 grpc_clients.py STUBS ADDRESS MODEL_FILE. Written after tritonclient.grpc and kserve's
InferenceGRPCClient. Prints what it saw as JSON.
"""

import json
import struct
import sys

sys.path.insert(0, sys.argv[1])
import grpc  # noqa: E402
import inference_pb2 as pb  # noqa: E402

MODEL = open(sys.argv[3], "rb").read()
IMAGE = struct.pack("<8f", 1, 1, 1, 1, 3, 3, 3, 3)
RETRIES = {
    "methodConfig": [
        {
            "name": [{}],
            "retryPolicy": {
                "maxAttempts": 3,
                "initialBackoff": "0.1s",
                "maxBackoff": "1s",
                "backoffMultiplier": 2,
                "retryableStatusCodes": ["UNAVAILABLE"],
            },
        }
    ]
}
options = [("grpc.max_send_message_length", -1), ("grpc.max_receive_message_length", -1)]
triton = grpc.insecure_channel(sys.argv[2], options=options + [("grpc.keepalive_time_ms", 2**31 - 1)])
kserve = grpc.insecure_channel(
    sys.argv[2], options=options + [("grpc.enable_retries", 1), ("grpc.service_config", json.dumps(RETRIES))]
)
service = pb.DESCRIPTOR.services_by_name["GRPCInferenceService"]


def method(name, channel=triton):
    described = service.methods_by_name[name]
    request = getattr(pb, described.input_type.name)
    response = getattr(pb, described.output_type.name)
    make = channel.stream_stream if name == "ModelStreamInfer" else channel.unary_unary
    return make(f"/{service.full_name}/{name}", request.SerializeToString, response.FromString)


def outcome(call):
    try:
        call()
    except grpc.RpcError as error:
        return [error.code().name, error.details() != ""]
    return "OK"


def request(outputs=(), **more):
    made = pb.ModelInferRequest(model_name="food", model_version="", **more)
    made.inputs.add(name="image", datatype="FP32", shape=[1, 2, 2, 2])
    made.raw_input_contents.append(IMAGE)
    for name, parameters in outputs:
        output = made.outputs.add(name=name)
        for key, value in parameters.items():
            output.parameters[key].int64_param = value
    return made


def arrays(answer):
    """InferResult.as_numpy of every output."""
    read = {}
    for output, raw in zip(answer.outputs, answer.raw_output_contents):
        if output.datatype == "BYTES":
            texts, at = [], 0
            while at < len(raw):
                (count,) = struct.unpack_from("<I", raw, at)
                texts.append(raw[at + 4 : at + 4 + count].decode())
                at += 4 + count
            read[output.name] = [list(output.shape), texts]
        else:
            read[output.name] = [list(output.shape), list(struct.unpack(f"<{len(raw) // 4}f", raw))]
    return read


def index(ready=False):
    return {model.name: model.state for model in method("RepositoryIndex")(pb.RepositoryIndexRequest(ready=ready)).models}


infer = method("ModelInfer")
sequence = request()
sequence.parameters["sequence_id"].int64_param = 42
sequence.parameters["sequence_start"].bool_param = True
sequence.parameters["sequence_end"].bool_param = False
sequence.parameters["priority"].uint64_param = 1
sequence.parameters["timeout"].int64_param = 30000000
sequence.parameters["my_parameter"].string_param = "x"
shared = request()
shared.ClearField("raw_input_contents")
shared.inputs[0].parameters["shared_memory_region"].string_param = "r"
shared.inputs[0].parameters["shared_memory_byte_size"].int64_param = 32
streamed = request(id="s")
streamed.parameters["triton_enable_empty_final_response"].bool_param = True
typed = pb.ModelInferRequest(id="k", model_name="food")
contents = typed.inputs.add(name="image", datatype="FP32", shape=[1, 2, 2, 2])
contents.contents.fp32_contents.extend([1, 1, 1, 1, 3, 3, 3, 3])
numpy = request(id="n")
numpy.inputs[0].parameters["binary_data_size"].int64_param = len(IMAGE)
load = pb.RepositoryModelLoadRequest(model_name="third")
load.parameters["config"].string_param = "{}"
load.parameters["file:1/model.onnx"].bytes_param = MODEL
unload = pb.RepositoryModelUnloadRequest(model_name="third")
unload.parameters["unload_dependents"].bool_param = False
answer = infer(request(id="1"))
stream = [
    [given.error_message, given.infer_response.id, given.infer_response.parameters["triton_final_response"].bool_param]
    for given in method("ModelStreamInfer")(iter([streamed]))
]
config = method("ModelConfig")(pb.ModelConfigRequest(name="food")).config
seen = {
    "live": [method("ServerLive")(pb.ServerLiveRequest()).live, method("ServerReady")(pb.ServerReadyRequest()).ready],
    "ready": [method("ModelReady")(pb.ModelReadyRequest(name=name)).ready for name in ["food", "none"]],
    "extensions": "classification" in method("ServerMetadata")(pb.ServerMetadataRequest()).extensions,
    "metadata": [list(output.shape) for output in method("ModelMetadata")(pb.ModelMetadataRequest(name="food")).outputs],
    "backbone": [output.name for output in method("ModelMetadata")(pb.ModelMetadataRequest(name="trunk")).outputs],
    "config": [config.platform, [list(tensor.dims) for tensor in config.input]],
    "raw": [answer.id, answer.model_name, arrays(answer)],
    "classes": arrays(infer(request([("scores", {"classification": 2})]))),
    "gzip": arrays(infer(request(), compression=grpc.Compression.Gzip)),
    "deflate": arrays(infer(request(), compression=grpc.Compression.Deflate)),
    "sequence": arrays(infer(sequence)),
    "shared": outcome(lambda: infer(shared)),
    "stream": stream,
    "statistics": method("ModelStatistics")(pb.ModelStatisticsRequest(name="food")).model_stats[0].inference_count > 0,
    "regions": len(method("SystemSharedMemoryStatus")(pb.SystemSharedMemoryStatusRequest()).regions),
    "region": outcome(lambda: method("SystemSharedMemoryStatus")(pb.SystemSharedMemoryStatusRequest(name="r"))),
    "unregister": outcome(lambda: method("CudaSharedMemoryUnregister")(pb.CudaSharedMemoryUnregisterRequest())),
    "register": outcome(lambda: method("SystemSharedMemoryRegister")(pb.SystemSharedMemoryRegisterRequest(name="r"))),
    "load": [outcome(lambda: method("RepositoryModelLoad")(load)), index().get("third")],
    "unload": [outcome(lambda: method("RepositoryModelUnload")(unload)), index().get("third"), "third" in index(True)],
    "unknown": outcome(lambda: infer(pb.ModelInferRequest(model_name="none"))),
    "kserve": [
        list(method("ModelInfer", kserve)(typed).outputs[0].contents.fp32_contents),
        arrays(method("ModelInfer", kserve)(numpy)),
        method("ModelReady", kserve)(pb.ModelReadyRequest(name="food")).ready,
    ],
}
print(json.dumps(seen))
