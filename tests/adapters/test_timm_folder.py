"""Folders that timm writes for the hub: the architecture, arguments and transform are those of their config.json."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import timm
import torch
from layouthelp import close, filled, images

import bench
from adapters import timm_folder
from bench.card import Transform
from bench.errors import BenchError

ARGUMENTS = {"img_size": 32, "act_layer": "quick_gelu"}


def _folder(folder: Path, **stated: Any) -> tuple[Path, Any]:
    model = filled(timm.create_model("vit_tiny_patch16_224", num_classes=7, **ARGUMENTS))
    timm.models.save_for_hf(model, folder, model_args=ARGUMENTS, safe_serialization=True)
    path = folder / "config.json"
    config = json.loads(path.read_text())
    config["pretrained_cfg"] |= {"input_size": [3, 32, 32], "crop_pct": 0.8, "interpolation": "bilinear"}
    path.write_text(json.dumps({**config, **stated}))
    return folder, model


def test_what_no_shape_tells_is_read_from_the_folder(tmp_path: Path) -> None:
    """An activation and a transform: names and shapes alone are those of other networks as well."""
    folder, model = _folder(tmp_path)
    backbone = bench.load(folder)
    batch = images(32)
    with torch.no_grad():
        assert close(backbone.features(batch)["logits"], model(batch))
    card = backbone.card
    assert card.architecture_from == "as config.json says"
    assert card.architecture.startswith("vit_tiny_patch16_224(")
    assert card.transform == Transform(
        resize=40, crop=32, interpolation="bilinear", mean=(0.5, 0.5, 0.5), std=(0.5, 0.5, 0.5)
    )


def test_a_name_that_timm_has_not_leaves_names_and_shapes(tmp_path: Path) -> None:
    folder, _ = _folder(tmp_path, architecture="vit_of_my_own")
    assert timm_folder.stated(folder) is None


@pytest.mark.parametrize(
    ("stated", "words"),
    [
        ({"model_args": {"act_layer": {"a": 1}}}, "act_layer = .*, which is no plain value"),
        ({"model_args": {"depth": 10**9}}, "depth = 1000000000, which is no plain value"),
        ({"model_args": ["depth"]}, "states arguments of vit_tiny_patch16_224 that are none"),
        ({"model_args": {"depth=1, x": 2}}, "states arguments of vit_tiny_patch16_224 that are none"),
        ({"pretrained_cfg": {"input_size": [3, 32, 32], "std": [0, 0, 0]}}, "an input transform that cannot be"),
        ({"pretrained_cfg": {"input_size": "large"}}, "an input transform that cannot be"),
    ],
)
def test_what_cannot_be_is_refused(tmp_path: Path, stated: dict[str, Any], words: str) -> None:
    folder, _ = _folder(tmp_path, **stated)
    with pytest.raises(BenchError, match=words):
        bench.load(folder)


def test_files_that_arguments_name_are_not_opened(tmp_path: Path) -> None:
    folder, model = _folder(tmp_path, model_args={**ARGUMENTS, "checkpoint_path": "/nowhere.pth", "pretrained": True})
    batch = images(32)
    with torch.no_grad():
        assert close(bench.load(folder).features(batch)["logits"], model(batch))


def test_the_same_network_as_transformers_wraps_it(tmp_path: Path) -> None:
    transformers = pytest.importorskip("transformers", reason="the extra huggingface is not installed")
    config = transformers.TimmWrapperConfig.from_dict({"architecture": "resnet10t", "num_classes": 5})
    model = filled(transformers.TimmWrapperForImageClassification(config))
    model.save_pretrained(tmp_path)
    backbone = bench.load(tmp_path)
    batch = images(64)
    with torch.no_grad():
        assert close(backbone.features(batch)["logits"], model(batch).logits)
    assert backbone.card.architecture == "resnet10t"
