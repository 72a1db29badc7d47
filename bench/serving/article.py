"""The article's approach behind Python's own HTTP server: a backbone in PyTorch, and a head for each route.

Usage: article.py THREADS FILE. Writes the network with its first head to FILE (ONNX), prints its port, and then
answers POST /v2/models/head-N/infer with float32 scores for a float32 picture of 1 x 3 x 224 x 224.
"""
import re
import sys
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import numpy
import torch
import torchvision

torch.set_num_threads(int(sys.argv[1]))
torch.manual_seed(1)
network = torchvision.models.mobilenet_v3_large(weights=None).eval()
backbone = torch.nn.Sequential(network.features, network.avgpool, torch.nn.Flatten(1))
heads = torch.nn.ModuleList([torch.nn.Linear(960, 14) for _ in range(16)]).eval()
whole = torch.nn.Sequential(backbone, heads[0])
torch.onnx.export(
    whole,
    torch.rand(1, 3, 224, 224),
    sys.argv[2],
    opset_version=16,
    input_names=["image"],
    output_names=["scores"],
    dynamic_axes={"image": {0: "batch"}, "scores": {0: "batch"}},
)


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_POST(self):
        head = heads[int(re.fullmatch(r"/v2/models/head-(\d+)/infer", self.path)[1])]
        body = bytearray(self.rfile.read(int(self.headers["content-length"])))
        with torch.no_grad():
            scores = head(backbone(torch.frombuffer(body, dtype=torch.float32).reshape(1, 3, 224, 224)))
        answer = scores.numpy().astype(numpy.float32).tobytes()
        self.send_response(200)
        self.send_header("content-length", str(len(answer)))
        self.end_headers()
        self.wfile.write(answer)

    def log_message(self, *_):
        pass


server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
print(server.server_port, flush=True)
server.serve_forever()
