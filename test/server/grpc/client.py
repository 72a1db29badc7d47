"""A client of the published service as anybody would write it: stubs from the .proto, Debian's grpcio.

Usage: python3 client.py STUBS ADDRESS MODEL_FILE, where STUBS holds inference_pb2.py. Prints what it saw as JSON.
"""

import json
import struct
import sys

sys.path.insert(0, sys.argv[1])
import grpc  # noqa: E402
import inference_pb2 as pb  # noqa: E402

channel = grpc.insecure_channel(sys.argv[2])
service = pb.DESCRIPTOR.services_by_name["GRPCInferenceService"]


def method(name):
    described = service.methods_by_name[name]
    request = getattr(pb, described.input_type.name)
    response = getattr(pb, described.output_type.name)
    make = channel.stream_stream if name == "ModelStreamInfer" else channel.unary_unary
    return make(f"/{service.full_name}/{name}", request.SerializeToString, response.FromString)


def food(raw, **more):
    request = pb.ModelInferRequest(model_name="food", **more)
    image = request.inputs.add(name="image", datatype="FP32", shape=[1, 3])
    if raw:
        request.raw_input_contents.append(struct.pack("<3f", 1, 2, 3))
    else:
        image.contents.fp32_contents.extend([1, 2, 3])
    return request


def status(call):
    try:
        call()
    except grpc.RpcError as error:
        return error.code().name
    return "OK"


raw = method("ModelInfer")(food(True, id="raw"))
typed = method("ModelInfer")(food(False, id="typed"))
several = food(True)
several.parameters["routes"].string_param = "coco"
config = method("ModelConfig")(pb.ModelConfigRequest(name="food")).config
load = pb.RepositoryModelLoadRequest(model_name="food")
load.parameters["file:1/model.onnx"].bytes_param = open(sys.argv[3], "rb").read()
unload = pb.RepositoryModelUnloadRequest(model_name="food")
index = lambda: {  # noqa: E731
    model.name: model.state
    for model in method("RepositoryIndex")(pb.RepositoryIndexRequest()).models
}
seen = {
    "live": method("ServerLive")(pb.ServerLiveRequest()).live,
    "ready": method("ModelReady")(pb.ModelReadyRequest(name="food")).ready,
    "server": method("ServerMetadata")(pb.ServerMetadataRequest()).name,
    "inputs": [
        [tensor.name, tensor.datatype, list(tensor.shape)]
        for tensor in method("ModelMetadata")(pb.ModelMetadataRequest(name="food")).inputs
    ],
    "config": [config.name, config.max_batch_size > 0, [list(tensor.dims) for tensor in config.input]],
    "raw": [raw.id, raw.outputs[0].name, list(struct.unpack("<3f", raw.raw_output_contents[0]))],
    "typed": [typed.id, list(typed.outputs[0].contents.fp32_contents)],
    "revision": raw.parameters["revision"].string_param,
    "several": [output.name for output in method("ModelInfer")(several).outputs],
    "stream": [
        [answer.infer_response.id, answer.error_message != ""]
        for answer in method("ModelStreamInfer")(
            iter([food(True, id="1"), pb.ModelInferRequest(model_name="none", id="2"), food(False, id="3")])
        )
    ],
    "count": method("ModelStatistics")(pb.ModelStatisticsRequest(name="food")).model_stats[0].inference_count,
    "unload": [status(lambda: method("RepositoryModelUnload")(unload)), index()["food"]],
    "load": [
        status(lambda: method("RepositoryModelLoad")(load)),
        index()["food"],
        list(method("ModelInfer")(food(False)).outputs[0].contents.fp32_contents),
    ],
    "missing": status(lambda: method("ModelInfer")(pb.ModelInferRequest(model_name="none"))),
}
print(json.dumps(seen))
