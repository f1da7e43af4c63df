"""What a method's own evaluation does where neither names nor shapes tell: timm's tags and released files' names do.

timm's transforms are those of its own training and benchmarks (a crop of 0.9 for DINO and MAE, 518 pixels for DINOv2,
256 and the mean token for DINOv3), not those that the papers' numbers were made with.
"""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

from torch import nn

from adapters.layout import BICUBIC, BILINEAR, PLAIN, Layout
from adapters.positions import How
from adapters.timm_backbone import Feature
from bench.card import Transform

SATELLITE = BICUBIC.model_copy(update={"mean": (0.43, 0.411, 0.296), "std": (0.213, 0.156, 0.143)})
"""Of DINOv3's networks for satellite images (tag or name ``sat493m``), as its README has it."""


class Paper(NamedTuple):
    """How a method's evaluation code reads an image and its network."""

    transform: Transform
    feature: Feature
    """Of transformers with a class token; other networks have one feature."""
    positions: How = "antialiased"


_PAPERS = {
    "dino": Paper(BICUBIC, "cls", "scaled"),
    "ibot": Paper(BICUBIC, "cls", "scaled"),
    "mae": Paper(BICUBIC, "cls", "plain"),
    "dinov2": Paper(BICUBIC, "cls", "scaled"),
    "dinov3": Paper(BICUBIC, "cls"),
    "mocov3": Paper(BILINEAR, "cls"),
    "barlow-twins": Paper(BILINEAR, "head"),
    "vicreg": Paper(BILINEAR, "head"),
}

# Names under which releases without any sign of their method are downloaded, and those of `bench list models`.
_FILES: tuple[tuple[re.Pattern[str], str], ...] = tuple(
    (re.compile(pattern), method)
    for pattern, method in (
        (
            r"dino_(?:deitsmall|vitbase)(?:8|16)_pretrain|dino_resnet50_pretrain|dino-(?:vit[sb](?:8|16)|resnet50)",
            "dino",
        ),
        (r"mae_pretrain_vit_(?:base|large|huge)|mae-vit(?:b16|l16|h14)", "mae"),
        (r"ibot-vit[sbl]16(?:-rand)?", "ibot"),
        (r"barlow-resnet50", "barlow-twins"),
        (r"vicreg-resnet50", "vicreg"),
    )
)
_SATELLITE = re.compile(r"dinov3[-_]\w+[-_]sat493m(?:-[0-9a-f]+)?")


def of_tag(method: str | None, architecture: str, tag: str, own: Transform | None) -> Paper | None:
    """The evaluation of timm's ``architecture`` with weights ``tag``, whose transform in timm is ``own``.

    None where that is as good. CLIP resizes the shorter side to the crop, SigLIP the whole image to a square; mean,
    deviation and filter differ from release to release and are as timm has them.
    """
    if method in ("clip", "siglip") and architecture.startswith("vit_") and own is not None:
        if not isinstance(own.crop, int):
            return None
        side: int | tuple[int, int] = own.crop if method == "clip" else (own.crop, own.crop)
        crop = own.crop if method == "clip" else None
        return Paper(own.model_copy(update={"resize": side, "crop": crop}), "head")
    plain = architecture.startswith("vit_") or method == "dinov3"
    if method not in ("dino", "mae", "dinov2", "dinov3", "mocov3") or not plain:
        return None
    paper = _PAPERS[method]
    if method == "dinov3" and "sat493m" in tag:
        paper = paper._replace(transform=SATELLITE)
    return paper._replace(positions="antialiased") if "_reg4_" in architecture else paper


def of_release(layout: Layout, method: str | None, paper: Paper, own: Transform | None) -> Layout:
    """``layout`` of a folder that is one of timm's releases, which states the transform ``own``."""
    note = f"input transform of {method}'s own evaluation, not timm's ({own.describe()})" if own else None
    return replace(
        layout, method=method, transform=paper.transform, positions=paper.positions, feature=paper.feature, note=note
    )


def of_file(layout: Layout, path: Path) -> Layout:
    """``layout``, with what the name of the released file ``path`` says of its method where nothing else does."""
    stem = path.name.partition(".")[0]
    if path.is_dir():
        return layout
    if layout.method == "dinov3" and _SATELLITE.fullmatch(stem):
        note = "satellite images' mean and deviation, told by the file's name"
        return replace(layout, transform=SATELLITE, note=note)
    method = next((name for pattern, name in _FILES if pattern.fullmatch(stem)), None)
    if layout is not PLAIN or method is None:
        return layout
    paper = _PAPERS[method]
    return replace(
        layout, method=method, transform=paper.transform, positions=paper.positions,
        feature=None if paper.feature == "head" else paper.feature,
        note=f"method ({method}), and with it the input transform, told by the file's name",
    )  # fmt: skip


def feature_of(paper: Paper, network: nn.Module) -> Feature:
    """The paper's feature, where ``network`` has a class token to give."""
    return paper.feature if getattr(network, "cls_token", None) is not None else "head"
