"""Official layouts: the method whose file this is, told from the names in it, and what that method's evaluation does.

One row each. Transforms, frozen features and weight sets are those of the methods' evaluation code; a file of none of
these layouts is read plainly, by its architecture alone.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from adapters.hf_layouts import HUGGING_FACE
from adapters.layout import (
    BICUBIC,
    BILINEAR,
    CIFAR100,
    CLIP,
    HALF,
    PIXELS,
    PLAIN,
    Layout,
    absolute_beit,
    beit_arguments,
    no_final_norm,
    twelve_heads,
)

OFFICIAL: tuple[Layout, ...] = (
    Layout(
        "JAX ViT",
        None,
        (r".*/(?:\S*/)?Transformer/encoderblock_0/LayerNorm_0/scale", r".*/(?:\S*/)?embedding/kernel"),
        transform=HALF.model_copy(update={"interpolation": "bilinear"}),
        feature="cls",
        classifier=True,
        positions="linear corners",
    ),
    Layout(
        "MoCo v3",
        "mocov3",
        (r".*/(?:module\.)?base_encoder\..*", r".*/(?:module\.)?(?:momentum_encoder|predictor)\..*"),
        weights=r".*base_encoder",
        transform=BILINEAR,
        feature="cls",
        arguments=twelve_heads,
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
        "detectron2",
        None,
        (r".*/(?:\S*\.)?res2\.0\.conv1\.weight", r".*/(?:\S*\.)?stem\.conv1\.weight"),
        transform=BILINEAR,
        note="input assumed as in PyTorch: RGB, ImageNet's mean and deviation (the file does not tell)",
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
        # The official TensorFlow weights, converted: {"resnet": ..., "head": ...}.
        "SimCLR v2",
        "simclr",
        (r".*/(?:\S*\.)?net\.1\.blocks\.0\.projection\.bn\.0\.weight", r".*/(?:\S*\.)?net\.0\.0\.weight"),
        transform=PIXELS.model_copy(update={"interpolation": "bicubic"}),
        classifier=True,
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
        arguments=no_final_norm,
        positions="linear",
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
        positions="plain",
    ),
    Layout(
        "MSN",
        "msn",
        (r"target_encoder/.*cls_token", r"(?:encoder|prototypes?)(?:/.*)?"),
        weights=r"target_encoder.*",
        transform=BILINEAR,
        feature="cls before norm",
        positions="plain",
    ),
    Layout(
        "SimMIM",
        "simmim",
        (r".*/(?:\S*\.)?encoder\.mask_token", r".*/(?:\S*\.)?decoder\.0\.weight"),
        transform=BICUBIC,
        feature="avg",
        at_native_size=True,
        arguments=beit_arguments,
    ),
    Layout(
        "data2vec",
        "data2vec",
        (r".*/(?:\S*\.)?blocks\.0\.attn\.q_bias", r".*/(?:\S*\.)?mask_token"),
        square=r".*/(?:\S*\.)?lm_head\.weight",
        weights=r"model|module",
        transform=BICUBIC,
        feature="avg",
        arguments=beit_arguments,
    ),
    Layout(
        # Pre-trained on ImageNet-1k: absolute positions, no layer scale, ImageNet's mean and deviation.
        "BEiT",
        "beit",
        (
            r".*/(?:\S*\.)?blocks\.0\.attn\.q_bias",
            r".*/(?:\S*\.)?(?:lm_head|mask_token)\S*",
            r".*/(?:\S*\.)?pos_embed",
        ),
        lacks=(r".*relative_position_bias_table", r".*\.gamma_1"),
        transform=BICUBIC,
        feature="avg",
        arguments=absolute_beit,
        architectures=r"beit_\w+_patch16_224",
    ),
    Layout(
        "BEiT",
        "beit",
        (r".*/(?:\S*\.)?blocks\.0\.attn\.q_bias", r".*/(?:\S*\.)?(?:lm_head|mask_token)\S*"),
        transform=HALF,
        feature="avg",
        arguments=beit_arguments,
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
        (
            r".*/(?:module\.)?visual\.(?:class_embedding|conv1\.weight)",
            r".*/(?:module\.)?(?:text_projection|text\.\S+)",
        ),
        lacks=(r".*/input_resolution",),
        transform=CLIP,
        feature="cls",
        arguments=lambda _: {"norm_eps": 1e-5},
        architectures=r"vit_.*_clip_\d+|clip_resnet\w+",
        at_native_size=True,
        note="activation GELU assumed: nothing in the file tells it from QuickGELU (--arch vit_..._clip_quickgelu_224)",
    ),
    Layout(
        "open_clip SigLIP",
        "siglip",
        (r".*/(?:module\.)?visual\.trunk\.attn_pool\.latent", r".*/(?:module\.)?logit_bias"),
        transform=HALF.model_copy(update={"resize": (224, 224), "crop": None}),
        feature="head",
        architectures=r"vit_.*_siglip_\d+",
        at_native_size=True,
    ),
    Layout(
        "open_clip on timm",
        "clip",
        (r".*/(?:module\.)?visual\.trunk\..*", r".*/(?:module\.)?logit_scale"),
        transform=CLIP,
        at_native_size=True,
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
        positions="corners",
    ),
)

LAYOUTS: tuple[Layout, ...] = (*HUGGING_FACE, *OFFICIAL)


def recognise(names: Mapping[str, Sequence[int]]) -> Layout:
    """The first layout whose signs are all among ``names``, or `PLAIN`.

    ``names``: ``set/tensor`` with its shape, and the names of other members, whose shape is empty.
    """
    return next((layout for layout in LAYOUTS if layout.answers(names)), PLAIN)
