"""Mapping one implementation's tensors onto another's by their order, for twins whose names alone differ."""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor

from bench.errors import BenchError


def in_order(source: Mapping[str, Tensor], target: Mapping[str, Tensor], *, what: str) -> dict[str, Tensor]:
    """``source``'s tensors under ``target``'s names, paired by position.

    Every pair must agree in shape and in the last part of the name (``weight``, ``running_mean``...), and none may be
    left over on either side; anything else is refused with a `BenchError`.
    """
    if len(source) != len(target):
        raise BenchError(f"{what}: the file has {len(source)} tensors, the network {len(target)}")
    mapped: dict[str, Tensor] = {}
    for (theirs, tensor), (ours, place) in zip(source.items(), target.items(), strict=True):
        if tensor.shape != place.shape or theirs.rpartition(".")[2] != ours.rpartition(".")[2]:
            raise BenchError(f"{what}: '{theirs}' {tuple(tensor.shape)} does not fit '{ours}' {tuple(place.shape)}")
        mapped[ours] = tensor
    return mapped
