"""Hugging Face folders of model types without a layout of ours: what transformers computes is what comes out."""

from __future__ import annotations

import json
import shutil
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from contracthelp import check_contract
from hfhelp import MODELS, PLAIN, class_token, images_of, loaded, made, mean, pooler, saved, transformers
from layouthelp import close, values
from PIL import Image

import bench
from bench.errors import BenchError
from bench.transform import apply


@pytest.fixture
def regnet(tmp_path: Path) -> Path:
    return saved(made("regnet"), tmp_path / "model")


@pytest.mark.parametrize("kind", MODELS)
def test_features_are_those_of_transformers(tmp_path: Path, kind: str) -> None:
    _, wanted, strides, depth = MODELS[kind]
    model = made(kind)
    images = images_of(model, kind)
    tower = getattr(model, "vision_model", model)
    with torch.no_grad():
        expected = wanted(tower(images.transpose(1, 2) if images.ndim == 5 else images))
    for as_5 in (False, True):
        backbone = loaded(saved(model, tmp_path / str(as_5), as_5=as_5))
        with torch.no_grad():
            assert close(backbone.features(images)["pooled"], expected)
        card = backbone.card
        assert card.coverage is not None
        assert card.coverage.filled == card.coverage.total
        assert card.architecture == f"transformers:{type(tower).__name__}"
        assert (card.strides, backbone.depth) == (strides, depth)
    if images.ndim == 4:
        with torch.no_grad():
            check_contract(backbone, images, moves=False)


@pytest.mark.parametrize(
    ("kind", "name"),
    [
        ("mobilenet_v2", "MobileNetV2ForImageClassification"),
        ("levit", "LevitForImageClassificationWithTeacher"),
        ("timesformer", "TimesformerForVideoClassification"),
    ],
)
def test_the_folders_own_classifier(tmp_path: Path, kind: str, name: str) -> None:
    model = made(kind, {**MODELS[kind][0], "num_labels": 5}, name)
    images = images_of(model, kind)
    backbone = loaded(saved(model, tmp_path))
    with torch.no_grad():
        expected = model(images.transpose(1, 2) if images.ndim == 5 else images).logits
        out = backbone.features(images)
    assert close(out["logits"], expected)
    assert backbone.card.dims["logits"] == 5
    plain = sum(p.numel() for p in getattr(model, model.base_model_prefix).parameters())
    assert backbone.card.parameters == plain


@pytest.mark.parametrize(
    ("kind", "name", "decoder"),
    [
        ("videomae", "VideoMAEForPreTraining", {"decoder_hidden_size": 24, "decoder_num_attention_heads": 2}),
        (
            "hiera",
            "HieraForPreTraining",
            {"decoder_hidden_size": 16, "decoder_depth": 1, "decoder_num_heads": 2, "num_query_pool": 2},
        ),
        ("yolos", "YolosForObjectDetection", {}),
    ],
)
def test_the_network_beneath_another_head(tmp_path: Path, kind: str, name: str, decoder: dict[str, Any]) -> None:
    """Its decoder is left over, and nothing is masked at random."""
    fields = {**MODELS[kind][0], **decoder}
    folder = saved(made(kind, fields, name), tmp_path)
    backbone = loaded(folder)
    base = type(made(kind, fields)).from_pretrained(folder).eval()
    images = images_of(base, kind)
    with torch.no_grad():
        out, expected = backbone.features(images), base(images.transpose(1, 2) if images.ndim == 5 else images)
    # The class has no pooling layer, and the file no tensors for one.
    assert close(out["pooled"], class_token(expected) if kind == "yolos" else mean(expected))
    coverage = backbone.card.coverage
    assert coverage is not None
    assert [*coverage.heads, *coverage.unused]


def test_blocks_tokens_and_maps_are_one_thing(tmp_path: Path) -> None:
    model = made("chinese_clip")
    backbone = loaded(saved(model, tmp_path))
    images, tower = images_of(model, "chinese_clip"), model.vision_model
    with torch.no_grad():
        raw = tower(images, output_hidden_states=True)
        (first, _), (patches, token) = backbone.blocks(images, n=2, norm=False)
        assert token is not None
        assert close(first, raw.hidden_states[1][:, 1:])
        assert close(patches, raw.last_hidden_state[:, 1:])
        patches, token = backbone.blocks(images, n=1)[0]
        out = backbone.features(images)
        assert token is not None
        assert close(token, out["cls"])
        assert close(patches.mean(1), out["avg"])
        assert close(tower.post_layernorm(raw.last_hidden_state[:, 1:]), patches)
        (level,) = backbone.pyramid(images)
        assert close(level, patches.transpose(1, 2).reshape(2, 32, 4, 4))
    with pytest.raises(BenchError, match="has 2 blocks: the last 3 cannot be read"):
        backbone.blocks(images, n=3)
    with pytest.raises(BenchError, match=r"cannot take images of 40x40 pixels|features are not computed"):
        loaded(saved(made("mlcd_vision_model"), tmp_path / "other")).features(torch.zeros(1, 1, 40, 40))


