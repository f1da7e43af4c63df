"""detectron2's names for a ResNet, as MoCo's converter writes them: a pickled dictionary of NumPy arrays."""

from __future__ import annotations

import pickle
import re
from pathlib import Path
from typing import Any

import pytest
import timm
import torch
from layouthelp import close, filled, images
from torch import Tensor

import bench
from bench.errors import BenchError

SMALL: dict[str, Any] = {"layers": (1, 1, 1, 1), "channels": (8, 16, 16, 24)}
ARCH = "resnet50(layers=(1, 1, 1, 1), channels=(8, 16, 16, 24))"


def _theirs(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """Names as MoCo's detection/convert-pretrain-to-detectron2.py makes them."""
    out = {}
    for name, tensor in state.items():
        key = name if name.startswith("layer") else f"stem.{name}"
        key = re.sub(r"layer(\d)", lambda m: f"res{int(m[1]) + 1}", key)
        key = re.sub(r"bn(\d)", r"conv\1.norm", key)
        key = key.replace("downsample.0", "shortcut").replace("downsample.1", "shortcut.norm")
        out[key] = tensor
    return out


@pytest.mark.parametrize("prefix", ["", "backbone.bottom_up."])
@pytest.mark.parametrize("arch", [ARCH, None])
def test_gives_the_network_s_features(prefix: str, arch: str | None, tmp_path: Path) -> None:
    network = filled(timm.create_model("resnet50" if arch else "resnet18", num_classes=0, **(SMALL if arch else {})))
    arrays = {f"{prefix}{n}": t.numpy() for n, t in _theirs(network.state_dict()).items() if t.is_floating_point()}
    content = {"model": arrays, "__author__": "MOCO", "matching_heuristics": True}
    (tmp_path / "moco.pkl").write_bytes(pickle.dumps(content))
    backbone = bench.load(tmp_path / "moco.pkl", arch=arch)
    card = backbone.card
    assert card.container == "pickled NumPy arrays"
    assert card.layout is not None
    assert card.layout.startswith("detectron2")
    assert card.transform is not None
    assert (card.transform.mean, card.transform.interpolation) == ((0.485, 0.456, 0.406), "bilinear")
    assert any("RGB" in note for note in card.notes)
    with torch.no_grad():
        assert close(backbone.features(images(64))["pooled"], network(images(64)))


def test_a_detector_s_other_parts_are_left_over(tmp_path: Path) -> None:
    network = filled(timm.create_model("resnet50", num_classes=0, **SMALL))
    tensors = {f"backbone.bottom_up.{n}": t for n, t in _theirs(network.state_dict()).items()}
    for name in ("proposal_generator.rpn_head.conv.weight", "roi_heads.box_head.fc1.weight"):
        tensors[name] = torch.ones(8, 8)
    torch.save({"model": tensors}, tmp_path / "model_final.pth")
    coverage = bench.load(tmp_path / "model_final.pth", arch=ARCH).card.coverage
    assert coverage is not None
    assert coverage.filled == coverage.total
    assert set(coverage.heads + coverage.unused) == {"proposal_generator.*", "roi_heads.*"}


def test_caffe2_s_resnets_are_refused(tmp_path: Path) -> None:
    network = filled(timm.create_model("resnet50", num_classes=0, **SMALL))
    tensors = _theirs(network.state_dict())
    for name in tensors:
        if name.endswith("running_mean"):
            tensors[name] = tensors[name] * 0
        elif name.endswith("running_var"):
            tensors[name] = tensors[name] * 0 + (1 - 1e-5)
    torch.save({"model": tensors}, tmp_path / "R-50.pth")
    with pytest.raises(BenchError, match=r"R-50.pth: the file's batch normalisation is merged.*BGR"):
        bench.load(tmp_path / "R-50.pth")
    blobs = {f"res{s}_{b}_branch2{c}_w": torch.ones(8, 8, 1, 1).numpy() for s in (2, 3) for b in (0, 1) for c in "abc"}
    (tmp_path / "R-50.pkl").write_bytes(pickle.dumps({"blobs": blobs | {"conv1_w": torch.ones(8, 3, 7, 7).numpy()}}))
    with pytest.raises(BenchError, match="names of Caffe2's ResNets"):
        bench.load(tmp_path / "R-50.pkl")
