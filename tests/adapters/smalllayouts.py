"""A small file of every layout, under the names that its official code writes."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import pytest
import timm
import torch
from layouthelp import filled
from torch import Tensor

from adapters.networks import build

Tensors = dict[str, Tensor]

RESNET: dict[str, Any] = {"layers": (1, 1, 1, 1), "channels": (8, 16, 16, 24)}
VIT: dict[str, Any] = {"img_size": 32, "embed_dim": 64, "depth": 2, "num_heads": 2}
BEIT = {**VIT, "img_size": 80}
SWIN: dict[str, Any] = {
    "img_size": 64,
    "window_size": 2,
    "embed_dim": 16,
    "depths": (1, 1, 1, 1),
    "num_heads": (1, 2, 4, 8),
}
_HEAD = {"projector.0.weight": torch.zeros(8, 24)}


def _state(name: str, classes: int = 0, **arguments: Any) -> Tensors:
    network = filled(timm.create_model(name, pretrained=False, num_classes=classes, **arguments))
    return {n: t for n, t in network.state_dict().items() if t.is_floating_point() and not n.endswith("rope.periods")}


def _under(tensors: Tensors, prefix: str) -> Tensors:
    return {prefix + name: tensor for name, tensor in tensors.items()}


def _named(tensors: Tensors, *rules: tuple[str, str]) -> Tensors:
    return {
        next((m.expand(theirs) for ours, theirs in rules if (m := re.fullmatch(ours, name))), name): tensor
        for name, tensor in tensors.items()
    }


def _resnet(prefix: str, others: tuple[str, ...] = (), second: str | None = None) -> Tensors:
    """A small bottleneck network under ``prefix``, other networks' tensors beside it."""
    own = _state("resnet50", **RESNET)
    beside = _under({n: 1.5 * t for n, t in own.items()}, second) if second is not None else {}
    return {**_under(own, prefix), **beside, **{name: torch.zeros(8, 24) for name in others}}


def _vit(prefix: str = "", others: tuple[str, ...] = (), base: str = "vit_small_patch16_224", **more: Any) -> Tensors:
    return {**_under(_state(base, **{**VIT, **more}), prefix), **{name: torch.zeros(1, 1, 64) for name in others}}


def _teacher(make: Callable[[float], Tensors]) -> Any:
    return {"teacher": make(1.0), "student": make(1.5), "epoch": 3}


def _dino(gain: float) -> Tensors:
    return {n: gain * t for n, t in _vit("backbone.").items()} | {"head.last_layer.weight": torch.zeros(9, 8)}


def _ibot(gain: float) -> Tensors:
    return _dino(gain) | {"backbone.masked_embed": torch.zeros(1, 64)}


def _dinov2(registers: bool) -> Tensors:
    name = f"vit_small_patch14{'_reg4' if registers else ''}_dinov2"
    own = _named(_state(name, **{**VIT, "img_size": 28}), (r"reg_token", "register_tokens"))
    if registers:  # the official position table has one for the class token too
        own["pos_embed"] = torch.cat([torch.zeros(1, 1, 64), own["pos_embed"]], 1)
    return own | {"mask_token": torch.zeros(1, 64)}


def _dinov3() -> Tensors:
    own = _state("vit_small_patch16_dinov3_qkvb", **VIT)
    out: Tensors = {}
    for name, tensor in own.items():
        if name.endswith("attn.q_bias"):
            out[name.replace("q_bias", "qkv.bias")] = torch.cat([tensor, tensor * 0, own[name.replace("q_", "v_")]])
            out[name.replace("q_bias", "qkv.bias_mask")] = torch.ones(3 * len(tensor))
        elif not name.endswith("attn.v_bias"):
            out[re.sub(r"\.gamma_([12])$", r".ls\1.gamma", name.replace("reg_token", "storage_tokens"))] = tensor
    return out


def _beit(prefix: str = "", outputs: int = 128, decoder: bool = False) -> Tensors:
    own = _under(_state("beit_base_patch16_224", global_pool="token", **BEIT), prefix)
    own[f"{prefix}mask_token"] = torch.zeros(1, 1, 64)
    if decoder:
        return own | {"decoder.0.weight": torch.zeros(768, 64, 1, 1)}
    return own | {"lm_head.weight": torch.zeros(outputs, 64)}


