"""Ranks: which of several processes that torchrun started this one is."""

from __future__ import annotations

import os
from typing import NamedTuple

from bench.errors import BenchError


class Ranks(NamedTuple):
    """This process's place among ``world``; ``local`` counts on this host."""

    rank: int
    world: int
    local: int


def of_torchrun() -> Ranks | None:
    """The ranks that torchrun gave this process, None when it did not start it."""
    if "TORCHELASTIC_RUN_ID" not in os.environ:
        return None
    try:
        return Ranks(*(int(os.environ[name]) for name in ("RANK", "WORLD_SIZE", "LOCAL_RANK")))
    except (KeyError, ValueError):
        raise BenchError("torchrun's variables RANK, WORLD_SIZE and LOCAL_RANK are not whole numbers here") from None


def device_of(device: str, ranks: Ranks) -> str:
    """The device of a rank where the user named none in particular: GPUs are dealt out in order."""
    if device not in ("auto", "cuda"):
        return device
    import torch

    count = torch.cuda.device_count()
    return f"cuda:{ranks.local % count}" if count else device
