"""Whether the values of a file's tensors can be the weights of a network."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from bench.errors import BenchError

_NAMED = 3


def converted(tensors: Mapping[str, Tensor], places: Mapping[str, Tensor], what: str) -> dict[str, Tensor]:
    """``tensors`` with the types of the ``places`` that they fill, checked.

    ``what`` names the file or model in the sentence. Raises `BenchError` for what no trained network holds: numbers of
    another kind than the network's (integers of a quantised network, masks, complex numbers), NaN and infinite values,
    negative variances, and a file of zeros alone.
    """
    found: dict[str, Tensor] = {}
    for name, tensor in tensors.items():
        if places[name].is_floating_point() and not tensor.is_floating_point():
            kind = str(tensor.dtype).removeprefix("torch.")
            others = [n for n, t in tensors.items() if places[n].is_floating_point() and t.dtype == tensor.dtype]
            remedy = (
                "they are complex" if tensor.is_complex() else "quantised weights mean nothing without their scales"
            )
            raise BenchError(
                f"{what}: {_counted(others)} hold {kind} where the network computes with floating-point numbers "
                f"({remedy}): give the weights before that conversion"
            )
        found[name] = tensor.to(places[name].dtype)
    check(found, what)
    return found


def check(tensors: Mapping[str, Tensor], what: str) -> None:
    """Raises `BenchError`, naming ``what``, for floating-point ``tensors`` that no trained network holds."""
    floating = {name: tensor for name, tensor in tensors.items() if tensor.is_floating_point()}
    if broken := [name for name, tensor in floating.items() if not _finite(tensor)]:
        raise BenchError(
            f"{what}: {_counted(broken)} have NaN or infinite values: the training diverged or the file is damaged, "
            f"give an earlier checkpoint or download it again"
        )
    variances = [name for name in floating if name.rpartition(".")[2] == "running_var"]
    if negative := [name for name in variances if floating[name].numel() and float(floating[name].min()) < 0]:
        raise BenchError(
            f"{what}: {_counted(negative)} have negative values, which no variance has: the file is damaged, save or "
            f"download it again"
        )
    matrices = [tensor for tensor in floating.values() if tensor.ndim > 1]
    if matrices and not any(bool(tensor.any()) for tensor in matrices):
        raise BenchError(
            f"{what}: all of its {len(matrices)} weight matrices are zero, as an unfinished copy leaves them: save or "
            f"download it again"
        )


def _finite(tensor: Tensor) -> bool:
    # A sum is not finite where a value is not; only an overflow of the sum needs the longer look.
    return bool(torch.isfinite(tensor.sum())) or bool(torch.isfinite(tensor).all())


def _counted(names: list[str]) -> str:
    more = f" and {len(names) - _NAMED} more" if len(names) > _NAMED else ""
    return f"{len(names)} of its tensors ({', '.join(names[:_NAMED])}{more})"
