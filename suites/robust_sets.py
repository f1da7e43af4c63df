"""The shifted test sets of ImageNet: published sizes, which are answered among their own classes; AlexNet's errors."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from bench.data.corrupted import STRENGTHS
from bench.data.robustness import CORRUPTIONS, SEVERITIES
from bench.errors import BenchError
from bench.registry import nearest

ALEXNET = {
    "gaussian_noise": 0.886428, "shot_noise": 0.894468, "impulse_noise": 0.922640, "defocus_blur": 0.819880,
    "glass_blur": 0.826268, "motion_blur": 0.785948, "zoom_blur": 0.798360, "snow": 0.866816, "frost": 0.826572,
    "fog": 0.819324, "brightness": 0.564592, "contrast": 0.853204, "elastic_transform": 0.646056,
    "pixelate": 0.717840, "jpeg_compression": 0.606500,
}  # fmt: skip
"""AlexNet's error of each corruption of ImageNet-C, the mean over severities: what mCE divides by."""


class Set(NamedTuple):
    """One shifted set as published."""

    images: int
    classes: int
    masked: bool = False
    """Answered among its own classes alone."""
    corruption: str = ""
    severity: int = 0
    generated: bool = False
    """Corrupted here: there is no published set to be whole of."""


SETS = {
    "imagenet": Set(50_000, 1000),
    "imagenet-v2": Set(10_000, 1000),
    "imagenet-a": Set(7_500, 200, masked=True),
    "imagenet-r": Set(30_000, 200, masked=True),
    "imagenet-sketch": Set(50_889, 1000),
    # Of the 50 000 images of ReaL, those that have a label.
    "imagenet-real": Set(46_837, 1000),
    "imagenet-c": Set(50_000, 1000),
    "corrupted": Set(0, 0, generated=True),
    "imagecorruptions": Set(0, 0, generated=True),
}
MADE: dict[str, tuple[str, ...]] = {"corrupted": tuple(STRENGTHS), "imagecorruptions": tuple(CORRUPTIONS)}
"""Sets that are made of another one as it is read: their kinds of corruption."""


def specs_of(sets: Sequence[str], of: str = "imagenet") -> tuple[str, ...]:
    """SPECs of data: ImageNet-C is seventy-five of them, those of `MADE` the set ``of`` and what is made of it."""
    return tuple(dict.fromkeys(spec for name in sets for spec in _specs(name, of)))


def _specs(name: str, of: str) -> list[str]:
    if name == "imagenet-c":
        return [f"imagenet-c:{corruption}-{severity}" for corruption in ALEXNET for severity in SEVERITIES]
    if name in MADE:
        return [of, *(f"{name}:{kind}-{severity},{of}" for kind in MADE[name] for severity in SEVERITIES)]
    return [name]


def set_of(spec: str, of: str = "imagenet") -> Set:
    """The row of a SPEC. Raises `BenchError` for a set that the suite does not know."""
    if spec == of and spec not in SETS:
        return SETS["corrupted"]
    name, _, rest = spec.partition(":")
    if name not in SETS:
        raise BenchError(f"robust.sets: '{spec}' is no shifted set of ImageNet{nearest(name, list(SETS))}")
    if not rest:
        return SETS[name]
    corruption, _, severity = rest.partition(",")[0].rpartition("-")
    return SETS[name]._replace(corruption=corruption, severity=int(severity))
