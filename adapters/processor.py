"""The input transform that a Hugging Face image processor's configuration states (``preprocessor_config.json``)."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from adapters.jsonfile import read_json
from bench.card import Interpolation, Transform

# PIL's numbers, as the processors store them.
_RESAMPLE: dict[int, Interpolation] = {0: "nearest", 1: "lanczos", 2: "bilinear", 3: "bicubic", 4: "box", 5: "hamming"}
_PIXEL = 1 / 255
_WARPED = 384
"""From this size on ConvNeXt's processor warps the image instead of cropping it."""


def transform_beside(stating: Path) -> Transform | None:
    """The transform that a ``preprocessor_config.json`` states, None where there is no such file or it states none."""
    return transform_of(stated(stating))


def stated(stating: Path) -> dict[str, Any]:
    """The file's content, or that of the files in which newer versions keep it; empty where there is none."""
    if stating.is_file():
        return _mapping(read_json(stating))
    if (clips := stating.with_name("video_preprocessor_config.json")).is_file():
        return _mapping(read_json(clips))
    whole = stating.with_name("processor_config.json")
    return _mapping(_mapping(read_json(whole)).get("image_processor")) if whole.is_file() else {}


def _mapping(content: Any) -> dict[str, Any]:
    return content if isinstance(content, dict) else {}


def transform_of(config: dict[str, Any]) -> Transform | None:
    """The transform that the content of a ``preprocessor_config.json`` states, None where it states none.

    Raises ValueError, TypeError or OverflowError for values that no transform can have.
    """
    kind = _kind(config)
    if not config.get("do_resize", True):
        return None
    if not isinstance(config.get("image_mean"), list | tuple) and not kind.startswith("MobileViT"):
        return None
    size, crop = _size(config.get("size")), _size(config.get("crop_size")) if config.get("do_center_crop") else None
    shortest = isinstance(config.get("size"), dict) and "shortest_edge" in config["size"]
    resize: int | tuple[int, int] | None = size
    if size is not None and size[0] == size[1] and shortest:
        resize = size[0]
    if resize is None:
        return None
    cut: int | tuple[int, int] | None = crop
    if crop is not None and crop[0] == crop[1]:
        cut = crop[0]
    resize, cut = _as_its_class(kind, config, resize, cut)
    mean, std = _standardised(kind, config)
    return Transform(
        resize=resize,
        crop=cut,
        interpolation=_RESAMPLE.get(config.get("resample", 2), "bilinear"),
        mean=mean,
        std=std,
    )


def beyond(config: dict[str, Any]) -> list[str]:
    """What the processor does besides, which no `Transform` expresses."""
    words = {
        "do_thumbnail": "keeps the aspect of wide images in a frame",
        "do_align_long_axis": "turns images on their long side",
        "do_pad": "pads images",
    }
    return [what for name, what in words.items() if config.get(name) is True]


def swaps(config: dict[str, Any]) -> bool:
    """Whether the processor gives blue first, after all that its `Transform` says."""
    return config.get("do_flip_channel_order", _kind(config).startswith("MobileViT")) is True


def _kind(config: dict[str, Any]) -> str:
    return str(config.get("image_processor_type") or config.get("feature_extractor_type") or "")


def _as_its_class(
    kind: str, config: dict[str, Any], resize: int | tuple[int, int], crop: int | tuple[int, int] | None
) -> tuple[int | tuple[int, int], int | tuple[int, int] | None]:
    """(resize, crop) by the rules of processors that take ``size`` for something else than the resized image's."""
    if kind.startswith(("LevitImage", "LevitFeature")):
        return (int(256 / 224 * resize) if isinstance(resize, int) else resize), crop
    share = config.get("crop_pct")
    convnext = kind.startswith("ConvNext")
    if share is None and not convnext:
        return resize, crop
    share = float(share) if share is not None else 224 / 256
    if not 0 < share <= 1:
        raise ValueError(f"crop_pct is {share}, no share of the image")
    shorter = resize if isinstance(resize, int) else min(resize)
    if not convnext:
        return int(shorter / share), crop
    return ((shorter, shorter), None) if shorter >= _WARPED else (int(shorter / share), shorter)


def _standardised(kind: str, config: dict[str, Any]) -> tuple[tuple[float, float, float], tuple[float, float, float]]:
    """(mean, std) of pixels in [0, 1], with the processor's own range and what it does twice worked in."""
    mean, std = [0.0, 0.0, 0.0], [1.0, 1.0, 1.0]
    if config.get("do_normalize", not kind.startswith("MobileViT")):
        mean, std = list(config["image_mean"]), list(config.get("image_std") or std)
        if config.get("include_top", kind.startswith("EfficientNet")):
            std = [one * one for one in std]
    factor = config.get("rescale_factor", _PIXEL) if config.get("do_rescale", True) else 1.0
    shift = 1.0 if config.get("rescale_offset", config.get("offset")) is True else 0.0
    if shift or abs(float(factor) / _PIXEL - 1) > 1e-6:
        scale = float(factor) / _PIXEL
        mean, std = [(one + shift) / scale for one in mean], [one / scale for one in std]
    first, second, third = mean
    one, two, three = std
    return (first, second, third), (one, two, three)


def _size(value: Any) -> tuple[int, int] | None:
    if isinstance(value, int):
        return (value, value)
    if not isinstance(value, dict):
        return None
    if "shortest_edge" in value:
        return (int(value["shortest_edge"]), int(value["shortest_edge"]))
    return (int(value["height"]), int(value["width"])) if {"height", "width"} <= set(value) else None
