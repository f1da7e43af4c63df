"""Golden truth: files in official layouts give the features that the official code computes from them.

``tests/golden/layouts`` holds manifests that regenerate the files and the official outputs (its README says how they
were made). An output is compared where the Backbone interface can express it; the difference is relative to the
output's largest value.
"""

from __future__ import annotations

import gc
import importlib.util
import json
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

import bench
from bench.backbone import Backbone
from bench.errors import BenchError

GOLDEN = Path(__file__).parents[1] / "golden" / "layouts"
TOLERANCE = 3e-5

# A quick one of each kind; all the others are in the slow half.
FAST = {
    "dino-vit_small16@backbone",
    "dinov2-vit_small14_reg4",
    "hf5-dinov2_small",
    "repdistiller-MobileNetV2",
    "repdistiller-ShuffleV1",
    "repdistiller-resnet8x4",
    "repdistiller-vgg8",
    "repdistiller-wrn_16_2@last",
    "repdistiller-wrn_16_2 and its arguments",
    "solo_learn-byol-resnet18_cifar",
}

# What ``pooled`` must be, by fixture: the feature that the method's paper evaluates frozen.
POOLED = {
    "beit": "patch_mean",
    "clip": "pre_proj",
    "hf-align": "pooler_output",
    "open_clip": "pre_proj",
    "hf-beit": "patch_mean",
    "hf-convnextv2": "pooled_norm",
    "ijepa": "patch_mean",
    "maskfeat": "raw_patch_mean",
    "repdistiller": "penultimate",
    "rotnet": "pool5_flat",
    "vissl-alexnet": "pool5_flat",
}