def test_another_size_as_the_class_resizes_its_positions(tmp_path: Path) -> None:
    model = made("yolos")
    backbone = loaded(saved(model, tmp_path))
    larger = values("larger", (1, 3, 48, 40))
    with torch.no_grad():
        out = backbone.features(larger)
        assert close(out["pooled"], pooler(model(larger)))
        assert backbone.pyramid(larger)[0].shape == (1, 32, 6, 5)


def test_a_size_leaves_the_windows_of_others_alone(tmp_path: Path) -> None:
    """transformers' first Swin keeps the windows and shifts of the smallest map that it has seen."""
    folder = saved(made("donut-swin", {**MODELS["donut-swin"][0], "image_size": 32, "depths": [2, 2]}), tmp_path)
    backbone, fresh = loaded(folder), transformers.DonutSwinModel.from_pretrained(folder).eval()
    larger = values("larger", (1, 3, 64, 64)) * 100
    with torch.no_grad():
        expected = pooler(fresh(larger))
        backbone.features(larger[:, :, :32, :32])
        assert close(backbone.features(larger)["pooled"], expected)
        assert not close(pooler(fresh(larger[:, :, :32, :32])), expected)
        assert not close(pooler(fresh(larger)), expected)


def test_pickled_and_sharded_weights_of_either_kind_are_one(regnet: Path, tmp_path: Path) -> None:
    from safetensors.torch import load_file

    digest = loaded(regnet).card.weight_digest
    pickled = tmp_path / "pickled"
    shutil.copytree(regnet, pickled)
    torch.save(load_file(regnet / "model.safetensors"), pickled / "pytorch_model.bin")
    (pickled / "model.safetensors").unlink()
    assert loaded(pickled).card.weight_digest == digest
    sharded = tmp_path / "sharded"
    made("regnet").save_pretrained(sharded, max_shard_size="30KB")
    assert len(list(sharded.glob("*.safetensors"))) > 1
    assert loaded(sharded).card.weight_digest == digest


def test_networks_for_patches_of_any_aspect(tmp_path: Path) -> None:
    """SigLIP 2 takes patches, cut by its processor, with their rows and columns."""
    fields = {**PLAIN, "num_patches": 16}
    model = made("siglip2_vision_model", fields)
    images = values("images", (2, 3, 32, 24)) * 48
    corners = [(y, x) for y in (0, 8, 16, 24) for x in (0, 8, 16)]
    patches = torch.stack([images[:, :, y : y + 8, x : x + 8].permute(0, 2, 3, 1).flatten(1) for y, x in corners], 1)
    with torch.no_grad():
        expected = model(
            pixel_values=patches,
            pixel_attention_mask=torch.ones(2, 12, dtype=torch.long),
            spatial_shapes=torch.tensor([[4, 3]] * 2),
        )
        backbone = loaded(saved(model, tmp_path))
        out = backbone.features(images)
    assert close(out["pooled"], expected.pooler_output)
    assert close(out["avg"], expected.last_hidden_state.mean(1))


def test_a_translated_type_that_timm_has_not(tmp_path: Path) -> None:
    """A ConvNeXt of nobody's widths: its names are translated and fit nothing, so transformers builds it."""
    fields = {"hidden_sizes": [8, 16, 24, 32], "depths": [1, 1, 2, 1], "image_size": 64}
    model = made("convnext", fields)
    backbone = loaded(saved(model, tmp_path))
    images = images_of(model, "convnext")
    with torch.no_grad():
        assert close(backbone.features(images)["pooled"], pooler(model(images)))
    assert any(note.startswith("read by transformers, for among timm's networks") for note in backbone.card.notes)


@pytest.mark.parametrize("stated", [{"hidden_act": "gelu"}, {"downsample_in_first_stage": True}, {}])
def test_what_no_shape_tells_of_a_translated_type(tmp_path: Path, stated: dict[str, Any]) -> None:
    """ResNet-18's shapes are timm's, whatever the activation and the strides are."""
    fields = {"depths": [2, 2, 2, 2], "hidden_sizes": [64, 128, 256, 512], "layer_type": "basic", **stated}
    model = made("resnet", fields)
    backbone = bench.load(saved(model, tmp_path))
    images = images_of(model, "resnet")
    with torch.no_grad():
        assert close(backbone.features(images)["pooled"], pooler(model(images)))
    assert backbone.card.architecture == ("transformers:ResNetModel" if stated else "resnet18")


