"""Whether the values of a file's tensors can be the weights of a network."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from bench.errors import BenchError

_NAMED = 3


def check_kinds(tensors: Mapping[str, Tensor], places: Mapping[str, Tensor], what: str) -> None:
    """Raises `BenchError` where a tensor holds numbers of another kind than the network computes with.

    Integers of a quantised network, masks and complex numbers would otherwise become floating-point numbers that mean
    nothing. ``what`` names the file or model in the sentence.
    """
    for name, tensor in tensors.items():
        if places[name].is_floating_point() and not tensor.is_floating_point():
            kind = str(tensor.dtype).removeprefix("torch.")
            others = [n for n, t in tensors.items() if places[n].is_floating_point() and t.dtype == tensor.dtype]
            why = "they are complex" if tensor.is_complex() else "quantised weights mean nothing without their scales"
            raise BenchError(
                f"{what}: {_counted(others)} hold {kind} where the network computes with floating-point numbers "
                f"({why}): give the weights before that conversion"
            )


class Findings:
    """What is wrong with the values of tensors that are looked at one after another."""

    def __init__(self) -> None:
        self._broken: list[str] = []
        self._negative: list[str] = []
        self._matrices = 0
        self._zeros = 0

    def add(self, name: str, tensor: Tensor) -> None:
        if not tensor.is_floating_point() or not tensor.numel():
            return
        if not _finite(tensor):
            self._broken.append(name)
        elif name.rpartition(".")[2] == "running_var" and float(tensor.min()) < 0:
            self._negative.append(name)
        if tensor.ndim > 1:
            self._matrices += 1
            self._zeros += not bool(tensor.any())

    def refuse(self, what: str) -> None:
        """Raises `BenchError`, naming ``what``, for values that no trained network holds."""
        if self._broken:
            raise BenchError(
                f"{what}: {_counted(self._broken)} have NaN or infinite values: the training diverged or the file is "
                f"damaged, give an earlier checkpoint or download it again"
            )
        if self._negative:
            raise BenchError(
                f"{what}: {_counted(self._negative)} have negative values, which no variance has: the file is damaged, "
                f"save or download it again"
            )
        if self._matrices and self._zeros == self._matrices:
            raise BenchError(
                f"{what}: all of its {self._matrices} weight matrices are zero, as an unfinished copy leaves them: "
                f"save or download it again"
            )


def check(tensors: Mapping[str, Tensor], what: str) -> None:
    """Raises `BenchError`, naming ``what``, for floating-point ``tensors`` that no trained network holds."""
    found = Findings()
    for name, tensor in tensors.items():
        found.add(name, tensor)
    found.refuse(what)


def _finite(tensor: Tensor) -> bool:
    # A sum is not finite where a value is not; only an overflow of the sum needs the longer look.
    return bool(torch.isfinite(tensor.sum())) or bool(torch.isfinite(tensor).all())


def _counted(names: list[str]) -> str:
    more = f" and {len(names) - _NAMED} more" if len(names) > _NAMED else ""
    return f"{len(names)} of its tensors ({', '.join(names[:_NAMED])}{more})"
