"""`wrap`: a module in a training loop as a Backbone, evaluated where it stands and given back as it was."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, TypeGuard

import numpy as np
import torch
from pydantic import ValidationError
from torch import Tensor, nn

from bench.backbone import Backbone, weight_digest
from bench.callables import name_of
from bench.card import Card, Transform
from bench.device import is_out_of_memory
from bench.errors import BenchError

Pooled = Callable[[Any], Tensor]


def wrap(
    module: nn.Module,
    *,
    transform: Transform | dict[str, Any] | Callable[[Any], Tensor] | None = None,
    pooled: Pooled | str | None = None,
    name: str | None = None,
    step: int | None = None,
    epoch: float | None = None,
) -> LiveBackbone:
    """A Backbone over a live ``module``, for `bench.run` inside a training loop.

    ``transform``: a `bench.card.Transform`, a dictionary of its fields, or any callable from a PIL image to a float32
    [3, H, W] tensor (then records are comparable only with records of the same callable); None: resize 256 bicubic,
    crop 224, ImageNet mean and standard deviation. ``pooled``: a function from the module's output to [B, D], or the
    name of a method to call in place of ``forward``; None takes a [B, D] output as it is and averages a [B, C, H, W]
    map over its positions. ``step`` and ``epoch`` are recorded.

    During `bench.run` the module and its parts are in eval mode without gradients, on the device where they are; after
    it every part is back in its own mode and the random states of Python, NumPy and PyTorch are what they were. A
    DistributedDataParallel wrapper is looked through, so a single rank may call `bench.run` without the others.
    Features stay in memory. Raises `BenchError` when the output is no [B, D] feature.
    """
    if not isinstance(module, nn.Module):
        raise BenchError(f"wrap takes a torch module, not a {type(module).__name__}")
    if isinstance(module, Backbone):
        raise BenchError("wrap takes a torch module, and this is a model already: give it to bench.run as it is")
    inner = module
    while isinstance(inner, nn.parallel.DistributedDataParallel | nn.DataParallel):
        # Their forward talks to the other ranks, who may be busy elsewhere.
        inner = inner.module
    preprocess: Callable[[Any], Tensor] | None = None
    if transform is None:
        described = Transform()
    elif isinstance(transform, Transform):
        described = transform
    elif isinstance(transform, dict):
        try:
            described = Transform.model_validate(transform)
        except ValidationError as error:
            fields = f" (the fields are {', '.join(Transform.model_fields)})"
            raise BenchError(f"wrap: transform.{_fault(error)}{fields}") from None
    elif callable(transform):
        preprocess = transform
        described = Transform(
            resize=None, crop=None, mean=(0.0, 0.0, 0.0), std=(1.0, 1.0, 1.0), custom=name_of(transform)
        )
    else:
        raise BenchError(
            f"wrap: transform is a {type(transform).__name__}: give a Transform, its fields, or a callable"
        )
    if pooled is not None and not isinstance(pooled, str) and not callable(pooled):
        raise BenchError(f"wrap: pooled is a function or the name of a method, not a {type(pooled).__name__}")
    if isinstance(pooled, str) and not callable(getattr(inner, pooled, None)):
        raise BenchError(f"wrap: the module {type(inner).__name__} has no method '{pooled}' to take features from")
    if any(tensor.is_meta for tensor in (*inner.parameters(), *inner.buffers())):
        raise BenchError(f"wrap: the module {type(inner).__name__} is on the meta device: it has shapes and no weights")
    if any(nn.parameter.is_lazy(tensor) for tensor in (*inner.parameters(), *inner.buffers())):
        raise BenchError(f"wrap: the module {type(inner).__name__} has lazy parts without weights yet: forward it once")
    try:
        return LiveBackbone(inner, described, preprocess, pooled, name or type(inner).__name__, step, epoch)
    except ValidationError as error:
        raise BenchError(f"wrap: {_fault(error)}") from None


def _is_dense(value: Any) -> TypeGuard[Tensor]:
    return isinstance(value, Tensor) and value.layout == torch.strided and not value.is_meta


def _fault(error: ValidationError) -> str:
    """The first fault: field and reason."""
    first = error.errors()[0]
    return f"{'.'.join(map(str, first['loc']))}: {first['msg']}"


def _told(error: Exception) -> str:
    """What other people's code died of, on one line."""
    return f"{type(error).__name__}: {str(error).partition(chr(10))[0]:.300}"


