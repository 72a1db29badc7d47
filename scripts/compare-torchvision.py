"""Compares `polyhead grad` and five steps of `polyhead tune` with PyTorch on torchvision's models at their full width.

    npm run build && python3 scripts/compare-torchvision.py [NAME ...]

Needs torch, torchvision and onnx. Weights and statistics of batch norms are random, images 64 x 64 where the model takes
them. Says for each model how far loss and gradients are from PyTorch's in float64, relative to each gradient's length, and
how far the losses of the steps are. A gradient counts as wrong from 1e-3 on, if it is also more than 1e-6 off.
"""
import json
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
import torchvision
from torch.onnx import TrainingMode

COMMAND = ["node", str(Path(__file__).resolve().parents[1] / "bin" / "polyhead.js")]
NAMES = ["resnext50_32x4d", "shufflenet_v2_x0_5", "densenet121", "squeezenet1_0", "mobilenet_v3_small", "efficientnet_b0",
         "swin_t", "convnext_tiny", "regnet_y_400mf", "googlenet"]
SIZES = {"googlenet": 96, "alexnet": 96, "inception_v3": 128, "vit_b_16": 224, "maxvit_t": 224}
ROWS, STEPS, RATE = 2, 5, 1e-4


def make(name):
    torch.manual_seed(1)
    more = {"aux_logits": False, "init_weights": False} if name in ("googlenet", "inception_v3") else {}
    net = getattr(torchvision.models, name)(num_classes=10, **more).eval()
    for module in net.modules():
        if isinstance(module, torch.nn.modules.batchnorm._BatchNorm):
            torch.nn.init.uniform_(module.running_mean, -0.1, 0.1)
            torch.nn.init.uniform_(module.running_var, 0.5, 1.5)
    return net


def polyhead(*words):
    done = subprocess.run([*COMMAND, *words, "--json"], capture_output=True, text=True)
    if done.returncode:
        raise RuntimeError(done.stderr[-500:] + done.stdout[-500:])
    return json.loads(done.stdout)


def compare(name, folder):
    net = make(name)
    size = SIZES.get(name, 64)
    x, y = torch.randn(STEPS, ROWS, 3, size, size), torch.randint(0, 10, (STEPS, ROWS))
    file, data = str(folder / "model.onnx"), str(folder / "data.npz")
    torch.onnx.export(
        net, x[0], file, opset_version=16, do_constant_folding=False, training=TrainingMode.PRESERVE,
        input_names=["input"], output_names=["logits"], dynamic_axes={"input": {0: "N"}, "logits": {0: "N"}})
    np.savez(data, x=x.numpy(), y=y.numpy())

    state = {key: value.clone() for key, value in net.state_dict().items()}
    net.double()
    loss = F.cross_entropy(net(x[0].double()), y[0])
    loss.backward()
    wanted = {key: value.grad.numpy().copy() for key, value in net.named_parameters() if value.grad is not None}
    net.float()
    net.load_state_dict(state)
    optimizer = torch.optim.Adam(net.parameters(), RATE)
    losses = []
    for images, classes in zip(x, y):
        optimizer.zero_grad()
        step = F.cross_entropy(net(images), classes)
        step.backward()
        optimizer.step()
        losses.append(step.item())
    with torch.no_grad():
        losses.append(F.cross_entropy(net(x[0]), y[0]).item())

    polyhead("grad", file, "--npz", data, "--out", str(folder / "g.npz"))
    got = np.load(folder / "g.npz")
    missing = [key for key in wanted if f"grad/{key}" not in got]
    off = {}
    for key, value in wanted.items():
        distance = np.linalg.norm(got[f"grad/{key}"] - value) if key not in missing else np.inf
        off[key] = distance / np.linalg.norm(value) if distance > 1e-6 else 0
    tuned = polyhead("tune", file, "--npz", data, "--lr", str(RATE), "--steps", str(STEPS), "-o", str(folder / "out.onnx"))
    ours = [*tuned["losses"], tuned["final"]]
    return {
        "parameters": len(wanted), "missing": missing,
        "wrong": [key for key, value in off.items() if value > 1e-3],
        "loss": f"{abs(float(got['loss']) / loss.item() - 1):.1e}",
        "gradients": f"{max(off.values()):.1e}",
        "losses": f"{max(abs(a / b - 1) for a, b in zip(ours, losses)):.1e}",
    }


def main(names):
    torch.set_num_threads(1)
    torch.onnx.register_custom_op_symbolic("aten::zero", lambda g, value: g.op("Sub", value, value), 9)
    for name in names or NAMES:
        with tempfile.TemporaryDirectory() as folder:
            print(name, compare(name, Path(folder)), flush=True)


if __name__ == "__main__":
    main(sys.argv[1:])
