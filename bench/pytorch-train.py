"""Training steps in PyTorch, one for each line of standard input; answers with the peak of its memory in MiB.

Usage: pytorch-train.py THREADS FILE NETWORK BATCH WAY. Writes the network with random weights to FILE (ONNX) first. WAY is
full (Adam over all parameters, batch norms in evaluation mode) or probe (a linear layer on features without gradient).
"""
import resource
import sys

import torch
import torchvision
from torch.nn.functional import cross_entropy
from torch.onnx import TrainingMode

threads, file, name, batch, way = sys.argv[1:]
torch.set_num_threads(int(threads))
torch.manual_seed(1)
network = getattr(torchvision.models, name)().eval()
x = torch.rand(int(batch), 3, 224, 224)
y = torch.arange(int(batch))
torch.onnx.export(
    network, x, file, opset_version=17, do_constant_folding=False, training=TrainingMode.PRESERVE,
    input_names=["input"], output_names=["logits"], dynamic_axes={"input": {0: "N"}, "logits": {0: "N"}})
head = network.fc if hasattr(network, "fc") else network.classifier
if way == "probe":
    trunk = torch.nn.Sequential(*list(network.children())[:-1], torch.nn.Flatten(1))
trained = head if way == "probe" else network
optimizer = torch.optim.Adam(trained.parameters(), 1e-4)
print("ready", flush=True)
for _ in sys.stdin:
    optimizer.zero_grad()
    if way == "probe":
        with torch.no_grad():
            features = trunk(x)
        loss = cross_entropy(head(features), y)
    else:
        loss = cross_entropy(network(x), y)
    loss.backward()
    optimizer.step()
    print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024, flush=True)
