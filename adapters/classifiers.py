"""Classifiers that read more than timm's networks give theirs: DINOv2's class token beside the mean of its patches."""

from __future__ import annotations

import torch
from torch import nn

from adapters import values
from adapters.matching import Match

Linear = tuple[nn.Linear, tuple[str, ...]]


def beside(chosen: Match, file: str) -> tuple[Linear | None, Match]:
    """The file's own linear classifier with what it reads, and ``chosen`` without it among what is left over.

    None where the layout has none, or where ``head`` is none of that width. Raises `BenchError` for values that no
    classifier has.
    """
    parts, prefix = chosen.layout.linear, chosen.fit.prefix
    weight, bias = (chosen.tensors.get(f"{prefix}head.{name}") for name in ("weight", "bias"))
    width = chosen.outline.needed.get("norm.weight", (0,))[0]
    if not parts or weight is None or weight.ndim != 2 or weight.shape[1] != len(parts) * width:
        return None, chosen
    if bias is None or tuple(bias.shape) != (len(weight),) or not len(weight):
        return None, chosen
    values.check({"head.weight": weight, "head.bias": bias}, file)
    with torch.device("meta"):
        linear = nn.Linear(weight.shape[1], len(weight))
    linear.weight = nn.Parameter(weight.detach().float().clone(), requires_grad=False)
    linear.bias = nn.Parameter(bias.detach().float().clone(), requires_grad=False)
    left = [name for name in chosen.fit.heads if name != f"{prefix}head.*"]
    return (linear, parts), chosen._replace(fit=chosen.fit._replace(heads=left))
