"""Names of official code and of Hugging Face: the file's network gives what timm's own does by its own names."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import timm
import torch
from layouthelp import close, filled, images, loaded, renamed, split, timm_network, values
from smalllayouts import small_clip
from torch import Tensor, nn

import bench
from adapters.architecture import Architecture
from adapters.layouts import recognise
from adapters.lightness import LightnessBackbone, lightness
from adapters.matching import match
from adapters.networks import build
from adapters.networks.clip_resnet import ClipResNet
from adapters.networks.wide_bottleneck import WideBottleneckResNet
from adapters.weightsets import WeightSet
from bench.card import Card, Transform
from bench.errors import BenchError

SMALL: dict[str, Any] = {"img_size": 32, "embed_dim": 64, "depth": 2, "num_heads": 2}
BEIT = {**SMALL, "img_size": 80}


@pytest.mark.parametrize("start", ["model.layer", "layer"])
@pytest.mark.parametrize("plus", [False, True])
def test_dinov3_of_hugging_face(start: str, plus: bool, tmp_path: Path) -> None:
    name = "vit_small_plus_patch16_dinov3_qkvb" if plus else "vit_small_patch16_dinov3_qkvb"
    network = timm_network(name, **SMALL)
    block = rf"{start}.\1."
    tensors = renamed(
        dict(network.state_dict()),
        (r"cls_token", "embeddings.cls_token"),
        (r"reg_token", "embeddings.register_tokens"),
        (r"patch_embed\.proj\.(.*)", r"embeddings.patch_embeddings.\1"),
        (r"blocks\.(\d+)\.attn\.proj\.(.*)", rf"{block}attention.o_proj.\2"),
        (r"blocks\.(\d+)\.attn\.([qv])_bias", rf"{block}attention.\2_proj.bias"),
        (r"blocks\.(\d+)\.gamma_([12])", rf"{block}layer_scale\2.lambda1"),
        (r"blocks\.(\d+)\.mlp\.fc1_g\.(.*)", rf"{block}mlp.gate_proj.\2"),
        (r"blocks\.(\d+)\.mlp\.fc1(?:_x)?\.(.*)", rf"{block}mlp.up_proj.\2"),
        (r"blocks\.(\d+)\.mlp\.fc2\.(.*)", rf"{block}mlp.down_proj.\2"),
        (r"blocks\.(\d+)\.(norm[12])\.(.*)", rf"{block}\2.\3"),
    )
    parts = tuple(rf"{start}.\1.attention.{part}_proj.weight" for part in "qkv")
    tensors = split(tensors, r"blocks\.(\d+)\.attn\.qkv\.weight", (parts[0], parts[1], parts[2]))
    tensors["embeddings.mask_token"] = torch.zeros(1, 1, 64)
    backbone = loaded(tensors, tmp_path, name, **SMALL)
    assert backbone.card.method == "dinov3"
    assert close(backbone.features(images(32))["pooled"], network.forward_features(images(32))[:, 0])


def test_resnet_of_hugging_face(tmp_path: Path) -> None:
    arguments: dict[str, Any] = {"layers": (1, 1, 1, 1), "channels": (8, 8, 8, 8)}
    network = timm_network("resnet50", **arguments)
    rules = [(r"conv1\.(.*)", r"resnet.embedder.embedder.convolution.\1")]
    rules += [(r"bn1\.(.*)", r"resnet.embedder.embedder.normalization.\1")]
    for stage in range(4):
        ours, theirs = rf"layer{stage + 1}\.(\d+)\.", rf"resnet.encoder.stages.{stage}.layers.\1."
        for part in range(3):
            rules += [(ours + rf"conv{part + 1}\.(.*)", theirs + rf"layer.{part}.convolution.\2")]
            rules += [(ours + rf"bn{part + 1}\.(.*)", theirs + rf"layer.{part}.normalization.\2")]
        rules += [(ours + r"downsample\.0\.(.*)", theirs + r"shortcut.convolution.\2")]
        rules += [(ours + r"downsample\.1\.(.*)", theirs + r"shortcut.normalization.\2")]
    backbone = loaded(renamed(dict(network.state_dict()), *rules), tmp_path, "resnet50", **arguments)
    assert close(backbone.features(images(32))["pooled"], network(images(32)))


def test_siglip_of_hugging_face(tmp_path: Path) -> None:
    arguments = {**SMALL, "act_layer": "gelu_tanh"}
    network = timm_network("vit_base_patch16_siglip_224", **arguments)
    block = r"vision_model.encoder.layers.\1."
    tensors = dict(network.state_dict())
    for kind in ("weight", "bias"):
        query, rest = tensors.pop(f"attn_pool.q.{kind}"), tensors.pop(f"attn_pool.kv.{kind}")
        tensors[f"vision_model.head.attention.in_proj_{kind}"] = torch.cat([query, rest])
    tensors = renamed(
        tensors,
        (r"patch_embed\.proj\.(.*)", r"vision_model.embeddings.patch_embedding.\1"),
        (r"pos_embed", "vision_model.embeddings.position_embedding.weight"),
        (r"blocks\.(\d+)\.norm([12])\.(.*)", rf"{block}layer_norm\2.\3"),
        (r"blocks\.(\d+)\.attn\.proj\.(.*)", rf"{block}self_attn.out_proj.\2"),
        (r"blocks\.(\d+)\.mlp\.(.*)", rf"{block}mlp.\2"),
        (r"norm\.(.*)", r"vision_model.post_layernorm.\1"),
        (r"attn_pool\.latent", "vision_model.head.probe"),
        (r"attn_pool\.proj\.(.*)", r"vision_model.head.attention.out_proj.\1"),
        (r"attn_pool\.norm\.(.*)", r"vision_model.head.layernorm.\1"),
        (r"attn_pool\.mlp\.(.*)", r"vision_model.head.mlp.\1"),
    )
    tensors["vision_model.embeddings.position_embedding.weight"] = tensors[
        "vision_model.embeddings.position_embedding.weight"
    ][0]
    parts = tuple(rf"{block}self_attn.{part}_proj.\2" for part in "qkv")
    tensors = split(tensors, r"blocks\.(\d+)\.attn\.qkv\.(.*)", (parts[0], parts[1], parts[2]))
    backbone = loaded(tensors, tmp_path, "vit_base_patch16_siglip_224", **SMALL)
    assert backbone.card.method == "siglip"
    assert close(backbone.features(images(32))["pooled"], network(images(32)))


def _beit(classifier: int = 0) -> tuple[nn.Module, dict[str, Tensor]]:
    network = timm_network("beit_base_patch16_224", global_pool="token", **BEIT)
    tensors = {n: t for n, t in network.state_dict().items() if t.is_floating_point()}
    return network, {**tensors, "mask_token": torch.zeros(1, 1, 64), "lm_head.weight": values("lm", (classifier, 64))}


@pytest.mark.parametrize(("outputs", "method", "mean"), [(64, "data2vec", 0.485), (128, "beit", 0.5)])
def test_data2vec_is_told_from_beit_by_what_it_predicts(outputs: int, method: str, mean: float, tmp_path: Path) -> None:
    network, tensors = _beit(outputs)
    ema = {name: 2 * tensor for name, tensor in tensors.items()}
    content = {"model": tensors, "model_ema": ema} if method == "data2vec" else {"model": tensors}
    backbone = loaded(content, tmp_path, "beit_base_patch16_224", **BEIT)
    assert (backbone.card.method, backbone.card.weights_key) == (method, "model")
    assert backbone.card.transform.mean[0] == mean
    assert close(backbone.features(images(80))["pooled"], network.forward_features(images(80))[:, 1:].mean(1))


def test_a_simmim_transformer_is_no_beit(tmp_path: Path) -> None:
    network, tensors = _beit(64)
    tensors = {f"encoder.{name}": tensor for name, tensor in tensors.items() if not name.startswith("lm_head")}
    tensors["decoder.0.weight"] = torch.zeros(16 * 16 * 3, 64, 1, 1)
    backbone = loaded({"model": tensors}, tmp_path, "beit_base_patch16_224", **BEIT)
    assert backbone.card.method == "simmim"
    assert backbone.card.transform.mean[0] == 0.485
    assert backbone.card.transform.crop == 80
    assert close(backbone.features(images(80))["pooled"], network.forward_features(images(80))[:, 1:].mean(1))


def test_clip_resnet_gives_the_numbers_of_openai_s_code() -> None:
    network = filled(ClipResNet((1, 2, 1, 1), width=8, size=64, out=16))
    with torch.no_grad():
        maps, pooled = network.stages(images(64))
    # ModifiedResNet((1, 2, 1, 1), 16, 4, 64, 8) of openai/CLIP on the same weights.
    expected = torch.tensor(
        [[0.04022408, -0.01147673, -0.06746496, 0.34806377], [0.04125589, -0.01236281, -0.06678169, 0.34822559]]
    )
    assert (pooled[:, :4] - expected).abs().max() < 1e-6
    assert [tuple(level.shape[1:]) for level in maps] == [(32, 16, 16), (64, 8, 8), (128, 4, 4), (256, 2, 2)]


def test_a_widened_resnet_gives_the_numbers_of_vicreg_s_code() -> None:
    network = filled(WideBottleneckResNet((1, 1, 1, 1), width=2))
    with torch.no_grad():
        pooled = network.stages(images(64))[1]
    expected = torch.tensor([[0.04923896, 0.0, 0.23911431], [0.01616234, 0.0, 0.11024673]])
    assert (pooled[:, :3] - expected).abs().max() < 1e-6


@pytest.mark.parametrize(
    ("architecture", "prefix", "others"),
    [
        ("clip_resnet101", "visual.", {"text_projection": (512, 512), "input_resolution": ()}),
        ("clip_resnet50x4", "module.visual.", {"module.text_projection": (640, 640)}),
        ("resnet50w4", "module.", {"module.projection_head.0.weight": (8, 8), "module.prototypes.weight": (30, 8)}),
        ("resnet200w2", "module.backbone.", {"module.projector.0.weight": (8, 8)}),
        ("resnet50_vissl_colorization", "_feature_blocks.", {}),
    ],
)
def test_the_architecture_is_found(architecture: str, prefix: str, others: dict[str, tuple[int, ...]]) -> None:
    shapes = {f"{prefix}{name}": tuple(shape) for name, shape in Architecture(architecture).outline().needed.items()}
    tensors = {name: torch.empty(shape, device="meta") for name, shape in {**shapes, **others}.items()}
    layout = recognise({f"model/{name}": tuple(tensor.shape) for name, tensor in tensors.items()})
    found = match([WeightSet("model", tensors)], arch=None, weights_key=None, file="weights.pth", layout=layout)
    assert found.architecture.name == architecture
    assert found.layout.name in {"OpenAI CLIP", "open_clip", "SwAV", "VICReg", "plain"}


@pytest.mark.parametrize("numbered", [False, True])
def test_lightly_s_numbered_resnet(numbered: bool, tmp_path: Path) -> None:
    arguments: dict[str, Any] = {"layers": (1, 1, 1, 1), "channels": (8, 8, 8, 8)}
    network = timm_network("resnet50", **arguments)
    rules = [(r"conv1\.(.*)", r"0.\1"), (r"bn1\.(.*)", r"1.\1")]
    rules += [(rf"layer{i}\.(.*)", rf"{i + 3}.\1") for i in range(1, 5)]
    tensors = renamed(dict(network.state_dict()), *(rules if numbered else ()))
    content = {f"backbone.{name}": tensor for name, tensor in tensors.items()}
    content |= {f"backbone_momentum.{name}": tensor * 1.5 for name, tensor in tensors.items()}
    content["projection_head.layers.0.weight"] = torch.zeros(8, 32)
    backbone = loaded({"state_dict": content, "pytorch-lightning_version": "2.0"}, tmp_path, "resnet50", **arguments)
    assert backbone.card.weights_key == "state_dict.backbone"
    assert close(backbone.features(images(32))["pooled"], network(images(32)))


def test_mmpretrain_keeps_the_averaged_weights_in_the_plain_set_s_place(tmp_path: Path) -> None:
    arguments: dict[str, Any] = {"layers": (1, 1, 1, 1), "channels": (8, 8, 8, 8)}
    network = filled(timm.create_model("resnet50", pretrained=False, num_classes=1000, **arguments))
    network.requires_grad_(False)
    state = renamed(dict(network.state_dict()), (r"fc\.(.*)", r"head.fc.\1"), (r"(.*)", r"backbone.\1"))
    raw = {f"module.{name}": tensor * 1.5 for name, tensor in state.items()}
    content = {"meta": {"version": "1.0"}, "state_dict": state, "ema_state_dict": raw}
    backbone = loaded(content, tmp_path, "resnet50", **arguments)
    out = backbone.features(images(32))
    assert backbone.card.weights_key == "state_dict.backbone"
    assert close(out["logits"], network(images(32)))


def test_mmpretrain_s_transformer(tmp_path: Path) -> None:
    network = timm_network("vit_small_patch16_224", **SMALL)
    block = r"backbone.layers.\1."
    tensors = renamed(
        dict(network.state_dict()),
        (r"patch_embed\.proj\.(.*)", r"backbone.patch_embed.projection.\1"),
        (r"blocks\.(\d+)\.norm([12])\.(.*)", rf"{block}ln\2.\3"),
        (r"blocks\.(\d+)\.mlp\.fc1\.(.*)", rf"{block}ffn.layers.0.0.\2"),
        (r"blocks\.(\d+)\.mlp\.fc2\.(.*)", rf"{block}ffn.layers.1.\2"),
        (r"blocks\.(\d+)\.(.*)", rf"{block}\2"),
        (r"norm\.(.*)", r"backbone.ln1.\1"),
        (r"(.*)", r"backbone.\1"),
    )
    backbone = loaded({"meta": {}, "state_dict": tensors}, tmp_path, "vit_small_patch16_224", **SMALL)
    assert close(backbone.features(images(32))["pooled"], network.forward_features(images(32))[:, 0])


def test_the_lightness_of_opencv_s_8_bit_lab() -> None:
    colours = torch.tensor([[1, 0, 0], [0, 1, 0], [0, 0, 1], [1, 1, 1], [0, 0, 0]], dtype=torch.float32)
    levels = lightness(colours.T[:, :, None]) * 2.55
    assert levels.flatten().round().tolist() == [136, 224, 82, 255, 0]


def test_colorization_s_trunk_reads_lightness() -> None:
    from PIL import Image

    network = filled(build("alexnet_vissl_colorization"))
    card = Card(
        name="colour", spec="", architecture="", family="cnn", dims={}, feature="", weight_digest="",
        transform=Transform(resize=256, crop=224),
    )  # fmt: skip
    pixels = LightnessBackbone(network, card).preprocess(Image.new("RGB", (300, 280), (255, 0, 0)))
    assert pixels.shape == (3, 224, 224)
    assert torch.allclose(pixels[0], torch.tensor(136 / 2.55 - 50))
    assert not pixels[1:].any()


def test_colorization_s_resnet(tmp_path: Path) -> None:
    """One channel, and a last stage that halves nothing: torchvision's own network, changed so."""
    from torchvision.models.resnet import Bottleneck, ResNet

    own: Any = ResNet(Bottleneck, [1, 1, 1, 1])
    own.conv1, own.fc = nn.Conv2d(1, 64, 7, 2, 3, bias=False), nn.Identity()
    own.layer4[0].conv2.stride = own.layer4[0].downsample[0].stride = (1, 1)
    network = filled(own).requires_grad_(False)
    trunk = {f"_feature_blocks.{name}": tensor for name, tensor in network.state_dict().items()}
    content = {"classy_state_dict": {"base_model": {"model": {"trunk": trunk, "heads": {}}}}}
    backbone = loaded(content, tmp_path, "resnet50_vissl_colorization", blocks=(1, 1, 1, 1))
    assert close(backbone.features(images(64))["pooled"], network(images(64)[:, :1]))
    assert backbone.card.strides == [4, 8, 16, 16]
    assert any("L of 8-bit LAB" in note for note in backbone.card.notes)