def _load_maker() -> ModuleType:
    spec = importlib.util.spec_from_file_location("make_checkpoint", GOLDEN / "make_checkpoint.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


maker = _load_maker()


def _manifest(fixture: str) -> dict[str, Any]:
    manifest: dict[str, Any] = json.loads((GOLDEN / fixture / "manifest.json").read_text())
    return manifest


def _cases() -> list[Any]:
    cases = []
    for folder in sorted(p.name for p in GOLDEN.iterdir() if p.is_dir()):
        manifest = _manifest(folder)
        # Without a foreign object in any variant the second file would be the first again.
        forms = (False, True) if manifest["unsafe_members"] else (False,)
        for variant in [None, *manifest.get("variants", {})]:
            plain = f"{folder}@{variant}" if variant else folder
            for pickled in forms:
                name = f"{plain} and its arguments" if pickled else plain
                marks = () if name in FAST else pytest.mark.slow
                cases.append(pytest.param(folder, variant, pickled, id=name, marks=marks))
    return cases


def _write(fixture: str, variant: str | None, folder: Path, pickled: bool = False) -> str:
    """The file, ``pickled``: with the objects of other classes that the official code leaves in it."""
    info = _manifest(fixture)["variants"][variant] if variant else _manifest(fixture)
    form = info["file"].get("form", "torch")
    path = folder / ("model" if form == "folder" else Path(info["file"]["name"]).name)
    maker.save(maker.make(str(GOLDEN / fixture / "manifest.json"), pickled, variant), str(path), form)
    return str(path)


@pytest.mark.parametrize(("fixture", "variant", "pickled"), _cases())
def test_gives_the_official_features(fixture: str, variant: str | None, pickled: bool, tmp_path: Path) -> None:
    file = _write(fixture, variant, tmp_path, pickled)
    # The fixture's values are those of the plain weights; the official loader prefers the averaged ones.
    backbone = bench.load(file, weights_key="state_dict" if fixture.startswith("timm-") else None)
    assert isinstance(backbone, Backbone)
    expected = np.load(GOLDEN / fixture / "expected.npz")
    images = torch.from_numpy(maker.make_input(_manifest(fixture)))
    with torch.no_grad():
        outputs = {key: value.numpy() for key, value in _outputs(backbone, images).items()}
    compared = [key for key in expected.files if key in outputs]
    assert compared
    pooled = next((output for start, output in POOLED.items() if fixture.startswith(start)), None)
    if pooled is None:
        pooled = "cls" if "cls" in expected.files else "avgpool"
    outputs[pooled] = outputs["pooled"]
    for key in {*compared, pooled}:
        theirs = expected[key]
        assert outputs[key].shape == theirs.shape, key
        assert np.abs(outputs[key] - theirs).max() <= TOLERANCE * np.abs(theirs).max(), key
    assert backbone.card.coverage is not None
    assert backbone.card.coverage.filled == backbone.card.coverage.total
    _compare_transform(backbone, _manifest(fixture)["preprocess"])
    del backbone
    gc.collect()


def _compare_transform(backbone: Backbone, official: dict[str, Any]) -> None:
    transform = backbone.card.transform
    assert transform is not None
    assert (transform.mean, transform.std) == (tuple(official["mean"]), tuple(official["std"]))
    if official.get("crop"):
        assert (transform.resize, transform.crop) == (official["resize"], official["crop"])
        assert transform.interpolation == official["interpolation"]
    elif "size" in official:
        assert transform.crop == official["size"]


def _outputs(backbone: Backbone, images: Tensor) -> dict[str, Tensor]:
    """Everything of the interface under the manifests' names."""
    features = backbone.features(images)
    out = {name: features[name] for name in ("pooled", "cls", "logits") if name in features}
    for alias in ("patch_mean", "avgpool", "ln_post_patch_mean"):
        out[alias] = features["avg"]
    if "cls" in features:
        out["cls_avgpool"] = torch.cat([features["cls"], features["avg"]], 1)
    maps = backbone.pyramid(images)
    if len(maps) > 1:
        out |= _maps(backbone.card.architecture, maps)
        return out
    raw, normed = (backbone.blocks(images, n=12, norm=norm) for norm in (False, True))
    if raw[0][1] is not None:
        out["block_cls"] = torch.stack([token for _, token in raw if token is not None], 1)
        out["raw_cls"] = out["block_cls"][:, -1]
        tokens = torch.stack([token for _, token in normed if token is not None], 1)
        out["last4_cls"] = tokens[:, -4:].flatten(1)
        out["inter_2_5_8_11_cls"] = tokens[:, [2, 5, 8, 11]]
    out["block_patch_mean"] = torch.stack([patches.mean(1) for patches, _ in raw], 1)
    out["raw_patch_mean"] = out["gap_raw"] = out["block_patch_mean"][:, -1]
    out["inter_2_5_8_11_patch_mean"] = torch.stack([normed[i][0].mean(1) for i in (2, 5, 8, 11)], 1)
    side = round(raw[-1][0].shape[1] ** 0.5)
    for name, (patches, _) in (("patch_map_c8", normed[-1]), ("raw_patch_map_c8", raw[-1])):
        out[name] = patches[:, :, :8].transpose(1, 2).reshape(len(images), 8, side, side)
    return out


def _maps(architecture: str, maps: list[Tensor]) -> dict[str, Tensor]:
    means = [level.mean((2, 3)) for level in maps]
    if architecture.startswith("alexnet"):
        named = {f"conv{n}_mean": mean for n, mean in zip((1, 2, 5), means, strict=True)}
        return {**named, "conv5_c8": maps[-1][:, :8]}
    if architecture == "mvitv2_small_video":
        return {f"block{n}_token_mean": mean for n, mean in zip((0, 2, 15), means, strict=True)}
    if architecture.startswith("align"):
        return {"last_map_mean": means[-1], "last_map_c8": maps[-1][:, :8]}
    if architecture.startswith("cifar_vgg"):
        return {f"f{n}_mean": mean for n, mean in zip((0, 1, 2, 4), means, strict=True)}
    if architecture.startswith(("cifar_", "wrn_")):
        return {f"f{n}_mean": mean for n, mean in enumerate(means, 1)}
    out = {f"res{n}_mean": mean for n, mean in enumerate(means, 2)}
    out |= {f"stage{n}_mean": mean for n, mean in enumerate(means, 1)}
    return {**out, "res5_c8": maps[-1][:, :8], "stage4_c8": maps[-1][:, :8]}


@pytest.mark.parametrize(
    ("fixture", "variant", "architecture", "words"),
    [
        ("dinov2-vit_small14_reg4", None, "vit_small_patch14_dinov2", "vit_small_patch14_reg4_dinov2"),
        ("dino-vit_small16", "backbone", "vit_base_patch16_224", "vit_small_patch16_224 fits completely"),
        ("repdistiller-resnet8x4", None, "cifar_resnet8", "cifar_resnet8x4 fits completely"),
    ],
)
def test_a_wrong_architecture_is_refused_with_the_right_one(
    fixture: str, variant: str | None, architecture: str, words: str, tmp_path: Path
) -> None:
    with pytest.raises(BenchError, match=words):
        bench.load(_write(fixture, variant, tmp_path), arch=architecture)


def test_only_a_teacher_has_no_student(tmp_path: Path) -> None:
    content = maker.make(str(GOLDEN / "dino-vit_small16" / "manifest.json"))
    torch.save({"teacher": content["teacher"], "epoch": 3}, tmp_path / "teacher.pth")
    with pytest.raises(BenchError, match="no weight set 'student'.*it has teacher.backbone"):
        bench.load(tmp_path / "teacher.pth", weights_key="student")
