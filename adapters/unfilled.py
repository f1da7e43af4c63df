"""Networks that are built to be filled: without the random values that loading would overwrite."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode


class _NoRandomInit(TorchFunctionMode):
    """Random initialisation takes seconds in large networks, and every value is overwritten."""

    _SKIPPED = frozenset((Tensor.normal_, Tensor.uniform_, Tensor.erfinv_))
    _KEPT = frozenset(("constant_", "ones_", "zeros_"))

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        initialiser = getattr(func, "__module__", None) == "torch.nn.init" and func.__name__ not in self._KEPT
        if initialiser or func in self._SKIPPED:
            tensor: Tensor = args[0] if args else kwargs["tensor"]
            if initialiser:
                return tensor
            # Zeros, not whatever the memory held: torch's truncated normal draws until all values are within bounds.
            with torch.no_grad():
                return tensor.zero_()
        return func(*args, **(kwargs or {}))


@contextmanager
def without_random_init() -> Iterator[None]:
    """Build networks quickly; only for those whose every tensor is then filled."""
    with _NoRandomInit():
        yield


@contextmanager
def without_parameters() -> Iterator[None]:
    """Build networks whose parameters have shapes and no memory, while buffers are computed as ever."""
    plain = nn.Module.register_parameter

    def registered(self: nn.Module, name: str, parameter: nn.Parameter | None) -> None:
        if parameter is not None and not parameter.is_meta:
            parameter = nn.Parameter(parameter.to("meta"), requires_grad=False)
        plain(self, name, parameter)

    with without_random_init():
        nn.Module.register_parameter = registered  # type: ignore[method-assign, assignment]
        try:
            yield
        finally:
            nn.Module.register_parameter = plain  # type: ignore[method-assign]
