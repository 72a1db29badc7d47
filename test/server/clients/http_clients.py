"""What Triton's and KServe's Python clients send over HTTP, byte by byte, and what they read of the answers.

Usage: python3 http_clients.py HOST PORT MODEL_FILE. Only the standard library. Written after tritonclient.http
(paths without a content type, rapidjson's compact JSON, zlib for deflate) and kserve's InferenceRESTClient (httpx's
headers, orjson). Prints what it saw as JSON.
"""

import base64
import gzip
import http.client
import json
import struct
import sys
import zlib

HOST, PORT, MODEL = sys.argv[1], int(sys.argv[2]), open(sys.argv[3], "rb").read()
IMAGE = struct.pack("<8f", 1, 1, 1, 1, 3, 3, 3, 3)


def dumps(value):
    return json.dumps(value, separators=(",", ":"), ensure_ascii=False).encode()


def call(method, path, body=None, headers=None, chunked=False):
    connection = http.client.HTTPConnection(HOST, PORT, timeout=60)
    connection.putrequest(method, path, skip_accept_encoding=True)
    for name, value in (headers or {}).items():
        connection.putheader(name, str(value))
    if chunked:
        connection.putheader("Transfer-Encoding", "chunked")
        connection.endheaders(iter([body[:7], body[7:]]), encode_chunked=True)
    else:
        if body is not None:
            connection.putheader("Content-Length", str(len(body)))
        connection.endheaders(body)
    response = connection.getresponse()
    return response.status, response.headers, response.read()


# tritonclient.http ---------------------------------------------------------------------------------------------------


def tensor(binary=True):
    shaped = {"name": "image", "shape": [1, 2, 2, 2], "datatype": "FP32"}
    if binary:
        return {**shaped, "parameters": {"binary_data_size": len(IMAGE)}}
    return {**shaped, "data": list(struct.unpack("<8f", IMAGE))}


def triton_infer(outputs=None, binary=True, version="", request=None, response=None, chunked=False, **more):
    parameters = dict(more.pop("parameters", {}))
    body = {}
    if "id" in more:
        body["id"] = more["id"]
    body["inputs"] = [tensor(binary)]
    if outputs:
        body["outputs"] = outputs
    else:
        parameters["binary_data_output"] = True
    if parameters:
        body["parameters"] = parameters
    header = dumps(body)
    sent = header + IMAGE if binary else header
    headers = {}
    if request == "gzip":
        headers["Content-Encoding"], sent = "gzip", gzip.compress(sent)
    elif request == "deflate":
        headers["Content-Encoding"], sent = "deflate", zlib.compress(sent)
    if response:
        headers["Accept-Encoding"] = response
    if binary:
        headers["Inference-Header-Content-Length"] = len(header)
    path = f"/v2/models/food/versions/{version}/infer" if version else "/v2/models/food/infer"
    return triton_result(*call("POST", path, sent, headers, chunked))


def triton_result(status, headers, content):
    """InferResult and _raise_if_error."""
    if status != 200:
        return [status, json.loads(content.decode("utf-8"))["error"] != ""]
    encoding = headers.get("Content-Encoding")
    if encoding == "gzip":
        content = gzip.decompress(content)
    elif encoding == "deflate":
        content = zlib.decompress(content)
    length = headers.get("Inference-Header-Content-Length")
    result = json.loads(content if length is None else content[: int(length)])
    buffer, at, arrays = content[int(length or 0) :], 0, {}
    for output in result["outputs"]:
        size = output.get("parameters", {}).get("binary_data_size")
        if size is None:
            arrays[output["name"]] = output["data"]
            continue
        data, at = buffer[at : at + size], at + size
        if output["datatype"] == "BYTES":
            texts, place = [], 0
            while place < len(data):
                (count,) = struct.unpack_from("<I", data, place)
                texts.append(data[place + 4 : place + 4 + count].decode())
                place += 4 + count
            arrays[output["name"]] = texts
        else:
            arrays[output["name"]] = list(struct.unpack(f"<{size // 4}f", data))
    return [encoding, result.get("id"), arrays]


def get(path):
    status, _, content = call("GET", path)
    return json.loads(content) if status == 200 else status


def post(path, body=b""):
    status, _, content = call("POST", path, body)
    if status != 200:
        return [status, json.loads(content)["error"] != ""]
    return json.loads(content) if content else None


def index(body=b""):
    return {model["name"]: model["state"] for model in post("/v2/repository/index", body)}


