"""Official layouts: the method whose file this is, told from the names in it, and what that method's evaluation does.

One row each. Transforms, frozen features and weight sets are those of the methods' evaluation code; a file of none of
these layouts is read plainly, by its architecture alone.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from adapters.positions import How
from adapters.timm_backbone import Feature
from bench.card import Transform

BILINEAR = Transform(resize=256, crop=224, interpolation="bilinear")
BICUBIC = Transform(resize=256, crop=224, interpolation="bicubic")
HALF = BICUBIC.model_copy(update={"mean": (0.5, 0.5, 0.5), "std": (0.5, 0.5, 0.5)})
PIXELS = BILINEAR.model_copy(update={"mean": (0.0, 0.0, 0.0), "std": (1.0, 1.0, 1.0)})
CLIP = Transform(
    resize=224,
    crop=224,
    interpolation="bicubic",
    mean=(0.48145466, 0.4578275, 0.40821073),
    std=(0.26862954, 0.26130258, 0.27577711),
)
CIFAR10 = Transform(
    resize=32, crop=32, interpolation="bilinear", mean=(0.4914, 0.4822, 0.4465), std=(0.247, 0.2435, 0.2616)
)
CIFAR100 = Transform(
    resize=32, crop=32, interpolation="bilinear", mean=(0.5071, 0.4867, 0.4408), std=(0.2675, 0.2565, 0.2761)
)

Arguments = Callable[[str], dict[str, Any]]


def _none(architecture: str) -> dict[str, Any]:
    return {}


def _twelve_heads(architecture: str) -> dict[str, Any]:
    """MoCo v3's small transformer has twelve heads of 32, not timm's six of 64."""
    return {"num_heads": 12} if architecture.startswith("vit_small") else {}


def _beit(architecture: str) -> dict[str, Any]:
    # The pretrained final norm is over tokens; timm's default would use the one over the mean.
    return {"global_pool": "token"} if architecture.startswith("beit") else {}


def _no_final_norm(architecture: str) -> dict[str, Any]:
    return {"final_norm": False} if architecture.startswith("vit") else {}


@dataclass(frozen=True)
class Layout:
    """``signs``: each must match wholly some ``set/name`` of the file or some member's name; ``lacks``: none may."""

    name: str
    method: str | None
    signs: tuple[str, ...] = ()
    lacks: tuple[str, ...] = ()
    weights: str | None = None
    """Pattern of the weight set that the method's evaluation reads, where the common rule would not find it."""
    transform: Transform | None = None
    feature: Feature | None = None
    """What a transformer's frozen feature is; convolutional networks always give the pooled last map."""
    arguments: Arguments = _none
    classifier: bool = False
    """Whether a tensor in the classifier's place is a classifier, and not a projection head."""
    architectures: str = ""
    """Pattern of the architectures that an inferred one must have, where tensors alone do not tell."""
    note: str | None = None
    timm_transform: bool = False
    """Whether timm's own transform of the architecture is the one that the file was trained for."""
    at_native_size: bool = False
    """Whether ``transform`` is meant at 224 pixels and follows the network's own input size."""
    norm_optional: bool = False
    """Whether the method's class may be without a final norm, so that a file without one is whole."""
    square: str | None = None
    """Pattern of a ``set/name`` that must be there with a square matrix."""
    positions: How = "antialiased"
    """How the method resizes its position grid, see `adapters.positions`."""

    def answers(self, names: Mapping[str, Sequence[int]]) -> bool:
        """Whether a file with such names (and shapes) has this layout."""
        listed = list(names)
        if self.square is not None:
            shapes = [shape for name, shape in names.items() if re.fullmatch(self.square, name)]
            if not any(len(shape) == 2 and shape[0] == shape[1] for shape in shapes):
                return False
        found = all(any(re.fullmatch(sign, name) for name in listed) for sign in self.signs)
        return found and not any(re.fullmatch(sign, name) for sign in self.lacks for name in listed)


PLAIN = Layout("plain", None, classifier=True)