def small_clip(archive: bool) -> Tensors:
    own = _state("vit_base_patch32_clip_224", **{**VIT, "img_size": 64})
    block = r"blocks\.(\d+)\."
    own = _named(
        own,
        (r"cls_token", "class_embedding"),
        (r"pos_embed", "positional_embedding"),
        (r"patch_embed\.proj\.weight", "conv1.weight"),
        (r"norm_pre\.(.*)", r"ln_pre.\1"),
        (r"norm\.(.*)", r"ln_post.\1"),
        (block + r"norm([12])\.(.*)", r"transformer.resblocks.\1.ln_\2.\3"),
        (block + r"attn\.qkv\.(.*)", r"transformer.resblocks.\1.attn.in_proj_\2"),
        (block + r"attn\.proj\.(.*)", r"transformer.resblocks.\1.attn.out_proj.\2"),
        (block + r"mlp\.fc1\.(.*)", r"transformer.resblocks.\1.mlp.c_fc.\2"),
        (block + r"mlp\.fc2\.(.*)", r"transformer.resblocks.\1.mlp.c_proj.\2"),
    )
    own["class_embedding"], own["positional_embedding"] = own["class_embedding"][0, 0], own["positional_embedding"][0]
    text = {"text_projection": torch.zeros(64, 32), "logit_scale": torch.zeros(())}
    return _under(own, "visual.") | text | ({"input_resolution": torch.tensor(64)} if archive else {})


def _torchvision_vit() -> Tensors:
    from torchvision.models import VisionTransformer

    return filled(
        VisionTransformer(image_size=32, patch_size=16, num_layers=2, num_heads=2, hidden_dim=64, mlp_dim=256)
    ).state_dict()


def _jax() -> Tensors:
    from test_foreign_files import _jax as arrays

    own = filled(timm.create_model("vit_small_patch16_224", num_classes=10, **VIT)).state_dict()
    named = arrays({name: tensor.numpy() for name, tensor in own.items()}, True)
    return {name: torch.from_numpy(array.copy()) for name, array in named.items()}


def _hf_dinov3() -> Tensors:
    own = _state("vit_small_patch16_dinov3_qkvb", **VIT)
    out: Tensors = {}
    for name, tensor in own.items():
        if name.endswith("attn.qkv.weight"):
            stem = name.replace("blocks.", "layer.").removesuffix("attn.qkv.weight")
            out |= {f"{stem}attention.{p}_proj.weight": t for p, t in zip("qkv", tensor.chunk(3), strict=True)}
        else:
            out[name] = tensor
    block = r"blocks\.(\d+)\."
    return _named(
        out,
        (r"cls_token", "embeddings.cls_token"),
        (r"reg_token", "embeddings.register_tokens"),
        (r"patch_embed\.proj\.(.*)", r"embeddings.patch_embeddings.\1"),
        (block + r"attn\.proj\.(.*)", r"layer.\1.attention.o_proj.\2"),
        (block + r"attn\.([qv])_bias", r"layer.\1.attention.\2_proj.bias"),
        (block + r"gamma_([12])", r"layer.\1.layer_scale\2.lambda1"),
        (block + r"mlp\.fc1\.(.*)", r"layer.\1.mlp.up_proj.\2"),
        (block + r"mlp\.fc2\.(.*)", r"layer.\1.mlp.down_proj.\2"),
        (block + r"(norm[12])\.(.*)", r"layer.\1.\2.\3"),
    )


def _transformers(model: str, **config: Any) -> Callable[[], Tensors]:
    """The names that a class of transformers gives to its tensors; a bare file, so the class's defaults hold."""

    def make() -> Tensors:
        transformers = pytest.importorskip("transformers")
        kind = getattr(transformers, model)
        return dict(filled(kind(kind.config_class(**config))).state_dict())

    return make


_HF = {"hidden_size": 64, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 256, "image_size": 32}
_R50 = ("resnet50", RESNET, 64)
_V16 = ("vit_small_patch16_224", VIT, 32)
_DEEP = {"hidden_sizes": [8, 16, 16, 24], "depths": [1, 1, 1, 1]}