scores = {"name": "scores", "parameters": {"binary_data": True}}
metadata = get("/v2/models/food")
version = metadata["versions"][0]
sequence = {"sequence_id": 42, "sequence_start": True, "sequence_end": False, "priority": 1, "timeout": 30000000}
seen = {
    "live": [call("GET", path)[0] for path in ["/v2/health/live", "/v2/health/ready", "/v2/models/food/ready"]],
    "ready": [
        call("GET", f"/v2/models/food/versions/{version}/ready")[0],
        call("GET", "/v2/models/none/ready")[0] != 200,
    ],
    "server": "binary_tensor_data" in get("/v2")["extensions"] and get("/v2/") == get("/v2"),
    "metadata": [metadata["name"], metadata["inputs"], metadata["outputs"]],
    "same": get(f"/v2/models/food/versions/{version}") == metadata,
    "backbone": get("/v2/models/trunk")["outputs"],
    "config": get("/v2/models/food/config"),
    "config_of_version": get(f"/v2/models/food/versions/{version}/config")["name"],
    "binary": triton_infer(id="1"),
    "versioned": triton_infer(version=version),
    "output": triton_infer([scores]),
    "output_json": triton_infer([{"name": "scores", "parameters": {"binary_data": False}}]),
    "json": triton_infer([{"name": "scores", "parameters": {"binary_data": False}}], binary=False),
    "classes": triton_infer([{"name": "scores", "parameters": {"classification": 2, "binary_data": True}}]),
    "class_json": triton_infer([{"name": "scores", "parameters": {"classification": 1, "binary_data": False}}]),
    "gzip": triton_infer(request="gzip", response="gzip"),
    "deflate": triton_infer(request="deflate", response="deflate"),
    "chunked": triton_infer(chunked=True),
    "sequence": triton_infer(parameters=sequence),
    "custom": triton_infer(parameters={"my_parameter": "x", "triton_other": 1.5}),
    "shared": triton_infer([{"name": "scores", "parameters": {"shared_memory_region": "r", "shared_memory_byte_size": 8}}]),
    "unknown": triton_result(*call("POST", "/v2/models/none/infer", dumps({"inputs": [tensor(False)]}))),
    "stats": get("/v2/models/food/stats")["model_stats"][0]["inference_stats"]["success"]["count"] > 0,
    "stats_of_version": get(f"/v2/models/food/versions/{version}/stats")["model_stats"][0]["version"] == version,
    "stats_of_all": [model["name"] for model in get("/v2/models/stats")["model_stats"]],
    "regions": [get("/v2/systemsharedmemory/status"), get("/v2/cudasharedmemory/status")],
    "unregister": [post("/v2/systemsharedmemory/unregister"), post("/v2/cudasharedmemory/region/r/unregister")],
    "register": post("/v2/systemsharedmemory/region/r/register", dumps({"key": "/k", "offset": 0, "byte_size": 8})),
    "index": index(),
    "load": [
        post("/v2/repository/models/food/load", dumps({})),
        post(
            "/v2/repository/models/second/load",
            dumps({"parameters": {"config": "{}", "file:1/model.onnx": base64.b64encode(MODEL).decode()}}),
        ),
        index()["second"],
    ],
    "unload": [
        post("/v2/repository/models/second/unload", dumps({"parameters": {"unload_dependents": False}})),
        index()["second"],
        "second" in index(dumps({"ready": True})),
        post("/v2/repository/models/second/load", dumps({})),
        "second" in index(dumps({"ready": True})),
    ],
    "load_unknown": post("/v2/repository/models/none/load", dumps({})),
}

# kserve.InferenceRESTClient ------------------------------------------------------------------------------------------

HTTPX = {"Accept": "*/*", "Accept-Encoding": "gzip, deflate", "Connection": "keep-alive", "User-Agent": "python-httpx/0.27.2"}


def kserve_infer(binary):
    request = {"id": "7d1c", "model_name": "food", "inputs": [tensor(binary)]}
    header = dumps(request)
    headers = dict(HTTPX)
    if binary:
        headers["Inference-Header-Content-Length"] = len(header)
        headers["Content-Type"] = "application/octet-stream"
    status, answered, content = call("POST", "/v2/models/food/infer", header + (IMAGE if binary else b""), headers)
    length = int(answered.get("Inference-Header-Content-Length", len(content)))
    result = json.loads(content[:length])
    return [status, result["id"], result["model_name"], result["outputs"][0]["data"]]


status, headers, content = call("POST", "/v2/models/food/infer", b"{}", HTTPX)
seen["kserve"] = [kserve_infer(False), kserve_infer(True)]
seen["kserve_ready"] = [get("/v2/health/live").get("live"), get("/v2/health/ready").get("ready")]
seen["kserve_error"] = [status, headers["content-type"], "error" in json.loads(content)]
print(json.dumps(seen))
