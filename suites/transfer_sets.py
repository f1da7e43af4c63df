"""The data sets of the transfer tables: their metric, published sizes, and group."""

from __future__ import annotations

from typing import NamedTuple

from bench.errors import BenchError
from bench.registry import nearest


class Set(NamedTuple):
    """One row of a transfer table."""

    metric: str
    """``top1``, ``mean_per_class``, or ``map11`` (many labels an image)."""
    train: int
    """Published number of images to learn from, validation included."""
    test: int
    group: str = ""


VTAB = {
    "natural": ("caltech101", "cifar", "dtd", "oxford_flowers102", "oxford_iiit_pet", "svhn", "sun397"),
    "specialized": ("patch_camelyon", "eurosat", "resisc45", "diabetic_retinopathy"),
    "structured": (
        "clevr_count", "clevr_dist", "dmlab", "kitti", "dsprites_loc", "dsprites_ori", "smallnorb_azi", "smallnorb_ele",
    ),
}  # fmt: skip

SETS = {
    "food101": Set("top1", 75_750, 25_250),
    "cifar10": Set("top1", 50_000, 10_000),
    "cifar100": Set("top1", 50_000, 10_000),
    "birdsnap": Set("top1", 47_386, 2_443),
    "sun397": Set("top1", 19_850, 19_850),
    "cars": Set("top1", 8_144, 8_041),
    "aircraft": Set("mean_per_class", 6_667, 3_333),
    "voc07cls": Set("map11", 5_011, 4_952),
    "dtd": Set("top1", 3_760, 1_880),
    "pets": Set("mean_per_class", 3_680, 3_669),
    "caltech101": Set("mean_per_class", 3_060, 6_084),
    "flowers102": Set("mean_per_class", 2_040, 6_149),
    "cub": Set("top1", 5_994, 5_794),
    "stl10": Set("top1", 5_000, 8_000),
    "tinyimagenet": Set("top1", 100_000, 10_000),
    # The test lists of VTAB-1k differ by build: only the 1 000 are held to.
    **{f"vtab1k:{name}": Set("top1", 1_000, 0, group) for group, names in VTAB.items() for name in names},
}


def set_of(spec: str) -> Set:
    """The row of ``spec``. Raises `BenchError` for a set that no transfer table has."""
    if spec not in SETS:
        raise BenchError(f"transfer.sets: no transfer table has '{spec}'{nearest(spec, list(SETS))}")
    return SETS[spec]
