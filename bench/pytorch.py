"""One MobileNetV3 in PyTorch, as a program with a backbone and switched heads runs it; prints JSON."""
import json
import sys
import time

import torch
import torchvision

rounds, threads = int(sys.argv[1]), int(sys.argv[2])
torch.set_num_threads(threads)
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
times = {name: [] for name in cases}
with torch.no_grad():
    for turn in range(rounds + 2):
        for name, case in cases.items():
            start = time.perf_counter()
            case()
            if turn >= 2:
                times[name].append((time.perf_counter() - start) * 1000)
if len(sys.argv) > 3:
    whole_model = torch.nn.Sequential(backbone, heads[0])
    torch.onnx.export(whole_model, image, sys.argv[3], opset_version=16, input_names=["image"], output_names=["scores"])
print(json.dumps({"version": torch.__version__, "times": times}))