class LiveBackbone(Backbone):
    """See `wrap`. ``card`` describes the weights as they were when the last evaluation began."""

    live = True

    def __init__(
        self,
        module: nn.Module,
        transform: Transform,
        preprocess: Callable[[Any], Tensor] | None,
        pooled: Pooled | str | None,
        name: str,
        step: int | None,
        epoch: float | None,
    ) -> None:
        super().__init__()
        # A tuple hides the module from nn.Module's registration: `wrap` must not change what the trainer's own calls
        # of train(), parameters() or state_dict() on it see, and eval() on us must not reach it.
        self._held = (module,)
        self._preprocess = preprocess
        self._pooled = pooled
        self.card = Card(
            name=name,
            spec="live",
            architecture=type(module).__name__,
            family="module",
            dims={},
            # Another way to the feature is another feature: two of one module must not pass for one.
            feature=pooled if isinstance(pooled, str) else name_of(pooled) if pooled is not None else "pooled",
            transform=transform,
            weight_digest="",
            container="live module",
            step=step,
            epoch=epoch,
        )

    @property
    def module(self) -> nn.Module:
        return self._held[0]

    @property
    def device(self) -> torch.device:
        """Where the module's first parameter lies."""
        tensor = next(self.module.parameters(), None)
        return tensor.device if tensor is not None else torch.device("cpu")

    def preprocess(self, image: Any) -> Tensor:
        if self._preprocess is None:
            return super().preprocess(image)
        try:
            made = self._preprocess(image)
        except Exception as error:
            custom = self.card.transform.custom if self.card.transform else ""
            raise BenchError(f"wrap: the transform {custom} failed: {_told(error)}") from error
        if not _is_dense(made) or made.ndim < 3 or not made.numel() or not made.is_floating_point():
            what = f"{made.dtype} {tuple(made.shape)}" if isinstance(made, Tensor) else type(made).__name__
            raise BenchError(
                f"wrap: the transform {self.card.transform.custom if self.card.transform else ''} gave {what}, "
                f"not a float tensor [3, H, W]"
            )
        return made.float()

    def features(self, images: Tensor) -> dict[str, Tensor]:
        call = getattr(self.module, self._pooled) if isinstance(self._pooled, str) else self.module
        try:
            output = call(images)
            if callable(self._pooled):
                output = self._pooled(output)
        except Exception as error:
            # A smaller batch may fit: that is the engine's affair.
            if isinstance(error, BenchError) or is_out_of_memory(error):
                raise
            raise BenchError(
                f"the module {self.card.architecture} failed on images {tuple(images.shape)}: {_told(error)}"
            ) from error
        if isinstance(output, Tensor) and output.ndim == 4:
            output = output.mean(dim=(2, 3))
        if not _is_dense(output) or output.is_complex() or output.ndim != 2 or len(output) != len(images):
            what = f"{output.dtype} {tuple(output.shape)}" if isinstance(output, Tensor) else type(output).__name__
            raise BenchError(
                f"the module {self.card.architecture} gave {what} for {len(images)} images, which is no [B, D] "
                f"feature: say with wrap(..., pooled=function or method name) how to get one"
            )
        if self.card.dims != {"pooled": output.shape[1]}:
            self.card = self.card.model_copy(update={"dims": {"pooled": output.shape[1]}})
        return {"pooled": output.float()}

    def pyramid(self, images: Tensor) -> list[Tensor]:
        raise BenchError(f"the live module {self.card.architecture} has no pyramid: save a checkpoint and load it")

    @contextmanager
    def evaluating(self) -> Iterator[None]:
        """Eval mode, gradients off, the card brought up to date; everything given back at the end, also on an error."""
        modes = [(part, part.training) for part in self.module.modules()]
        states = (random.getstate(), np.random.get_state(), torch.get_rng_state())
        cuda = torch.cuda.get_rng_state_all() if torch.cuda.is_available() and torch.cuda.is_initialized() else None  # type: ignore[no-untyped-call]
        try:
            self.module.eval()
            with torch.no_grad():
                self.card = self.card.model_copy(
                    update={
                        "weight_digest": weight_digest(self.module.state_dict()),
                        "parameters": sum(p.numel() for p in self.module.parameters()),
                    }
                )
                yield
        finally:
            for part, mode in modes:
                part.training = mode
            random.setstate(states[0])
            np.random.set_state(states[1])
            torch.set_rng_state(states[2])
            if cuda is not None:
                torch.cuda.set_rng_state_all(cuda)
