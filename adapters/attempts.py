"""Attempts to fill an architecture with a weight set, and their order, best first."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from torch import Tensor

from adapters import shaped, sketch, windowed
from adapters.adapting import adapted
from adapters.architecture import Architecture
from adapters.fitting import Fit, fit, prefixes
from adapters.layout import Layout
from adapters.weightsets import label, preference

Shapes = Mapping[str, Sequence[int]]

# Where several architectures have equal tensors and compute different things, these are what the tensors plainly mean.
PLAIN_NAMES = re.compile(
    r"(?x)(?:resnet\d+|wide_resnet\d+_2|resnext\d+_32x\dd|densenet\d+|vgg\d+(?:_bn)?|regnet[xy]_\d+"
    r"|vit_\w+_patch\d+_\d+|vit_\w+_patch14(?:_reg4)?_dinov2|swin_\w+_window\d+_\d+|convnext(?:v2)?_[a-z]+"
    r"|beit_\w+_patch\d+_\d+|mobilenetv2_\d+|mvitv2_[a-z]+|cifar_\w+|wrn_\d+_\d+|resnet\d+_small)"
)
_LIKELY = 0.35


class Reading(NamedTuple):
    """A weight set in one dialect."""

    key: str
    dialect: str
    tensors: Mapping[str, Tensor]
    shapes: dict[str, tuple[int, ...]]


class Attempt(NamedTuple):
    """A reading against an architecture under one prefix."""

    reading: Reading
    architecture: Architecture
    fit: Fit
    layout: Layout

    @property
    def label(self) -> str:
        return label(self.reading.key, self.fit.prefix)

    @property
    def rank(self) -> int:
        """How much the method's evaluation means this weight set, best first."""
        pattern = self.layout.weights
        return -1 if pattern is not None and re.fullmatch(pattern, self.label) else preference(self.label)

    @property
    def order(self) -> tuple[bool, int, float, int, bool, int, int]:
        """Complete before incomplete; then the weights that the method evaluates; then the better fit.

        Of equal fits the one that also finds a classifier, then the one that needs the fewest arguments.
        """
        incomplete, share, left = self.fit.badness
        rank = self.rank
        unusual = PLAIN_NAMES.fullmatch(self.architecture.name) is None
        more, arguments = -len(self.fit.mapped), len(self.architecture.arguments)
        if incomplete:
            return incomplete, 0, share, rank, unusual, more, arguments
        return incomplete, rank, share, left, unusual, more, arguments


def given(read: list[Reading], architecture: Architecture, layout: Layout) -> list[Attempt]:
    """Every reading and prefix against one architecture."""
    tries = []
    for reading in read:
        for prefix in prefixes(reading.shapes, architecture.outline().needed) or [""]:
            tries.append(_attempt(reading, prefix, architecture, layout))
    return tries


def inferred(read: list[Reading], layout: Layout, *, likely: float = _LIKELY, n: int = 8) -> list[Attempt]:
    """Every reading and prefix against the architectures that its names and shapes resemble, then against their own."""
    tries = []
    unnamed = []
    for reading in read:
        for prefix in _common_prefixes(reading.shapes):
            inside = {key[len(prefix) :]: shape for key, shape in reading.shapes.items() if key.startswith(prefix)}
            likeliest = sketch.nearest(inside, 64 if layout.architectures else n)
            if layout.architectures:
                likeliest = [pair for pair in likeliest if re.fullmatch(layout.architectures, pair[0])][:n]
            for name, score in likeliest:
                if score < likely:
                    break
                tries.append(_attempt(reading, prefix, Architecture(name), layout))
            if (own := shaped.transformer(reading.shapes, prefix)) is not None:
                if layout.architectures and re.fullmatch(layout.architectures, quick := _quick(own.name)):
                    own = Architecture(quick, own.arguments)
                stated = layout.arguments(own.name).get("num_heads")
                unnamed.append((reading, prefix, own.with_arguments(num_heads=stated) if stated else own))
            elif (own := windowed.transformer(reading.shapes, prefix, layout.arguments)) is not None:
                unnamed.append((reading, prefix, own))
    if not any(t.fit.complete for t in tries):
        found = [_attempt(reading, prefix, own, layout) for reading, prefix, own in unnamed]
        tries += [t for t in found if t.fit.complete]
    return tries


def _quick(name: str) -> str:
    """The same transformer with CLIP's first activation."""
    return name.replace("_clip_", "_clip_quickgelu_")


def _attempt(reading: Reading, prefix: str, architecture: Architecture, layout: Layout) -> Attempt:
    own = adapted(architecture, reading.tensors, reading.shapes, prefix, layout)
    return Attempt(reading, own, fit(reading.shapes, own.outline(), prefix), layout)


def _common_prefixes(shapes: Shapes) -> list[str]:
    """Prefixes that at least a tenth of the names have, the empty one first."""
    counts: Counter[str] = Counter({"": len(shapes)})
    for key in shapes:
        parts = key.split(".")
        for depth in range(1, min(len(parts), 7)):
            counts[".".join(parts[:depth]) + "."] += 1
    least = max(0.1 * len(shapes), 4)
    return [prefix for prefix, count in counts.items() if count >= least]
