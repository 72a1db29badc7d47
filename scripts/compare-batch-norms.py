"""Compares `polyhead grad` and `tune` with `--norms batch` with PyTorch's training mode on torchvision's models at their full width.

    npm run build && python3 scripts/compare-batch-norms.py [NAME ...]

Needs torch and torchvision. As compare-torchvision.py, but with 8 images, without dropout, and with SGD, for Adam makes whole
steps of gradients that are nothing but rounding errors, which whatever stands before a batch norm has. Says how far losses,
gradients and what the written model answers in evaluation mode are from PyTorch's in float64, and how far PyTorch's
own are in float32. Gradients are relative to their lengths, and those shorter than 1e-6 of the longest do not count.
"""
import importlib
import sys
import tempfile
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch.onnx import TrainingMode

torchvision_models = importlib.import_module("compare-torchvision")
polyhead = torchvision_models.polyhead
NAMES = ["resnet18", "mobilenet_v2", "densenet121", "mobilenet_v3_small", "shufflenet_v2_x0_5", "efficientnet_b0",
         "regnet_y_400mf", "googlenet"]
ROWS, STEPS, RATE, MOMENTUM = 8, 5, 1e-3, 0.9


def make(name):
    net = torchvision_models.make(name)
    for module in net.modules():
        if isinstance(module, torch.nn.Dropout) or type(module).__name__ == "StochasticDepth":
            module.p = 0.0
        if hasattr(module, "drop_rate"):
            module.drop_rate = 0.0
    return net


def course(net, state, x, y, dtype):
    net.load_state_dict(state)
    net.to(dtype).train()
    optimizer = torch.optim.SGD(net.parameters(), RATE, MOMENTUM)
    losses, gradients = [], None
    for images, classes in zip(x.to(dtype), y):
        optimizer.zero_grad()
        loss = F.cross_entropy(net(images), classes)
        loss.backward()
        gradients = gradients or {
            key: value.grad.double().numpy().copy() for key, value in net.named_parameters() if value.grad is not None}
        optimizer.step()
        losses.append(loss.item())
    net.eval()
    with torch.no_grad():
        answers = net(x[0].to(dtype))
    return gradients, [*losses, F.cross_entropy(answers, y[0]).item()], answers.double().numpy()


def distances(got, wanted):
    gradients, losses, answers = got
    true_gradients, true_losses, true_answers = wanted
    lengths = {key: np.linalg.norm(value) for key, value in true_gradients.items()}
    off = [np.linalg.norm(gradients[key] - true_gradients[key]) / length
           for key, length in lengths.items() if length > 1e-6 * max(lengths.values())]
    return {
        "losses": max(abs(a / b - 1) for a, b in zip(losses, true_losses)),
        "gradients": max(off), "gradients, median": np.median(off),
        "answers": np.abs(answers - true_answers).max() / np.abs(true_answers).max(),
    }


def compare(name, folder):
    net = make(name)
    size = torchvision_models.SIZES.get(name, 64)
    x, y = torch.randn(STEPS, ROWS, 3, size, size), torch.randint(0, 10, (STEPS, ROWS))
    file, data, out = (str(folder / each) for each in ("model.onnx", "data.npz", "out.onnx"))
    torch.onnx.export(
        net, x[0], file, opset_version=16, do_constant_folding=False, training=TrainingMode.PRESERVE,
        input_names=["input"], output_names=["logits"], dynamic_axes={"input": {0: "N"}, "logits": {0: "N"}})
    np.savez(data, x=x.numpy(), y=y.numpy())
    np.savez(folder / "first.npz", input=x[0].numpy())
    state = {key: value.clone() for key, value in net.state_dict().items()}
    wanted, single = course(net, state, x, y, torch.float64), course(net, state, x, y, torch.float32)

    polyhead("grad", file, "--npz", data, "--norms", "batch", "--out", str(folder / "g.npz"))
    found = np.load(folder / "g.npz")
    tuned = polyhead("tune", file, "--npz", data, "--norms", "batch", "--optimizer", "sgd", "--momentum", str(MOMENTUM),
                     "--lr", str(RATE), "--steps", str(STEPS), "-o", out)
    polyhead("run", out, "--npz", str(folder / "first.npz"), "--out", str(folder / "answers.npz"))
    answers = np.load(folder / "answers.npz")
    ours = ({key: found[f"grad/{key}"] for key in wanted[0]}, [*tuned["losses"], tuned["final"]],
            answers[answers.files[0]])
    own = distances(single, wanted)
    return {"statistics": len(tuned["statistics"]),
            **{key: f"{value:.0e} ({own[key]:.0e})" for key, value in distances(ours, wanted).items()}}


def main(names):
    torch.set_num_threads(1)
    for name in names or NAMES:
        with tempfile.TemporaryDirectory() as folder:
            print(name, compare(name, Path(folder)), flush=True)


if __name__ == "__main__":
    main(sys.argv[1:])
