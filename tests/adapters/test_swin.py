"""Swin transformers of both versions against transformers and timm: windows, depths and heads are the file's own."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
import timm
import torch
from layouthelp import close, filled, images, loaded, renamed, saved, split, timm_network
from safetensors.torch import load_file
from torch import Tensor

import bench
from adapters import hf_swin
from adapters.architecture import Architecture
from adapters.matching import match
from adapters.weightsets import WeightSet
from adapters.windowed import pretrained_windows
from bench.errors import BenchError

SMALL: dict[str, Any] = {
    "image_size": 128, "embed_dim": 16, "depths": [1, 2, 1, 1], "num_heads": [1, 2, 4, 8], "window_size": 4,
}  # fmt: skip


def _model(version: int, kind: str, **config: Any) -> Any:
    transformers = pytest.importorskip("transformers")
    name = "Swin" if version == 1 else "Swinv2"
    return getattr(transformers, f"{name}{kind}")(getattr(transformers, f"{name}Config")(**{**SMALL, **config}))


def _pooled(model: Any, pixels: Tensor) -> Tensor:
    with torch.no_grad():
        tokens: Tensor = getattr(model, model.base_model_prefix, model)(pixels).last_hidden_state
    return tokens.mean(1)


@pytest.mark.parametrize("version", [1, 2])
@pytest.mark.parametrize(
    "config",
    [
        {},
        {"layer_norm_eps": 1e-2},
        {"hidden_act": "relu"},
        {"qkv_bias": False},
        {"depths": [2, 1, 3], "num_heads": [2, 2, 8], "patch_size": 8, "mlp_ratio": 2.0},
        {"embed_dim": 96, "depths": [1, 1, 1, 1], "num_heads": [3, 6, 12, 24]},
        {"window_size": 8},
        {"image_size": [96, 96], "window_size": 3},
    ],
)
def test_a_folder_s_configuration_is_honoured(version: int, config: dict[str, Any], tmp_path: Path) -> None:
    if version == 1 and config.get("window_size") == 8:
        config = {**config, "image_size": 256}  # transformers has no windows larger than a stage in version 1
    model = _model(version, "Model", **config)
    backbone = bench.load(saved(model, tmp_path, std=0.1))
    pixels = images(model.config.image_size if isinstance(model.config.image_size, int) else 96)
    assert close(backbone.features(pixels)["pooled"], _pooled(model, pixels))
    assert backbone.card.layout == "Hugging Face Swin, no prefix"
    assert backbone.card.transform is not None
    assert backbone.card.transform.resize == (pixels.shape[-1], pixels.shape[-1])
    assert len(backbone.card.strides) == len(model.config.depths)
    assert backbone.card.notes == []


@pytest.mark.parametrize(
    "windows", [[8, 8, 8, 4], [0, 0, 0, 0], [12, 12, 12, 6]], ids=["from 8", "from nothing", "from 12"]
)
def test_the_windows_of_version_2_s_pretraining(windows: list[int], tmp_path: Path) -> None:
    model = _model(2, "Model", pretrained_window_sizes=windows)
    folder = saved(model, tmp_path, std=0.3)
    expected = _pooled(model, images(128))
    assert close(bench.load(folder).features(images(128))["pooled"], expected)
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, "pretrained_window_sizes": [6, 6, 6, 6]}))
    assert not close(bench.load(folder).features(images(128))["pooled"], expected)


@pytest.mark.parametrize("version", [1, 2])
def test_a_classifier_s_folder(version: int, tmp_path: Path) -> None:
    model = _model(version, "ForImageClassification", num_labels=7)
    out = bench.load(saved(model, tmp_path, std=0.1)).features(images(128))
    assert close(out["pooled"], _pooled(model, images(128)))
    with torch.no_grad():
        assert close(out["logits"], model(images(128)).logits)


@pytest.mark.parametrize("version", [1, 2])
def test_masked_image_modelling_is_simmim(version: int, tmp_path: Path) -> None:
    model = _model(version, "ForMaskedImageModeling")
    backbone = bench.load(saved(model, tmp_path, std=0.1))
    assert backbone.card.method == "simmim"
    assert "decoder.*" in backbone.card.coverage.heads
    assert close(backbone.features(images(128))["pooled"], _pooled(model, images(128)))


def test_other_sizes_than_the_network_s_own(tmp_path: Path) -> None:
    model = _model(2, "Model")
    backbone = bench.load(saved(model, tmp_path, std=0.1))
    pixels = images(160)[:, :, :128]
    assert close(backbone.features(pixels)["pooled"], _pooled(model, pixels))


def test_a_bare_file_of_version_1_tells_its_windows(tmp_path: Path) -> None:
    model = _model(1, "Model")
    saved(model, tmp_path, std=0.1)
    backbone = bench.load(tmp_path / "model.safetensors")
    assert "window_size=4" in backbone.card.architecture
    assert any("input of 128 pixels assumed" in note for note in backbone.card.notes)
    assert close(backbone.features(images(128))["pooled"], _pooled(model, images(128)))


def test_a_bare_file_of_version_2_does_not(tmp_path: Path) -> None:
    model = _model(2, "Model")
    saved(model, tmp_path, std=0.1)
    with pytest.raises(BenchError, match=r"windows of a Swin V2 show in none of its tensors: give the .*config.json"):
        bench.load(tmp_path / "model.safetensors")
    arch = (
        "swinv2_tiny_window8_256(window_size=4, img_size=128, embed_dim=16, depths=(1, 2, 1, 1), num_heads=(1, 2, 4, 8)"
    )
    backbone = bench.load(tmp_path / "model.safetensors", arch=f"{arch})")
    assert close(backbone.features(images(128))["pooled"], _pooled(model, images(128)))


@pytest.mark.slow  # every published size is built
def test_published_sizes_of_version_2_are_told_apart_by_arch_alone() -> None:
    with torch.device("meta"):
        tensors = dict(_model(2, "Model", embed_dim=96, depths=[2, 2, 6, 2], num_heads=[3, 6, 12, 24]).state_dict())
    with pytest.raises(
        BenchError, match=r"several architectures \(swinv2_tiny_window\d+_256, .*: say which with --arch"
    ):
        match([WeightSet("", tensors)], arch=None, weights_key=None, file="model.safetensors")


@pytest.mark.parametrize(
    ("stated", "words"),
    [
        ({"depths": [2, 2, 6, 2]}, r"depths \[2, 2, 6, 2\] and the weights beside it have \[1, 2, 1, 1\]"),
        ({"num_heads": [2, 2, 4, 8]}, r"num_heads \[2, 2, 4, 8\] and the weights beside it have \[1, 2, 4, 8\]"),
        ({"embed_dim": 32}, "embed_dim 32 and the weights beside it have 16"),
        ({"patch_size": 2}, "patch_size 2 and the weights beside it have 4"),
        ({"window_size": "wide"}, "the window_size wide, which is no length"),
        ({"window_size": 4000}, "the window_size 4000, which is no length"),
        ({"image_size": [128, 64]}, r"the image_size \[128, 64\], which is no length"),
        ({"pretrained_window_sizes": ["a"]}, "pretrained_window_sizes"),
        ({"pretrained_window_sizes": [8]}, "1 pretrained_window_sizes for 4 stages"),
        ({"window_size": 7, "image_size": 160}, r"windows of 7 for images of 160, whose stage 1 .* \(40 patches\)"),
        ({"image_size": 144}, r"windows of 4 for images of 144, whose stage 2 .* \(18 patches\)"),
        ({"use_absolute_embeddings": True}, "absolute position embeddings"),
    ],
)
def test_a_configuration_of_other_weights_is_refused(stated: dict[str, Any], words: str, tmp_path: Path) -> None:
    model = saved(_model(2, "Model"), tmp_path)
    config = json.loads((model / "config.json").read_text())
    names = {name: tuple(tensor.shape) for name, tensor in load_file(model / "model.safetensors").items()}
    with pytest.raises(BenchError, match=words):
        hf_swin.stated({**config, **stated}, names, model / "config.json")
    assert hf_swin.stated(config, names, model / "config.json")[2]["window_size"] == 4


def test_swin_of_hugging_face(tmp_path: Path) -> None:
    arguments: dict[str, Any] = {"img_size": 64, "window_size": 2, "embed_dim": 16, "depths": (1, 1, 1, 1)}
    arguments["num_heads"] = (1, 2, 4, 8)
    network = timm_network("swin_tiny_patch4_window7_224", **arguments)
    block, ours = r"swin.encoder.layers.\1.blocks.\2.", r"layers\.(\d+)\.blocks\.(\d+)\."
    tensors = renamed(
        dict(network.state_dict()),
        (r"patch_embed\.proj\.(.*)", r"swin.embeddings.patch_embeddings.projection.\1"),
        (r"patch_embed\.norm\.(.*)", r"swin.embeddings.norm.\1"),
        *((rf"layers\.{i}\.downsample\.(.*)", rf"swin.encoder.layers.{i - 1}.downsample.\1") for i in (1, 2, 3)),
        (ours + r"attn\.proj\.(.*)", block + r"attention.output.dense.\3"),
        (ours + r"attn\.(relative_position_bias_table)", block + r"attention.self.\3"),
        (ours + r"norm1\.(.*)", block + r"layernorm_before.\3"),
        (ours + r"norm2\.(.*)", block + r"layernorm_after.\3"),
        (ours + r"mlp\.fc1\.(.*)", block + r"intermediate.dense.\3"),
        (ours + r"mlp\.fc2\.(.*)", block + r"output.dense.\3"),
        (r"norm\.(.*)", r"swin.layernorm.\1"),
    )
    parts = tuple(block + rf"attention.self.{part}.\3" for part in ("query", "key", "value"))
    tensors = split(tensors, ours + r"attn\.qkv\.(.*)", (parts[0], parts[1], parts[2]))
    backbone = loaded(tensors, tmp_path, "swin_tiny_patch4_window7_224", **arguments)
    assert backbone.card.layout == "Hugging Face Swin, prefix swin."
    assert close(backbone.features(images(64))["pooled"], network(images(64)))


def test_swin_of_mmpretrain(tmp_path: Path) -> None:
    """Patch merging by unfolding: the reference merges patches with `torch.nn.Unfold`, as mmcv does."""
    arguments: dict[str, Any] = {"img_size": 64, "window_size": 2, "embed_dim": 16, "depths": (1, 1, 1, 1)}
    arguments["num_heads"] = (1, 2, 4, 8)
    network: Any = filled(timm.create_model("swin_tiny_patch4_window7_224", num_classes=5, **arguments))
    network.requires_grad_(False).eval()
    ours, theirs = r"layers\.(\d+)\.blocks\.(\d+)\.", r"backbone.stages.\1.blocks.\2."
    tensors = renamed(
        {name: tensor for name, tensor in network.state_dict().items() if "downsample" not in name},
        (r"patch_embed\.proj\.(.*)", r"backbone.patch_embed.projection.\1"),
        (r"patch_embed\.norm\.(.*)", r"backbone.patch_embed.norm.\1"),
        (ours + r"attn\.(.*)", theirs + r"attn.w_msa.\3"),
        (ours + r"mlp\.fc1\.(.*)", theirs + r"ffn.layers.0.0.\3"),
        (ours + r"mlp\.fc2\.(.*)", theirs + r"ffn.layers.1.\3"),
        (ours + r"(norm.*)", theirs + r"\3"),
        (r"norm\.(.*)", r"backbone.norm3.\1"),
    )
    torch.manual_seed(1)
    for stage in range(3):
        merging = network.layers[stage + 1].downsample
        width = merging.norm.weight.shape[0] // 4
        norm, reduction = torch.randn(4 * width), torch.randn(2 * width, 4 * width) / width
        tensors[f"backbone.stages.{stage}.downsample.norm.weight"] = norm
        tensors[f"backbone.stages.{stage}.downsample.norm.bias"] = torch.zeros(4 * width)
        tensors[f"backbone.stages.{stage}.downsample.reduction.weight"] = reduction

        def merge(x: torch.Tensor, norm: torch.Tensor = norm, reduction: torch.Tensor = reduction) -> torch.Tensor:
            rows, columns = x.shape[1] // 2, x.shape[2] // 2
            unfolded = torch.nn.Unfold(2, stride=2)(x.permute(0, 3, 1, 2)).transpose(1, 2)
            normal = torch.nn.functional.layer_norm(unfolded, unfolded.shape[-1:], norm)
            return (normal @ reduction.T).reshape(len(x), rows, columns, -1)

        merging.forward = merge
    content = {"meta": {"mmpretrain_version": "1.2.0"}, "state_dict": tensors}
    arch = "swin_tiny_patch4_window7_224"
    backbone = loaded(content, tmp_path, arch, **arguments)
    with torch.no_grad():
        out = backbone.features(images(64))
        assert close(out["pooled"], network.forward_head(network.forward_features(images(64)), pre_logits=True))
        assert close(out["logits"], network(images(64)))


def _microsoft(network: Any) -> dict[str, Tensor]:
    """The names of Microsoft's own code: merging ends a stage, and the tables of every block are kept."""
    tensors: dict[str, Tensor] = {}
    for name, tensor in network.state_dict().items():
        found = re.fullmatch(r"layers\.(\d+)\.downsample\.(.*)", name)
        tensors[f"layers.{int(found[1]) - 1}.downsample.{found[2]}" if found else name] = tensor
    for name, part in network.named_modules():
        if hasattr(part, "relative_coords_table"):
            tensors[f"{name}.relative_coords_table"] = part.relative_coords_table
            tensors[f"{name}.relative_position_index"] = part.relative_position_index
    return {re.sub(r"^head\.fc\.", "head.", name): tensor for name, tensor in tensors.items()}


