"""Hugging Face folders against transformers itself: the configuration's epsilon, transform and class defaults count."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from layouthelp import saved

import bench
from adapters.huggingface import refined
from adapters.layouts import recognise
from bench.backbone import Backbone
from bench.errors import BenchError

transformers = pytest.importorskip("transformers")

SMALL = {"hidden_size": 192, "num_attention_heads": 3, "num_hidden_layers": 12, "intermediate_size": 768}


def _features(folder: Path, images: torch.Tensor) -> tuple[Backbone, dict[str, torch.Tensor]]:
    backbone = bench.load(folder)
    assert isinstance(backbone, Backbone)
    with torch.no_grad():
        return backbone, backbone.features(images)


def _tokens_of_a_small_vit(folder: Path, **stated: Any) -> tuple[Backbone, dict[str, torch.Tensor], torch.Tensor]:
    """The loaded network, its features, and the tokens that transformers computes."""
    config = transformers.ViTConfig(**{**SMALL, "image_size": 32, **stated})
    model = transformers.ViTModel(config, add_pooling_layer=False)
    images = torch.randn(2, 3, 32, 32) * 0.05
    backbone, out = _features(saved(model, folder), images)
    with torch.no_grad():
        return backbone, out, model(images).last_hidden_state


@pytest.mark.parametrize("epsilon", [1e-12, 1e-3])
def test_vit_with_the_epsilon_of_its_configuration(tmp_path: Path, epsilon: float) -> None:
    config = transformers.ViTConfig(**SMALL, layer_norm_eps=epsilon)
    model = transformers.ViTForImageClassification(config)
    images = torch.randn(2, 3, 224, 224) * 0.05
    backbone, out = _features(saved(model, tmp_path), images)
    with torch.no_grad():
        expected = model(images, output_hidden_states=False).logits
    torch.testing.assert_close(out["logits"], expected, rtol=1e-4, atol=1e-4)
    assert backbone.card.layout is not None
    assert backbone.card.layout.startswith("Hugging Face ViT")
    assert f"norm_eps={epsilon!r}" in backbone.card.architecture


@pytest.mark.parametrize(
    "stated",
    [{"num_attention_heads": 6}, {"hidden_act": "quick_gelu"}, {"hidden_act": "gelu_new"}, {"hidden_size": 96}],
)
def test_heads_and_activation_are_those_of_the_configuration(tmp_path: Path, stated: dict[str, Any]) -> None:
    backbone, out, tokens = _tokens_of_a_small_vit(tmp_path, **stated)
    torch.testing.assert_close(out["pooled"], tokens[:, 0], rtol=1e-4, atol=1e-4)
    assert not any("assumed: shapes do not tell" in note for note in backbone.card.notes)


def test_an_activation_that_timm_has_not_is_that_of_transformers(tmp_path: Path) -> None:
    backbone, out, tokens = _tokens_of_a_small_vit(tmp_path, hidden_act="mish")
    torch.testing.assert_close(out["cls"], tokens[:, 0], rtol=1e-4, atol=1e-4)
    assert any("read by transformers" in note and "'mish'" in note for note in backbone.card.notes)


@pytest.mark.parametrize(
    ("stated", "words"),
    [
        ({"num_attention_heads": 5}, "5 attention heads for a width of 192"),
        ({"num_attention_heads": 0}, "0 attention heads"),
        ({"hidden_act": "mishmash"}, "activation 'mishmash', which is none of gelu"),
    ],
)
def test_a_configuration_that_cannot_be_is_refused(tmp_path: Path, stated: dict[str, Any], words: str) -> None:
    model = transformers.ViTModel(transformers.ViTConfig(**SMALL), add_pooling_layer=False)
    saved(model, tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps({**config, **stated}))
    with pytest.raises(BenchError, match=words):
        bench.load(tmp_path)


@pytest.mark.parametrize(
    ("kind", "activation"),
    [
        ("clip", "quick_gelu"),
        ("clip", "gelu"),
        ("clip", "gelu_new"),
        ("clip", "relu"),
        ("siglip", "gelu"),
        ("siglip", "gelu_new"),
    ],
)  # fmt: skip
def test_towers_without_a_name_in_timm_have_their_activation(tmp_path: Path, kind: str, activation: str) -> None:
    """Their width and depth are nobody's, so the network is built from shapes alone."""
    small = {"hidden_size": 128, "num_attention_heads": 2, "num_hidden_layers": 2, "intermediate_size": 256}
    stated = {**small, "image_size": 32, "patch_size": 16, "hidden_act": activation}
    config = transformers.CONFIG_MAPPING[f"{kind}_vision_model"].from_dict(stated)
    model = transformers.MODEL_MAPPING[type(config)](config)
    images = torch.randn(2, 3, 32, 32)
    _, out = _features(saved(model, tmp_path), images)
    with torch.no_grad():
        expected = model(images).pooler_output
    assert float((out["pooled"] - expected).abs().max()) <= 3e-5 * float(expected.abs().max())