def _picture(size: int) -> Image.Image:
    """Red above, blue below, noise in both: another picture with its colours swapped."""
    noise = np.random.default_rng(0).integers(0, 128, (size, size, 3), dtype=np.uint8)
    noise[: size // 2, :, 0] += 127
    noise[size // 2 :, :, 2] += 127
    return Image.fromarray(noise)


def test_a_processor_that_swaps_red_and_blue(tmp_path: Path) -> None:
    """MobileViT from the picture on, as its own processor and class compute it."""
    fields = {
        "image_size": 64, "hidden_sizes": [16, 24, 32], "neck_hidden_sizes": [8, 8, 16, 16, 24, 24, 32],
        "num_attention_heads": 2,
    }  # fmt: skip
    model = made("mobilevit", fields, "MobileViTForImageClassification")
    saved(model, tmp_path)
    # The one that resizes with PIL; newer versions have another beside it.
    class_ = getattr(transformers, "MobileViTImageProcessorPil", None) or transformers.MobileViTImageProcessor
    processor = class_(size={"shortest_edge": 64}, crop_size={"height": 64, "width": 64})
    processor.save_pretrained(tmp_path)
    backbone, picture = loaded(tmp_path), _picture(64)
    assert backbone.card.transform is not None
    with torch.no_grad():
        fed = processor(picture, return_tensors="pt")["pixel_values"]
        ours = apply(backbone.card.transform, picture)[None]
        assert close(backbone.features(ours)["logits"], model(fed).logits)
        assert not close(backbone.features(ours.flip(1))["logits"], model(fed).logits)
        maps = model.mobilevit(fed, output_hidden_states=True).hidden_states
        assert close(backbone.pyramid(ours)[-1], maps[-1])
    assert any("swapped where images enter" in note for note in backbone.card.notes)
    plain = json.loads((tmp_path / "preprocessor_config.json").read_text()) | {"do_flip_channel_order": False}
    (tmp_path / "preprocessor_config.json").write_text(json.dumps(plain))
    # Other features of the same tensors: the store must not take the one for the other.
    assert loaded(tmp_path).card.weight_digest != backbone.card.weight_digest


def test_a_translated_type_whose_processor_swaps(tmp_path: Path) -> None:
    folder = saved(made("vit", PLAIN), tmp_path)
    said = {"do_flip_channel_order": True, "size": 32, "image_mean": [0.4, 0.5, 0.6], "image_std": [0.2, 0.25, 0.3]}
    (folder / "preprocessor_config.json").write_text(json.dumps(said))
    backbone, images = loaded(folder), images_of(made("vit", PLAIN), "vit")
    with torch.no_grad():
        theirs = transformers.ViTModel.from_pretrained(folder).eval()(images.flip(1))
        assert close(backbone.features(images)["cls"], theirs.last_hidden_state[:, 0])
    assert backbone.card.transform is not None
    assert backbone.card.transform.mean == (0.4, 0.5, 0.6)
    with pytest.raises(BenchError, match="blue before red, which no named architecture takes"):
        bench.load(folder, arch="vit_tiny_patch16_224")


def test_from_the_command_line(
    regnet: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    """`bench inspect` says how the folder is read; a suite runs on it from beginning to end."""
    from datahelp import write_imagefolder

    from bench.__main__ import main

    write_imagefolder(tmp_path / "images")
    said = {
        "size": {"shortest_edge": 36}, "do_center_crop": True, "crop_size": 32, "image_mean": [0.5] * 3,
        "image_std": [0.25] * 3, "resample": 3,
    }  # fmt: skip
    (regnet / "preprocessor_config.json").write_text(json.dumps(said))
    monkeypatch.setenv("BENCH_CACHE", str(tmp_path / "cache"))

    def bench_of(*args: str) -> str:
        monkeypatch.setattr(sys, "argv", ["bench", *args])
        with pytest.raises(SystemExit) as ended:
            main()
        told = capfd.readouterr()
        assert not ended.value.code, told.err
        return told.out

    screen = bench_of("inspect", "--model", str(regnet))
    for line in (
        "layout        Hugging Face regnet, by transformers",
        "architecture  transformers:RegNetModel (as config.json says), ",
        "transform     resize 36 bicubic, crop 32, mean 0.5/0.5/0.5 std 0.25/0.25/0.25",
        "feature       mean of the last map, 32 wide",
        "pyramid       8 at stride 4, 16 at stride 8, 24 at stride 16, 32 at stride 32",
    ):
        assert line in screen
    data, runs = f"imagefolder:{tmp_path / 'images'}", tmp_path / "runs"
    bench_of(
        "run", "--model", str(regnet), "--suite", "knn", "--data", data, "--runs", str(runs), "--set", "knn.k=1",
        "--device", "cpu", "--workers", "0",
    )  # fmt: skip
    (record,) = runs.glob("*.json")
    told = json.loads(record.read_text())
    assert 0 <= told["measurements"][0]["value"] <= 100