@pytest.mark.parametrize("before", [(0, 0, 0, 0), (3, 3, 3, 2)])
@pytest.mark.parametrize("size", [64, 128])
def test_microsoft_s_file_of_version_2_tells_all_its_windows(
    size: int, before: tuple[int, ...], tmp_path: Path
) -> None:
    arguments: dict[str, Any] = {"img_size": size, "window_size": 4, "embed_dim": 16, "depths": (1, 2, 1, 1)}
    arguments |= {"num_heads": (1, 2, 4, 8), "pretrained_window_sizes": before, "num_classes": 5}
    network = filled(timm.create_model("swinv2_tiny_window8_256", **arguments)).requires_grad_(False)
    torch.save({"model": _microsoft(network)}, tmp_path / "swinv2.pth")
    backbone = bench.load(tmp_path / "swinv2.pth")
    assert ("pretrained_window_sizes=(3, 3, 3, " in backbone.card.architecture) == any(before)
    assert close(backbone.features(images(size))["logits"], network(images(size)))


@pytest.mark.parametrize(
    ("name", "tensor"),
    [
        ("patch_embed.proj.weight", torch.zeros(0, 3, 4, 4)),
        ("patch_embed.proj.weight", torch.zeros(16, 3, 0, 0)),
        ("layers.1.blocks.0.attn.logit_scale", torch.zeros(0, 1, 1)),
        ("layers.0.blocks.0.mlp.fc1.weight", torch.zeros(0, 16)),
        ("layers.0.blocks.0.attn.relative_coords_table", torch.zeros(1, 0, 0, 2)),
        ("layers.0.blocks.0.attn.relative_coords_table", torch.zeros(1, 7999, 1, 2)),
        ("layers.900.blocks.0.norm1.weight", torch.zeros(16)),
        ("layers.0.blocks.0.attn.relative_coords_table", None),
    ],
)
def test_damaged_tables_are_a_sentence(name: str, tensor: Tensor | None) -> None:
    arguments: dict[str, Any] = {"img_size": 64, "window_size": 4, "embed_dim": 16, "depths": (1, 1, 1, 1)}
    network = timm.create_model("swinv2_tiny_window8_256", num_heads=(1, 2, 4, 8), num_classes=0, **arguments)
    tensors = _microsoft(network)
    tensors.pop(name, None)
    if tensor is not None:
        tensors[name] = tensor
    with pytest.raises(BenchError):
        match([WeightSet("", tensors)], arch=None, weights_key=None, file="swinv2.pth")