LAYOUTS: tuple[Layout, ...] = (
    Layout(
        "MoCo v3",
        "mocov3",
        (r".*/(?:module\.)?base_encoder\..*", r".*/(?:module\.)?(?:momentum_encoder|predictor)\..*"),
        weights=r".*base_encoder",
        transform=BILINEAR,
        feature="cls",
        arguments=_twelve_heads,
    ),
    Layout("MoCo v2", "mocov2", (r".*/(?:module\.)?encoder_q\.fc\.[02]\.weight",), transform=BILINEAR),
    Layout("MoCo v1", "mocov1", (r".*/(?:module\.)?encoder_q\.fc\.weight",), transform=BILINEAR),
    Layout(
        "SwAV", "swav", (r".*/(?:module\.)?prototypes\.\S+", r".*/(?:module\.)?projection_head\..*"), transform=BILINEAR
    ),
    Layout(
        "VISSL",
        None,
        (r"classy_state_dict\.base_model\.model\.trunk/.*",),
        transform=BILINEAR,
    ),
    Layout(
        "Barlow Twins",
        "barlow-twins",
        (
            r".*/(?:module\.)?backbone\.conv1\.weight",
            r".*/(?:module\.)?projector\..*",
            r".*/(?:module\.)?bn\.running_mean",
        ),
        transform=BILINEAR,
    ),
    Layout(
        # Its averaged weights are in the plain set's place: mmengine swaps the two when it saves.
        "mmpretrain",
        None,
        (r"state_dict/backbone\..*", r"meta"),
        weights=r"state_dict\.backbone",
        classifier=True,
    ),
    Layout(
        "solo-learn",
        None,
        (r"state_dict/(?:backbone|encoder)\..*", r"state_dict/classifier\..*", r"pytorch-lightning_version"),
        weights=r"state_dict\.(?:backbone|encoder)",
        architectures=r"(?!.*_small$).*",  # its stem for small images pads by two
    ),
    Layout(
        "solo-learn",
        None,
        (r"state_dict/encoder\.conv1\.weight", r"state_dict/projector\..*", r"state_dict/classifier\..*"),
        weights=r"state_dict\.encoder",
        architectures=r"(?!.*_small$).*",
    ),
    Layout(
        "RotNet",
        "rotnet",
        (r"network/_feature_blocks\.0\.0\.weight", r"network/_feature_blocks\.9\.0\.weight"),
        transform=BILINEAR,
    ),
    Layout("RepDistiller", "supervised", (r"model/.*", r"best_acc"), transform=CIFAR100, classifier=True),
    Layout(
        "RepDistiller",
        "supervised",
        (r"model/conv1\.weight|model/block0\.0\.weight|model/conv1\.0\.weight", r"opt"),
        transform=CIFAR100,
        classifier=True,
    ),
    Layout(
        "VICReg",
        "vicreg",
        (r".*/(?:module\.)?backbone\.conv1\.weight", r".*/(?:module\.)?projector\..*"),
        transform=BILINEAR,
    ),
    Layout(
        "SimCLR (PyTorch)",
        "simclr",
        (r"state_dict/backbone\.fc\.0\.weight", r"state_dict/backbone\.fc\.2\.weight"),
        transform=PIXELS,
        note="trained and evaluated without standardisation",
    ),
    Layout(
        "SimSiam",
        "simsiam",
        (r".*/module\.encoder\.conv1\.weight", r".*/module\.predictor\..*"),
        transform=BILINEAR,
    ),
    Layout(
        "BYOL (PyTorch)",
        "byol",
        (r".*(?:online_network|online_encoder).*",),
        weights=r".*online.*",
        transform=BILINEAR,
    ),
    Layout(
        "iBOT",
        "ibot",
        (r".*teacher.*/.*backbone\.(?:cls_token|patch_embed\.\S+)", r".*/.*masked_embed|ibot_loss"),
        weights=r"teacher.*",
        transform=BICUBIC,
        feature="cls",
        positions="scaled",
    ),
    Layout(
        "DINO",
        "dino",
        (r"teacher/.*backbone\..*", r".*/.*head\.last_layer.*"),
        lacks=(r".*\.ls1\.gamma",),
        weights=r"teacher.*",
        transform=BICUBIC,
        feature="cls",
        positions="scaled",
    ),
    Layout(
        "MaskFeat video",
        "maskfeat",
        (r"model_state/pred_head\..*", r"model_state/blocks\.0\.attn\.rel_pos_t"),
        transform=BICUBIC.model_copy(update={"mean": (0.45, 0.45, 0.45), "std": (0.225, 0.225, 0.225)}),
        feature="avg",
        note="a network of video clips [B, 3, 16, 224, 224]: the transform is that of one frame",
    ),
    Layout(
        "MaskFeat",
        "maskfeat",
        (r"model_state/.*", r"model_state/pred_head\..*"),
        transform=BICUBIC,
        feature="avg",
        arguments=_no_final_norm,
    ),
    Layout(
        "Hugging Face MAE",
        "mae",
        (r".*/(?:vit\.)?embeddings\.patch_embeddings\.projection\.weight", r".*/decoder\.decoder_embed\.weight"),
        transform=BICUBIC.model_copy(update={"resize": 224}),
        feature="cls",
        arguments=lambda _: {"norm_eps": 1e-12},
    ),
    Layout(
        "MAE",
        "mae",
        (r".*/(?:\S*\.)?decoder_embed\.weight", r".*/(?:\S*\.)?decoder_blocks\..*"),
        transform=BICUBIC,
        feature="cls",
        positions="plain",
    ),
    Layout(
        "I-JEPA",
        "ijepa",
        (r"target_encoder/.*", r"predictor/.*"),
        lacks=(r".*/(?:\S*\.)?cls_token",),
        weights=r"target_encoder.*",
        transform=BICUBIC,
        feature="avg",
    ),
    Layout(
        "MSN",
        "msn",
        (r"target_encoder/.*cls_token", r"(?:encoder|prototypes?)(?:/.*)?"),
        weights=r"target_encoder.*",
        transform=BILINEAR,
        feature="cls",
    ),
    Layout(
        "Hugging Face BEiT",
        "beit",
        (r".*/(?:\S*\.)?(?:encoder\.layer|layers)\.0\.lambda_1",),
        transform=HALF.model_copy(update={"resize": 224}),
        feature="avg",
        arguments=lambda name: {**_beit(name), "norm_eps": 1e-12},
        classifier=True,
        norm_optional=True,
    ),
    Layout(
        "SimMIM",
        "simmim",
        (r".*/(?:\S*\.)?encoder\.mask_token", r".*/(?:\S*\.)?decoder\.0\.weight"),
        transform=BICUBIC,
        feature="avg",
        at_native_size=True,
        arguments=_beit,
    ),
    Layout(
        "data2vec",
        "data2vec",
        (r".*/(?:\S*\.)?blocks\.0\.attn\.q_bias", r".*/(?:\S*\.)?mask_token"),
        square=r".*/(?:\S*\.)?lm_head\.weight",
        weights=r"model|module",
        transform=BICUBIC,
        feature="avg",
        arguments=_beit,
    ),
    Layout(
        "BEiT",
        "beit",
        (r".*/(?:\S*\.)?blocks\.0\.attn\.q_bias", r".*/(?:\S*\.)?(?:lm_head|mask_token)\S*"),
        transform=HALF,
        feature="avg",
        arguments=_beit,
    ),
    Layout(
        "DINOv3",
        "dinov3",
        (r".*/(?:\S*\.)?storage_tokens",),
        weights=r".*teacher.*|",
        transform=BICUBIC,
        feature="cls",
        arguments=lambda _: {"norm_eps": 1e-5},
        architectures=r".*_dinov3(?:_qkvb)?",
    ),
    Layout(
        "Hugging Face DINOv3",
        "dinov3",
        (r".*/(?:\S*\.)?embeddings\.patch_embeddings\.weight", r".*/(?:\S*\.)?embeddings\.register_tokens"),
        transform=BICUBIC,
        feature="cls",
        arguments=lambda _: {"norm_eps": 1e-5},
        architectures=r".*_dinov3(?:_qkvb)?",
    ),
    Layout(
        "Hugging Face DINOv3 ConvNeXt",
        "dinov3",
        (r".*/(?:\S*\.)?stages\.0\.layers\.0\.depthwise_conv\.weight", r".*/(?:\S*\.)?layer_norm\.weight"),
        transform=BICUBIC,
    ),
    Layout(
        "Hugging Face DINOv2",
        "dinov2",
        (r".*/(?:\S*\.)?encoder\.layer\.0\.layer_scale1\.lambda1",),
        lacks=(r".*/(?:\S*\.)?embeddings\.register_tokens",),
        transform=BICUBIC,
        feature="cls",
        positions="plain",
    ),
    Layout(
        "Hugging Face DINOv2 with registers",
        "dinov2",
        (r".*/(?:\S*\.)?encoder\.layer\.0\.layer_scale1\.lambda1", r".*/(?:\S*\.)?embeddings\.register_tokens"),
        transform=BICUBIC,
        feature="cls",
    ),
    Layout(
        "DINOv2 with registers",
        "dinov2",
        (r".*/(?:\S*\.)?blocks\.(?:0\.)?0\.ls1\.gamma", r".*/(?:\S*\.)?register_tokens"),
        transform=BICUBIC,
        feature="cls",
    ),
    Layout(
        "DINOv2",
        "dinov2",
        (r".*/(?:\S*\.)?blocks\.(?:0\.)?0\.ls1\.gamma", r".*/(?:\S*\.)?mask_token"),
        transform=BICUBIC,
        feature="cls",
        positions="scaled",
    ),
    Layout(
        "Hugging Face ALIGN",
        "align",
        (r".*/vision_model\.encoder\.blocks\.0\.depthwise_conv\..*", r".*/text_model\..*"),
        transform=HALF.model_copy(update={"resize": 289, "crop": 289}),
    ),
    Layout(
        "OpenAI CLIP",
        "clip",
        (r".*/visual\.(?:class_embedding|conv1\.weight)", r".*/input_resolution"),
        transform=CLIP,
        feature="cls",
        arguments=lambda _: {"norm_eps": 1e-5},
        architectures=r"vit_.*_clip_quickgelu_\d+|clip_resnet\w+",
        at_native_size=True,
    ),
    Layout(
        "open_clip",
        "clip",
        (r".*/(?:module\.)?visual\.(?:class_embedding|conv1\.weight)", r".*/(?:module\.)?text_projection"),
        lacks=(r".*/input_resolution",),
        transform=CLIP,
        feature="cls",
        arguments=lambda _: {"norm_eps": 1e-5},
        architectures=r"vit_.*_clip_\d+|clip_resnet\w+",
        at_native_size=True,
        note="activation GELU assumed: nothing in the file tells it from QuickGELU (--arch vit_..._clip_quickgelu_224)",
    ),
    Layout(
        "timm training",
        "supervised",
        (r"state_dict/.*", r"arch", r"state_dict_ema/.*"),
        classifier=True,
        timm_transform=True,
    ),
    Layout(
        "torchvision ViT",
        None,
        (r".*/(?:\S*\.)?encoder\.layers\.encoder_layer_0\.ln_1\.weight",),
        transform=BILINEAR,
        feature="cls",
        classifier=True,
    ),
    Layout(
        "Hugging Face CLIP",
        "clip",
        (r".*/(?:\S*\.)?embeddings\.patch_embedding\.weight", r".*/(?:\S*\.)?pre_layrnorm\.weight"),
        transform=CLIP,
        feature="cls",
        arguments=lambda _: {"norm_eps": 1e-5},
        architectures=r"vit_.*_clip_quickgelu_\d+",
        note="activation QuickGELU assumed, the class's default (--arch vit_..._clip_224 for GELU)",
        at_native_size=True,
    ),
    Layout(
        "Hugging Face SigLIP",
        "siglip",
        (r".*/(?:\S*\.)?embeddings\.patch_embedding\.bias", r".*/(?:\S*\.)?head\.probe"),
        transform=HALF.model_copy(update={"resize": (224, 224), "crop": None}),
        feature="head",
        arguments=lambda _: {"norm_eps": 1e-6, "act_layer": "gelu_tanh"},
        architectures=r"vit_.*_siglip_\d+",
        at_native_size=True,
    ),
    Layout(
        "Hugging Face I-JEPA",
        "ijepa",
        (
            r".*/(?:\S*\.)?embeddings\.patch_embeddings\.projection\.weight",
            r".*/(?:\S*\.)?embeddings\.position_embeddings",
            r".*/(?:\S*\.)?(?:encoder\.layer|layers)\.0\.layernorm_before\.weight",
        ),
        lacks=(r".*/(?:\S*\.)?embeddings\.cls_token",),
        transform=HALF.model_copy(update={"resize": (224, 224), "crop": None, "interpolation": "bilinear"}),
        feature="avg",
        arguments=lambda _: {"norm_eps": 1e-6},
    ),
    Layout(
        "Hugging Face Swin",
        None,
        (
            r".*/(?:\S*\.)?encoder\.layers\.0\.blocks\.0\.layernorm_before\.weight",
            r".*/(?:\S*\.)?embeddings\.patch_embeddings\.projection\.weight",
        ),
        transform=BICUBIC.model_copy(update={"resize": (224, 224), "crop": None}),
        classifier=True,
        at_native_size=True,
    ),
    Layout(
        "Hugging Face ResNet",
        None,
        (r".*/(?:\S*\.)?embedder\.embedder\.convolution\.weight",),
        transform=BICUBIC,
        classifier=True,
    ),
    Layout(
        "Hugging Face ViT",
        None,
        (
            r".*/(?:\S*\.)?embeddings\.patch_embeddings\.projection\.weight",
            r".*/(?:\S*\.)?(?:encoder\.layer|layers)\.0\.layernorm_before\.weight",
        ),
        transform=HALF.model_copy(update={"resize": (224, 224), "crop": None, "interpolation": "bilinear"}),
        feature="cls",
        classifier=True,
        arguments=lambda _: {"norm_eps": 1e-12},
    ),
    Layout(
        "Hugging Face ConvNeXt V2",
        None,
        (r".*/(?:convnextv2\.)?encoder\.stages\.0\.layers\.0\.grn\.weight",),
        transform=BILINEAR,
        classifier=True,
        arguments=lambda _: {"head_norm_eps": 1e-12},
    ),
)


def recognise(names: Mapping[str, Sequence[int]]) -> Layout:
    """The first layout whose signs are all among ``names``, or `PLAIN`.

    ``names``: ``set/tensor`` with its shape, and the names of other members, whose shape is empty.
    """
    return next((layout for layout in LAYOUTS if layout.answers(names)), PLAIN)
