"""Networks that neither timm nor torchvision has: one row per architecture name (``module:function``, arguments).

Their modules bear the names that their published code gives them, so that official checkpoints fill them directly.
"""

from __future__ import annotations

from importlib import import_module
from typing import Any

from adapters.networks.network import Network

_Row = tuple[str, dict[str, Any]]

TABLE: dict[str, _Row] = {
    **{f"cifar_resnet{n}": ("cifar_resnet:CifarResNet", {"depth": n}) for n in (8, 14, 20, 32, 44, 56, 110)},
    **{f"cifar_resnet{n}x4": ("cifar_resnet:CifarResNet", {"depth": n, "width": 4}) for n in (8, 14, 32)},
    "cifar_resnet18": ("cifar_bottleneck:DeepCifarResNet", {"blocks": (2, 2, 2, 2), "bottleneck": False}),
    "cifar_resnet34": ("cifar_bottleneck:DeepCifarResNet", {"blocks": (3, 4, 6, 3), "bottleneck": False}),
    "cifar_resnet50": ("cifar_bottleneck:DeepCifarResNet", {"blocks": (3, 4, 6, 3), "bottleneck": True}),
    **{
        f"wrn_{depth}_{width}": ("wide_resnet:WideResNet", {"depth": depth, "width": width})
        for depth in (16, 28, 40)
        for width in (1, 2, 4, 10)
    },
    **{f"cifar_vgg{n}": ("cifar_vgg:CifarVGG", {"depth": n}) for n in (8, 11, 13, 16, 19)},
    **{
        f"cifar_densenet_bc{depth}_k{growth}": ("cifar_densenet:CifarDenseNet", {"depth": depth, "growth": growth})
        for depth, growth in ((100, 12), (190, 40), (250, 24))
    },
    "cifar_mobilenetv2_half": ("cifar_mobilenet:CifarMobileNetV2", {"width": 0.5, "expansion": 6}),
    "cifar_shufflenetv1": ("shufflenet:ShuffleNetV1", {}),
    "cifar_shufflenetv2": ("shufflenet:ShuffleNetV2", {}),
    **{
        f"{name}_small": ("small_resnet:SmallStemResNet", {"base": name, "padding": padding})
        for name, padding in (("resnet18", 1), ("resnet34", 1), ("resnet50", 1))
    },
    **{
        f"{name}_small_pad2": ("small_resnet:SmallStemResNet", {"base": name, "padding": padding})
        for name, padding in (("resnet18", 2), ("resnet50", 2))
    },
    **{
        f"resnet{depth}w{width}": ("wide_bottleneck:WideBottleneckResNet", {"blocks": blocks, "width": width})
        for depth, width, blocks in (
            *((50, width, (3, 4, 6, 3)) for width in (2, 3, 4, 5)),
            (101, 2, (3, 4, 23, 3)),
            (152, 2, (3, 8, 36, 3)),
            (200, 2, (3, 24, 36, 3)),
        )
    },
    "resnet50_vissl_colorization": (
        "wide_bottleneck:WideBottleneckResNet",
        {"blocks": (3, 4, 6, 3), "width": 1, "gray": True},
    ),
    **{
        f"simclrv2_r{depth}_{width}x_sk{int(selective)}": (
            "simclr_resnet:SimClrResNet",
            {"blocks": blocks, "width": width, "selective": selective},
        )
        for depth, blocks in ((50, (3, 4, 6, 3)), (101, (3, 4, 23, 3)), (152, (3, 8, 36, 3)))
        for width in (1, 2, 3)
        for selective in (False, True)
    },
    **{
        f"clip_resnet{name}": (
            "clip_resnet:ClipResNet",
            {"blocks": blocks, "width": width, "size": size, "out": out},
        )
        for name, blocks, width, size, out in (
            ("50", (3, 4, 6, 3), 64, 224, 1024),
            ("101", (3, 4, 23, 3), 64, 224, 512),
            ("50x4", (4, 6, 10, 6), 80, 288, 640),
            ("50x16", (6, 8, 18, 8), 96, 384, 768),
            ("50x64", (3, 15, 36, 10), 128, 448, 1024),
        )
    },
    "align_efficientnet_b7": ("align:Align", {}),
    "mvitv2_small_video": ("mvit:VideoMViT", {}),
    "alexnet_rotnet": ("alexnet:AlexNet", {}),
    "alexnet_vissl": ("alexnet:AlexNet", {"flat": True}),
    "alexnet_vissl_jigsaw": ("alexnet:JigsawAlexNet", {}),
    "alexnet_vissl_colorization": ("alexnet:AlexNet", {"flat": True, "gray": True}),
}


def build(name: str, **arguments: Any) -> Network:
    """The network ``name`` with unspecified weights."""
    target, fixed = TABLE[name]
    module, _, attribute = target.partition(":")
    network: Network = getattr(import_module(f"adapters.networks.{module}"), attribute)(**{**fixed, **arguments})
    return network