def test_jigsaw_s_trunk_halves_less() -> None:
    network = filled(build("alexnet_vissl_jigsaw"))
    with torch.no_grad():
        maps, pooled = network.stages(images(224, 1))
    assert [level.shape[-1] for level in maps] == [107, 53, 26]
    assert pooled.shape == (1, network.num_features)


def test_a_small_network_s_images_are_not_enlarged_to_its_method_s(tmp_path: Path) -> None:
    network = filled(build("resnet18_small")).requires_grad_(False)
    tensors = {f"encoder_q.{n}": t for n, t in network.state_dict().items() if not n.startswith("fc.")}
    torch.save({"state_dict": {**tensors, "encoder_q.fc.weight": torch.zeros(128, 512)}}, tmp_path / "moco.pth")
    card = bench.load(tmp_path / "moco.pth").card
    assert card.method == "mocov1"
    assert card.transform is not None
    assert card.transform.crop == 32
    assert any("assumed CIFAR-10's at 32 pixels" in note for note in card.notes)


def test_open_clip_s_siglip(tmp_path: Path) -> None:
    network = timm_network("vit_base_patch16_siglip_224", **SMALL)
    tensors = {f"visual.trunk.{name}": tensor for name, tensor in network.state_dict().items()}
    tensors |= {"logit_scale": torch.zeros(()), "logit_bias": torch.zeros(()), "text.cls_emb": torch.zeros(64)}
    backbone = loaded({"state_dict": tensors}, tmp_path, "vit_base_patch16_siglip_224", **SMALL)
    assert backbone.card.method == "siglip"
    assert backbone.card.transform.mean == (0.5, 0.5, 0.5)
    assert close(backbone.features(images(32))["pooled"], network(images(32)))
    _names_open_clip(backbone, "ViT-B-16-SigLIP")


def test_open_clip_s_texts_of_another_design(tmp_path: Path) -> None:
    tensors = small_clip(archive=False)
    tensors |= {f"text.{n}": tensors.pop(n) for n in ("text_projection",)}
    tensors["text.token_embedding.weight"] = torch.zeros(9, 64)
    backbone = loaded(tensors, tmp_path, "vit_base_patch32_clip_224", **{**SMALL, "img_size": 64})
    assert backbone.card.method == "clip"
    _names_open_clip(backbone, "convnext_base")


def _names_open_clip(backbone: Any, example: str) -> None:
    assert backbone.card.text is None
    assert any("openclip:NAME?weights=" in note for note in backbone.card.notes)
    with pytest.raises(BenchError, match=rf"not CLIP's own: .*openclip:NAME\?weights=.*weights\.pth .*as {example}$"):
        backbone.text_tower()