def test_coordinates_of_another_kind_say_nothing() -> None:
    grid = torch.zeros(1, 7, 7, 2, dtype=torch.complex64)
    assert pretrained_windows({"layers.0.blocks.0.attn.relative_coords_table": grid}, "") == {}
    assert pretrained_windows({"layers.0.blocks.0.attn.relative_coords_table": grid.real * float("nan")}, "") == {
        "pretrained_window_sizes": (0,)
    }


def test_missing_blocks_are_no_design_of_their_own() -> None:
    shapes = Architecture("swin_tiny_patch4_window7_224").outline().needed
    tensors = {
        name: torch.empty(shape, device="meta")
        for name, shape in shapes.items()
        if not re.match(r"layers\.2\.blocks\.[345]\.", name)
    }
    with pytest.raises(BenchError, match=r"of swin_tiny_patch4_window7_224, missing layers\.2\.blocks\.3\."):
        match([WeightSet("", tensors)], arch=None, weights_key=None, file="swin.pth")


@pytest.mark.parametrize("name", ["swin_tiny_patch4_window7_224", "swinv2_tiny_window8_256"])
def test_an_activation_that_is_none_is_refused(name: str) -> None:
    with pytest.raises(BenchError, match="cannot be made so: nothing is called 'gelou'"):
        Architecture(name).with_arguments(act_layer="gelou").outline()


@pytest.mark.parametrize("version", [1, 2])
@pytest.mark.parametrize("shape", [(192, 208), (256, 256)])
def test_maps_that_windows_do_not_divide(version: int, shape: tuple[int, int], tmp_path: Path) -> None:
    """transformers pads before it shifts, and shifts the last stage where it is larger than its window."""
    model = _model(version, "Model", depths=[2, 2, 2, 2])
    folder = tmp_path
    filled(model).save_pretrained(folder)
    height, width = shape
    pixels = images(max(shape))[:, :, :height, :width]
    with torch.no_grad():
        # A network of its own for every size: those of version 1 remember the smallest they have seen.
        theirs = type(model).from_pretrained(folder)(pixels)
        backbone = bench.load(folder)
        assert close(backbone.features(pixels)["pooled"], theirs.last_hidden_state.mean(1))
        level = backbone.pyramid(pixels)[-1]
    assert level.shape[2:] == (-(-height // 32), -(-width // 32))