# Layout -> (what its file holds, architecture, its arguments, input size)
SMALL: dict[str, tuple[Callable[[], Any], str, dict[str, Any], int]] = {
    "JAX ViT": (_jax, *_V16),
    "MoCo v3": (
        lambda: {"state_dict": _vit("module.base_encoder.") | _vit("module.momentum_encoder.")},
        "vit_small_patch16_224",
        VIT,
        32,
    ),
    "MoCo v2": (
        lambda: {"state_dict": _resnet("module.encoder_q.", ("module.encoder_q.fc.0.weight",), "module.encoder_k.")},
        *_R50,
    ),
    "MoCo v1": (
        lambda: {"state_dict": _resnet("module.encoder_q.", ("module.encoder_q.fc.weight",), "module.encoder_k.")},
        *_R50,
    ),
    "SwAV": (lambda: _resnet("module.", ("module.prototypes.weight", "module.projection_head.0.weight")), *_R50),
    "VISSL": (
        lambda: {"classy_state_dict": {"base_model": {"model": {"trunk": _resnet("_feature_blocks."), "heads": {}}}}},
        *_R50,
    ),
    "detectron2": (
        lambda: {
            "model": _named(
                _state("resnet50", **RESNET),
                (r"conv1\.(.*)", r"stem.conv1.\1"),
                (r"bn1\.(.*)", r"stem.conv1.norm.\1"),
                *(
                    (rf"layer{stage}\.(\d+)\.{ours}", rf"res{stage + 1}.\1.{theirs}")
                    for stage in range(1, 5)
                    for ours, theirs in (
                        (r"bn(\d)\.(.*)", r"conv\2.norm.\3"),
                        (r"downsample\.1\.(.*)", r"shortcut.norm.\2"),
                        (r"downsample\.0\.(.*)", r"shortcut.\2"),
                        (r"(.*)", r"\2"),
                    )
                ),
            )
        },
        *_R50,
    ),
    "Barlow Twins": (
        lambda: {
            "model": _resnet("module.backbone.", ("module.projector.0.weight", "module.bn.running_mean"))
        },
        *_R50,
    ),
    "mmpretrain": (lambda: {"state_dict": _resnet("backbone."), "meta": {}}, *_R50),
    "solo-learn": (
        lambda: {
            "state_dict": _resnet("backbone.", ("classifier.weight", "projector.0.weight"), "momentum_backbone."),
            "pytorch-lightning_version": "2",
        },
        *_R50,
    ),
    "RepDistiller": (
        lambda: {"epoch": 1, "model": filled(build("cifar_resnet8")).state_dict(), "best_acc": torch.tensor(0.5)},
        "cifar_resnet8",
        {},
        32,
    ),
    "VICReg": (lambda: {"model": _resnet("module.backbone.", ("module.projector.0.weight",))}, *_R50),
    "SimCLR (PyTorch)": (
        lambda: {"state_dict": _resnet("backbone.", ("backbone.fc.0.weight", "backbone.fc.2.weight"))},
        *_R50,
    ),
    "SimCLR v2": (
        lambda: {
            "resnet": filled(build("simclrv2_r50_1x_sk1", blocks=(1, 1, 1, 1))).state_dict(),
            "head": {"layers.0.weight": torch.zeros(8, 8)},
        },
        "simclrv2_r50_1x_sk1",
        {"blocks": (1, 1, 1, 1)},
        64,
    ),
    "SimSiam": (lambda: {"state_dict": _resnet("module.encoder.", ("module.predictor.0.weight",))}, *_R50),
    "BYOL (PyTorch)": (
        lambda: {"state_dict": _resnet("online_network.", ("predictor.0.weight",), "target_network.")},
        *_R50,
    ),
    "iBOT": (lambda: _teacher(_ibot), *_V16),
    "DINO": (lambda: _teacher(_dino), *_V16),
    "MaskFeat": (
        lambda: {
            "model_state": {n: t for n, t in _vit("").items() if not n.startswith("norm.")}
            | {"pred_head.projection.weight": torch.zeros(8, 64)}
        },
        *_V16,
    ),
    "MAE": (
        lambda: {"model": _vit("", ("mask_token", "decoder_embed.weight", "decoder_blocks.0.norm1.weight"))},
        *_V16,
    ),
    "I-JEPA": (
        lambda: {
            name: {k: gain * v for k, v in _vit("module.", class_token=False, global_pool="avg", fc_norm=False).items()}
            for name, gain in (("target_encoder", 1.0), ("encoder", 1.5))
        }
        | {"predictor": {"module.norm.weight": torch.ones(8)}},
        *_V16,
    ),
    "MSN": (
        lambda: {
            "target_encoder": _vit("module."),
            "encoder": {k: 1.5 * v for k, v in _vit("module.").items()},
            "prototypes": torch.zeros(8, 64),
        },
        *_V16,
    ),
    "SimMIM": (lambda: {"model": _beit("encoder.", decoder=True)}, "beit_base_patch16_224", BEIT, 80),
    "data2vec": (lambda: {"model": _beit(outputs=64)}, "beit_base_patch16_224", BEIT, 80),
    "BEiT": (lambda: {"model": _beit()}, "beit_base_patch16_224", BEIT, 80),
    "DINOv3": (_dinov3, "vit_small_patch16_dinov3_qkvb", VIT, 32),
    "DINOv2 with registers": (lambda: _dinov2(True), "vit_small_patch14_reg4_dinov2", VIT | {"img_size": 28}, 28),
    "DINOv2": (lambda: _dinov2(False), "vit_small_patch14_dinov2", VIT | {"img_size": 28}, 28),
    "OpenAI CLIP": (lambda: small_clip(True), "vit_base_patch32_clip_quickgelu_224", VIT | {"img_size": 64}, 64),
    "open_clip": (lambda: small_clip(False), "vit_base_patch32_clip_224", VIT | {"img_size": 64}, 64),
    "open_clip SigLIP": (
        lambda: _under(_state("vit_base_patch16_siglip_224", **VIT), "visual.trunk.") | {"logit_bias": torch.zeros(())},
        "vit_base_patch16_siglip_224",
        VIT,
        32,
    ),
    "open_clip on timm": (
        lambda: _resnet("visual.trunk.") | {"logit_scale": torch.zeros(()), "text.ln_final.weight": torch.zeros(8)},
        *_R50,
    ),
    "timm training": (
        lambda: {
            "state_dict": _state("resnet50", 10, **RESNET),
            "state_dict_ema": {n: 1.5 * t for n, t in _state("resnet50", 10, **RESNET).items()},
            "arch": "resnet50",
        },
        *_R50,
    ),
    "torchvision ViT": (_torchvision_vit, *_V16),
    "Hugging Face MAE": (
        _transformers("ViTMAEForPreTraining", **_HF, decoder_hidden_size=32, decoder_num_attention_heads=2,
                      decoder_num_hidden_layers=1, decoder_intermediate_size=32),
        *_V16,
    ),
    "Hugging Face BEiT": (
        _transformers("BeitModel", **{**_HF, "image_size": 80}, use_relative_position_bias=True,
                      use_absolute_position_embeddings=False),
        "beit_base_patch16_224", BEIT, 80,
    ),
    "Hugging Face DINOv3": (_hf_dinov3, "vit_small_patch16_dinov3_qkvb", VIT, 32),
    "Hugging Face DINOv3 ConvNeXt": (
        _transformers("DINOv3ConvNextModel", **_DEEP),
        "convnext_tiny", {"depths": (1, 1, 1, 1), "dims": (8, 16, 16, 24)}, 64,
    ),
    "Hugging Face DINOv2": (
        _transformers("Dinov2Model", **{k: v for k, v in _HF.items() if k != "intermediate_size"} | {"image_size": 28}),
        "vit_small_patch14_dinov2", VIT | {"img_size": 28}, 28,
    ),
    "Hugging Face DINOv2 with registers": (
        _transformers("Dinov2WithRegistersModel", patch_size=14,
                      **{k: v for k, v in _HF.items() if k != "intermediate_size"} | {"image_size": 28}),
        "vit_small_patch14_reg4_dinov2", VIT | {"img_size": 28}, 28,
    ),
    "Hugging Face CLIP": (
        _transformers("CLIPVisionModel", **_HF | {"patch_size": 16}), "vit_base_patch16_clip_quickgelu_224", VIT, 32,
    ),
    "Hugging Face SigLIP": (
        _transformers("SiglipVisionModel", **_HF | {"patch_size": 16}), "vit_base_patch16_siglip_224", VIT, 32,
    ),
    "Hugging Face I-JEPA": (
        _transformers("IJepaModel", **_HF | {"patch_size": 16}),
        *_V16,
    ),
    "Hugging Face SimMIM Swin": (
        _transformers("SwinForMaskedImageModeling", image_size=64, window_size=2, embed_dim=16, depths=[1] * 4,
                      num_heads=[1, 2, 4, 8]),
        "swin_tiny_patch4_window7_224", SWIN, 64,
    ),
    "Hugging Face Swin": (
        _transformers("SwinModel", image_size=64, window_size=2, embed_dim=16, depths=[1] * 4, num_heads=[1, 2, 4, 8]),
        "swin_tiny_patch4_window7_224", SWIN, 64,
    ),
    "Hugging Face ResNet": (
        _transformers("ResNetModel", embedding_size=64, hidden_sizes=[32, 64, 64, 96], depths=[1, 1, 1, 1]),
        "resnet50", {"layers": (1, 1, 1, 1), "channels": (8, 16, 16, 24)}, 64,
    ),
    "Hugging Face ViT": (_transformers("ViTModel", **_HF), *_V16),
    "Hugging Face ConvNeXt V2": (
        _transformers("ConvNextV2Model", **_DEEP),
        "convnextv2_tiny", {"depths": (1, 1, 1, 1), "dims": (8, 16, 16, 24)}, 64,
    ),
}  # fmt: skip

# Layouts of one size only: golden files.
GOLDEN = {
    "RotNet": "rotnet-alexnet",
    "MaskFeat video": "maskfeat-mvitv2_small",
    "Hugging Face ALIGN": "hf-align_base",
}
