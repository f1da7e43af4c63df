"""Axes along which any frozen protocol may be asked: input size, resizing, block or layers, tokens. Each makes a named
variant.

``--set knn.size=448`` is ``knn/dino@1+size=448``: the same protocol on images of 448 pixels. ``resize=224`` brings the
shorter side to 224 before the crop, ``resize=0`` to the crop's own size, so that nothing of that side is cut off;
``resample=bicubic`` resizes by that filter (DINO's kNN of a ResNet whose own is bilinear). ``block=6`` reads the sixth
block alone (of a convolutional network the sixth map of its pyramid), ``layers=4`` the last four side by side and
``tokens`` the class token, the mean patch token, or both. A suite says in ``axes`` which of them it has.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple, get_args

import numpy as np

from bench.card import Interpolation
from bench.errors import BenchError
from bench.featureset import FeatureSet
from bench.options import Allowed, count, words

if TYPE_CHECKING:
    from bench.backbone import Backbone
    from bench.card import Card

AXES: dict[str, Allowed] = {
    "size": count(1, 16384),
    "resize": count(0, 16384),
    "resample": words(*get_args(Interpolation)),
    "block": count(1, 10_000),
    "layers": count(1, 10_000),
    "tokens": words("pooled", "cls", "avg", "cls:avg"),
}
FROZEN = tuple(AXES)
"""What a suite has that reads nothing but the frozen feature of its own samples."""


class Framing(NamedTuple):
    """The axes that change how images are made; None where that is the model's own."""

    size: int | None = None
    """Of the images."""
    resize: int | None = None
    """Of their shorter side before the crop."""
    resample: str | None = None
    """The filter by which they are resized."""

    @classmethod
    def of(cls, axes: Mapping[str, Any]) -> Framing:
        """What ``axes`` say of it."""
        return cls(*(axes.get(name) for name in cls._fields))


def axes_of(suite: str) -> tuple[str, ...]:
    """The axes that ``suite`` has."""
    from bench.registry import resolve, table

    return tuple(getattr(resolve("suites", suite), "axes", ())) if suite in table("suites") else ()


def checked(option: str, raw: Any, name: str) -> Any:
    """A value of the axis ``option``. Raises `BenchError`, in which it is called ``name``, for what it cannot be."""
    from bench.options import coerce

    like = "" if option in ("tokens", "resample") else 1
    return AXES[option].checked(coerce(raw, like=like, option=name), like=like, option=name)


def parts_of(axes: Mapping[str, Any], card: Card, protocol: str) -> tuple[str, ...]:
    """The stored arrays that stand in place of ``pooled``; none when neither block, layers nor tokens are asked for.

    With several layers the mean patch token is that of the last one alone, as DINOv2 joins them. Raises `BenchError`
    for axes that exclude each other, and for a model whose tokens have to be named.
    """
    if not axes.keys() & {"block", "layers", "tokens"}:
        return ()
    if "block" in axes and "layers" in axes:
        raise BenchError(f"{protocol}: block reads one block alone and layers the last ones together: set one of them")
    tokens = axes.get("tokens", "pooled")
    whole = "block" not in axes and "layers" not in axes
    if tokens == "pooled":
        if whole:
            return ()
        tokens = card.feature
        if tokens not in ("cls", "avg"):
            raise BenchError(
                f"{protocol}: the pooled feature of '{card.name}' ({card.feature}) is no token of a block: say which "
                f"tokens are meant, cls or avg (--set {protocol.partition('/')[0]}.tokens=avg)"
            )
    kinds = tokens.split(":")
    if "block" in axes:
        return tuple(f"block{axes['block']}.{kind}" for kind in kinds)
    if whole or axes["layers"] == 1:
        return tuple(kinds)
    last = f"blocks{axes['layers']}"
    return tuple("avg" if kind == "avg" and len(kinds) > 1 else f"{last}.{kind}" for kind in kinds)


def described(axes: Mapping[str, Any], card: Card) -> dict[str, Any]:
    """What a record's ``feature`` says of the axes."""
    told: dict[str, Any] = {}
    if (tokens := axes.get("tokens", "pooled")) != "pooled":
        told["tokens"] = tokens.replace(":", "+")
    elif axes.keys() & {"block", "layers"}:
        told["tokens"] = card.feature
    return told | {name: axes[name] for name in ("block", "layers") if name in axes}


def at_size(backbone: Backbone, size: int | None, resize: int | None = None, resample: str | None = None) -> Backbone:
    """The same network, its weights shared, with its transform at ``size`` and the shorter side at ``resize`` before.

    ``resize`` of 0: at the crop's own size. ``resample``: the filter that it is resized by.

    Raises `BenchError` for a network without a transform of its own making, for a size that it cannot take, and for
    images that would be smaller than the crop.
    """
    import torch

    from bench.transform import resized

    card = backbone.card
    if card.transform is None or card.transform.custom is not None:
        raise BenchError(
            f"'{card.name}' has no image transform of bench's: its input size cannot be set to {size or resize}"
            if size is not None or resize is not None
            else f"'{card.name}' has no image transform of bench's: resample={resample} cannot apply"
        )
    transform = card.transform if size is None else resized(card.transform, size)
    # Without a crop nothing is cut off already.
    if resize is not None and (resize or transform.crop is not None):
        if not isinstance(transform.crop, int):
            raise BenchError(
                f"the transform of '{card.name}' has no square crop: resize={resize} cannot apply, set size"
            )
        resize = resize or transform.crop
        if resize < transform.crop:
            raise BenchError(
                f"resize={resize} makes images smaller than the crop of {transform.crop} pixels: set size too"
            )
        transform = transform.model_copy(update={"resize": resize})
    if resample is not None:
        if transform.resize is None:
            raise BenchError(f"the transform of '{card.name}' resizes nothing: resample={resample} cannot apply")
        transform = transform.model_copy(update={"interpolation": resample})
    other = copy.copy(backbone)
    other.card = card.model_copy(update={"transform": transform})
    if size is None:
        return other
    tensor = next(backbone.parameters(), None)
    device = getattr(backbone, "device", tensor.device if tensor is not None else "cpu")
    try:
        with torch.no_grad():
            other.features(torch.zeros(1, 3, size, size, device=device))
    except (RuntimeError, AssertionError, ValueError) as error:
        raise BenchError(f"architecture '{card.architecture}' cannot take images of {size} pixels: {error}") from error
    return other


class Joined(FeatureSet):
    """A split whose ``pooled`` are other arrays of it side by side; everything else is as it was."""

    def __init__(self, inner: FeatureSet, parts: Sequence[str]) -> None:
        self._inner = inner
        self._parts = tuple(parts)
        self.dataset = inner.dataset
        self.split = inner.split
        self.fingerprint = inner.fingerprint
        self.labels = inner.labels
        self.ids = inner.ids
        self.classes = inner.classes
        self.validation = inner.validation
        self.widths = {**inner.widths, "pooled": sum(inner.widths[part] for part in self._parts)}

    def array(self, name: str) -> np.ndarray:
        if name != "pooled":
            return self._inner.array(name)
        arrays = [self._inner.array(part) for part in self._parts]
        return arrays[0] if len(arrays) == 1 else np.concatenate(arrays, axis=1)

    def blocks(self, name: str, rows: int) -> Iterator[tuple[int, np.ndarray]]:
        if name != "pooled":
            yield from self._inner.blocks(name, rows)
            return
        for pieces in zip(*(self._inner.blocks(part, rows) for part in self._parts), strict=True):
            first = pieces[0][0]
            yield first, pieces[0][1] if len(pieces) == 1 else np.concatenate([block for _, block in pieces], axis=1)