@pytest.mark.parametrize("registers", [False, True])
def test_the_configuration_of_other_weights_is_refused(tmp_path: Path, registers: bool) -> None:
    small = {"hidden_size": 64, "num_hidden_layers": 1, "num_attention_heads": 2, "image_size": 28, "patch_size": 14}
    kind = "Dinov2WithRegisters" if registers else "Dinov2"
    model = getattr(transformers, f"{kind}Model")(getattr(transformers, f"{kind}Config")(**small))
    saved(model, tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())
    other = "dinov2" if registers else "dinov2_with_registers"
    assert config["model_type"] != other
    (tmp_path / "config.json").write_text(json.dumps({**config, "model_type": other}))
    with pytest.raises(BenchError, match=rf"give the folder its own config.json \(model_type {config['model_type']}\)"):
        bench.load(tmp_path)


def test_the_processor_says_the_transform(tmp_path: Path) -> None:
    saved(transformers.ViTModel(transformers.ViTConfig(**SMALL), add_pooling_layer=False), tmp_path)
    processor = {
        "do_resize": True,
        "size": {"shortest_edge": 256},
        "resample": 3,
        "do_center_crop": True,
        "crop_size": {"height": 224, "width": 224},
        "image_mean": [0.1, 0.2, 0.3],
        "image_std": [0.5, 0.6, 0.7],
    }
    (tmp_path / "preprocessor_config.json").write_text(json.dumps(processor))
    transform = bench.load(tmp_path).card.transform
    assert transform is not None
    assert (transform.resize, transform.crop, transform.interpolation) == (256, 224, "bicubic")
    assert (transform.mean, transform.std) == ((0.1, 0.2, 0.3), (0.5, 0.6, 0.7))


def test_a_damaged_configuration_is_refused(tmp_path: Path) -> None:
    saved(transformers.ViTModel(transformers.ViTConfig(**SMALL), add_pooling_layer=False), tmp_path)
    (tmp_path / "config.json").write_text("{")
    with pytest.raises(BenchError, match="no readable JSON"):
        bench.load(tmp_path)


@pytest.mark.parametrize(
    "stated",
    [
        {"size": {"shortest_edge": "x"}},
        {"size": {"shortest_edge": -3}},
        {"size": {"height": 10**9, "width": 1}},
        {"image_std": [0, 0, 0]},
        {"image_mean": ["a", None, {}]},
        {"image_mean": [float("nan")] * 3},
        {"image_mean": [0.5]},
        {"resample": []},
    ],
)
def test_a_transform_that_cannot_be_is_refused(tmp_path: Path, stated: dict[str, Any]) -> None:
    (tmp_path / "config.json").write_text('{"vision_config": [], "layer_norm_eps": "x"}')
    sound = {"size": 224, "image_mean": [0.1, 0.2, 0.3], "image_std": [0.5, 0.6, 0.7]}
    place = tmp_path / "preprocessor_config.json"
    place.write_text(json.dumps(sound))
    assert refined(recognise({}), tmp_path, {}).transform is not None
    place.write_text(json.dumps({**sound, **stated}))
    with pytest.raises(BenchError, match=r"preprocessor_config\.json states an input transform that cannot be"):
        refined(recognise({}), tmp_path, {})


@pytest.mark.slow
@pytest.mark.parametrize("activation", ["quick_gelu", "gelu"])
def test_clip_image_tower(tmp_path: Path, activation: str) -> None:
    vision = {
        **SMALL,
        "hidden_act": activation,
        "hidden_size": 768,
        "num_attention_heads": 12,
        "intermediate_size": 3072,
        "patch_size": 32,
    }
    model = transformers.CLIPVisionModel(transformers.CLIPVisionConfig(**vision))
    images = torch.randn(1, 3, 224, 224) * 0.05
    _, out = _features(saved(model, tmp_path), images)
    with torch.no_grad():
        expected = model(images).pooler_output
    torch.testing.assert_close(out["pooled"], expected, rtol=1e-3, atol=1e-3)
