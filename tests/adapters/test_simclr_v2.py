"""SimCLR v2's converted ResNets against the formulas of their blocks, computed from the file's tensors alone."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from layouthelp import close, filled, images
from torch import Tensor
from torch.nn import functional as F

import bench
from adapters.architecture import Architecture
from adapters.layouts import recognise
from adapters.matching import match
from adapters.networks import build
from adapters.weightsets import WeightSet

Tensors = dict[str, Tensor]


def _norm(x: Tensor, tensors: Tensors, name: str) -> Tensor:
    weight, bias, mean, variance = (
        tensors[f"{name}.0.{part}"][None, :, None, None] for part in ("weight", "bias", "running_mean", "running_var")
    )
    return (x - mean) / (variance + 1e-5).sqrt() * weight + bias


def _selective(x: Tensor, tensors: Tensors, name: str, stride: int) -> Tensor:
    """SK with two 3 x 3 branches: V = a U1 + (1 - a) U2 with a from the mean of U1 + U2 (Li et al. 2019)."""
    both = F.conv2d(x, tensors[f"{name}.main_conv.0.weight"], stride=stride, padding=1)
    both = F.relu(_norm(both, tensors, f"{name}.main_conv.1"))
    width = both.shape[1] // 2
    first, second = both[:, :width], both[:, width:]
    squeezed = (first + second).mean((2, 3), keepdim=True)
    squeezed = F.relu(
        _norm(F.conv2d(squeezed, tensors[f"{name}.mixing_conv.0.weight"]), tensors, f"{name}.mixing_conv.1")
    )
    scores = F.conv2d(squeezed, tensors[f"{name}.mixing_conv.2.weight"])
    share = torch.sigmoid(scores[:, :width] - scores[:, width:])
    return share * first + (1 - share) * second


def _shortcut(x: Tensor, tensors: Tensors, name: str, stride: int, selective: bool) -> Tensor:
    if not selective:
        projected = F.conv2d(x, tensors[f"{name}.shortcut.weight"], stride=stride)
        return _norm(projected, tensors, f"{name}.bn")
    wide = torch.zeros(*x.shape[:2], x.shape[2] + 1, x.shape[3] + 1)
    wide[:, :, :-1, :-1] = x
    mean = (wide[:, :, :-1, :-1] + wide[:, :, 1:, :-1] + wide[:, :, :-1, 1:] + wide[:, :, 1:, 1:]) / 4
    projected = F.conv2d(mean[:, :, ::stride, ::stride], tensors[f"{name}.shortcut.2.weight"])
    return _norm(projected, tensors, f"{name}.bn")


def _network(x: Tensor, tensors: Tensors, blocks: tuple[int, ...], selective: bool) -> Tensor:
    if selective:
        for index, stride in ((0, 2), (2, 1), (4, 1)):
            x = F.conv2d(x, tensors[f"net.0.{index}.weight"], stride=stride, padding=1)
            x = F.relu(_norm(x, tensors, f"net.0.{index + 1}"))
    else:
        x = F.relu(_norm(F.conv2d(x, tensors["net.0.0.weight"], stride=2, padding=3), tensors, "net.0.1"))
    x = F.max_pool2d(x, 3, 2, 1)
    for stage, count in enumerate(blocks, 1):
        for index in range(count):
            name = f"net.{stage}.blocks.{index}"
            stride = 2 if stage > 1 and index == 0 else 1
            short = _shortcut(x, tensors, f"{name}.projection", stride, selective) if index == 0 else x
            x = F.relu(_norm(F.conv2d(x, tensors[f"{name}.net.0.weight"]), tensors, f"{name}.net.1"))
            if selective:
                x, last = _selective(x, tensors, f"{name}.net.2", stride), 3
            else:
                x = F.conv2d(x, tensors[f"{name}.net.2.weight"], stride=stride, padding=1)
                x, last = F.relu(_norm(x, tensors, f"{name}.net.3")), 4
            x = _norm(F.conv2d(x, tensors[f"{name}.net.{last}.weight"]), tensors, f"{name}.net.{last + 1}")
            x = F.relu(x + short)
    return x.mean((2, 3))


@pytest.mark.parametrize("selective", [False, True])
@pytest.mark.parametrize("size", [64, 72])
def test_the_converted_file_gives_the_formulas_features(selective: bool, size: int, tmp_path: Path) -> None:
    name, blocks = f"simclrv2_r50_1x_sk{int(selective)}", (2, 1, 1, 1)
    network = filled(build(name, blocks=blocks, num_classes=10))
    tensors = {key: tensor for key, tensor in network.state_dict().items() if not key.endswith("num_batches_tracked")}
    head = {"layers.0.weight": torch.zeros(8, 2048), "layers.1.weight": torch.zeros(8)}
    torch.save({"resnet": tensors, "head": head}, tmp_path / "simclr.pth")
    backbone = bench.load(tmp_path / "simclr.pth", arch=f"{name}(blocks={blocks})")
    card = backbone.card
    assert (card.method, card.weights_key, card.strides) == ("simclr", "resnet", [4, 8, 16, 32])
    assert card.transform is not None
    assert (card.transform.mean, card.transform.std, card.transform.crop) == ((0, 0, 0), (1, 1, 1), 224)
    assert (card.transform.resize, card.transform.interpolation) == (256, "bicubic")
    expected = _network(images(size), tensors, blocks, selective)
    out = backbone.features(images(size))
    assert close(out["pooled"], expected)
    assert close(out["logits"], expected @ tensors["fc.weight"].T + tensors["fc.bias"])


@pytest.mark.parametrize("name", ["r50_1x_sk0", "r50_2x_sk1", "r101_1x_sk1", "r101_2x_sk0", "r152_3x_sk1"])
@pytest.mark.parametrize("prefix", ["", "module."])
def test_depth_width_and_kernels_are_found(name: str, prefix: str) -> None:
    shapes = Architecture(f"simclrv2_{name}").outline().everything
    tensors = {f"{prefix}{key}": torch.empty(shape, device="meta") for key, shape in shapes.items()}
    layout = recognise({f"resnet/{key}": tuple(tensor.shape) for key, tensor in tensors.items()})
    found = match([WeightSet("resnet", tensors)], arch=None, weights_key=None, file="simclr.pth", layout=layout)
    assert (found.architecture.name, layout.name) == (f"simclrv2_{name}", "SimCLR v2")


def test_the_published_sizes() -> None:
    # Parameters without the classifier in millions, from table 1 of the paper (Chen et al. 2020).
    for name, millions in {"r50_1x_sk0": 24, "r50_2x_sk1": 140, "r101_1x_sk1": 65, "r152_3x_sk1": 795}.items():
        outline = Architecture(f"simclrv2_{name}").outline()
        count = sum(s.numel() for n, s in outline.needed.items() if not n.endswith(("running_mean", "running_var")))
        assert round(count / 1e6) == millions, (name, count)
