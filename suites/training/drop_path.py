"""Stochastic depth of a network that is trained."""

from __future__ import annotations

from torch import nn

from bench.errors import BenchError


def set_drop_path(network: nn.Module, rate: float, architecture: str, option: str) -> None:
    """Stochastic depth rising linearly from 0 at the first block to ``rate`` at the last, as timm's networks have it.

    Raises `BenchError` where the architecture has no place for it and ``rate`` is above 0; ``option`` is what sets it.
    """
    from timm.layers import DropPath

    names = ("drop_path", "drop_path1", "drop_path2")
    blocks = [part for part in network.modules() if any(hasattr(part, name) for name in names)]
    if rate > 0 and not blocks:
        raise BenchError(
            f"architecture '{architecture}' has no stochastic depth, which this recipe wants at {rate:g}: "
            f"--set {option}=0"
        )
    for number, block in enumerate(blocks):
        own = rate * number / max(1, len(blocks) - 1)
        for name in names:
            if hasattr(block, name):
                setattr(block, name, DropPath(own) if own > 0 else nn.Identity())
