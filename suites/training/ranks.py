"""The processes of one training under torchrun: who this one is, and what they tell each other."""

from __future__ import annotations

from typing import Any

import torch.distributed as dist
from torch import Tensor


def joined() -> bool:
    """Whether this process belongs to an initialised group of several."""
    return dist.is_available() and dist.is_initialized() and dist.get_world_size() > 1


def rank() -> int:
    return dist.get_rank() if joined() else 0


def world() -> int:
    return dist.get_world_size() if joined() else 1


def total(values: Tensor) -> Tensor:
    """The sum over the ranks, in place."""
    if joined():
        dist.all_reduce(values)
    return values


def from_first(value: Any) -> Any:
    """What rank 0 has, everywhere: any picklable value."""
    if not joined():
        return value
    box = [value]
    dist.broadcast_object_list(box, src=0)
    return box[0]


def everybodys(value: Any) -> list[Any]:
    """The value of every rank, by rank."""
    if not joined():
        return [value]
    values: list[Any] = [None] * world()
    dist.all_gather_object(values, value)
    return values
