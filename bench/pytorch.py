"""One MobileNetV3 in PyTorch, as a program with a backbone and switched heads runs it.

Usage: pytorch.py THREADS FILE. Writes the network with one head to FILE (ONNX) and prints its cases as one line of
JSON; then runs a case for each line that names one, and answers each with a line.
"""
import json
import sys

import torch
import torchvision

torch.set_num_threads(int(sys.argv[1]))
torch.manual_seed(1)
network = torchvision.models.mobilenet_v3_large(weights=None).eval()
backbone = torch.nn.Sequential(network.features, network.avgpool, torch.nn.Flatten(1))
heads = torch.nn.ModuleList([torch.nn.Linear(960, 14) for _ in range(16)]).eval()
image = torch.rand(1, 3, 224, 224)


def whole(count):
    for head in heads[:count]:
        head(backbone(image))


def shared(count):
    features = backbone(image)
    for head in heads[:count]:
        head(features)


cases = {
    "backbone and 1 head": lambda: whole(1),
    "backbone once, 16 heads": lambda: shared(16),
    "backbone and head for each of 4 heads": lambda: whole(4),
}
model = torch.nn.Sequential(backbone, heads[0])
torch.onnx.export(model, image, sys.argv[2], opset_version=16, input_names=["image"], output_names=["scores"])
print(json.dumps({"version": torch.__version__, "cases": list(cases)}), flush=True)
with torch.no_grad():
    for line in sys.stdin:
        cases[line.strip()]()
        print("done", flush=True)
