"""Floating-point numbers of eight bits: read as they are where nothing scales them, refused where something does."""

from __future__ import annotations

import re

import torch
from torch import Tensor

from adapters.weightsets import WeightSet
from bench.errors import BenchError

# Each of these numbers is one of float16's too (Micikevicius et al., "FP8 Formats for Deep Learning", 2022, table 1).
_EIGHT = re.compile(r"torch\.float8_e(?:4m3|5m2)\w*")
# Powers of two, which are scales of blocks, and pairs of numbers in a byte.
_OTHERS = re.compile(r"torch\.float(?:8_e8m0|4)\w*")
_SCALES = re.compile(
    r"(?:.*\.)?(?:\w*weight_scale\w*|scale_weight|(?:input|output|act|activation)_scale\w*|scale_inv|scaled_fp8)"
)
# So called are norms' weights too: a scale where it lies beside a weight of eight bits.
_BESIDE = re.compile(r"(.*\.)?scales?")


def widened(sets: list[WeightSet], file: str) -> tuple[list[WeightSet], str | None]:
    """``sets`` with float16 in place of eight-bit numbers, and a remark where there were any.

    Raises `BenchError` for numbers that mean nothing without their scales.
    """
    kinds: dict[str, None] = {}
    eight: set[str] = set()
    wide = []
    for weights in sets:
        own: dict[str, Tensor] = {}
        for name, tensor in weights.tensors.items():
            kind = str(tensor.dtype)
            if _OTHERS.fullmatch(kind):
                raise BenchError(_waiting(file, [name], kind))
            if _EIGHT.fullmatch(kind):
                eight.add(name)
                kinds[kind.removeprefix("torch.")] = None
                tensor = tensor.to(torch.float16)
            own[name] = tensor
        wide.append(weights._replace(tensors=own))
    if not eight:
        return sets, None
    names = dict.fromkeys(name for weights in sets for name in weights.tensors)
    if scales := [name for name in names if _SCALES.fullmatch(name) or _beside(name) in eight]:
        raise BenchError(_waiting(file, scales, " and ".join(kinds)))
    count = sum(name in eight for weights in sets for name in weights.tensors)
    return wide, f"{count} tensors are {' and '.join(kinds)}: read as they are, with no scale (the file has none)"


def _beside(name: str) -> str | None:
    match = _BESIDE.fullmatch(name)
    return f"{match[1] or ''}weight" if match is not None else None


def _waiting(file: str, names: list[str], kind: str) -> str:
    more = f" and {len(names) - 3} more" if len(names) > 3 else ""
    return (
        f"{file} holds {kind.removeprefix('torch.')} numbers and scales ({', '.join(names[:3])}{more}), as quantisers "
        f"write them and no network of bench reads them: give the weights before the quantisation"
    )
