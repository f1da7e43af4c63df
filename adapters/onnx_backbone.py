"""An ONNX graph as a Backbone: a black box that gives features through onnxruntime."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NoReturn

import numpy as np
import torch
from torch import Tensor

from bench.backbone import Backbone
from bench.card import Card
from bench.errors import BenchError

DTYPES = {
    "tensor(float)": np.float32,
    "tensor(float16)": np.float16,
    "tensor(double)": np.float64,
    "tensor(uint8)": np.uint8,
}
"""Types of an image input, by onnxruntime's names."""


class OnnxBackbone(Backbone):
    """``pooled`` is what ``pick`` makes of the graph's output; the network behind it cannot be trained or looked into.

    The graph runs on the processor whatever device the images are on. ``fixed`` is the number of images that the graph
    takes at once, None for any; a smaller batch is filled up with copies of its last image. Images, red first as
    everywhere, are given to the graph blue first where ``blue_first``.
    """

    def __init__(
        self,
        session: Any,
        card: Card,
        *,
        outputs: dict[str, str],
        pool: str | None = None,
        channels_last: bool = False,
        fixed: int | None = None,
        blue_first: bool = False,
    ) -> None:
        super().__init__()
        self.session = session
        self.card = card
        self._outputs = outputs
        self._pool = pool
        self._channels_last = channels_last
        self._fixed = fixed
        self._blue_first = blue_first
        (only,) = session.get_inputs()
        self._input, self._dtype = only.name, DTYPES[only.type]

    @property
    def device(self) -> torch.device:
        """Where the graph runs."""
        return torch.device("cpu")

    def features(self, images: Tensor) -> dict[str, Tensor]:
        if torch.is_autocast_enabled(images.device.type):
            raise BenchError(
                f"'{self.card.name}' is an ONNX graph, which computes in its own precision: leave --precision out"
            )
        fed = self._fed(images)
        names = list(dict.fromkeys(self._outputs.values()))
        given = dict(zip(names, self._run(names, fed, len(images)), strict=True))
        found = {}
        for name, output in self._outputs.items():
            array = given[output]
            if len(array) != len(images):
                raise BenchError(
                    f"output '{output}' of '{self.card.name}' has shape {tuple(array.shape)} for {len(images)} images: "
                    f"its first dimension should count them; choose another with ?output=NAME"
                )
            rows = vectors(array, self._pool if name == "pooled" else None, self._channels_last)
            found[name] = torch.from_numpy(np.ascontiguousarray(rows, dtype=np.float32)).to(images.device)
        return found

    def pyramid(self, images: Tensor) -> list[Tensor]:
        self._refuse("maps")

    def blocks(self, images: Tensor, n: int = 4, norm: bool = True) -> list[tuple[Tensor, Tensor | None]]:
        self._refuse("token blocks")

    def __deepcopy__(self, memo: dict[int, Any]) -> OnnxBackbone:
        # Only a training copies a network.
        self._refuse("gradients")

    def _refuse(self, what: str) -> NoReturn:
        raise BenchError(
            f"'{self.card.name}' is an ONNX graph, a black box without {what}: give the checkpoint that it was "
            f"exported from"
        )

    def _fed(self, images: Tensor) -> np.ndarray:
        """The images [B, ...] in the graph's type and order."""
        array = (images.flip(1) if self._blue_first else images).detach().cpu().numpy()
        if self._dtype is np.uint8:
            array = np.rint(255 * array).clip(0, 255)
        if self._channels_last:
            array = array.transpose(0, 2, 3, 1)
        return np.ascontiguousarray(array, dtype=self._dtype)

    def _run(self, names: list[str], fed: np.ndarray, n: int) -> list[np.ndarray]:
        if self._fixed is None:
            return self._once(names, fed)
        short = -n % self._fixed
        if short:
            fed = np.concatenate([fed, np.repeat(fed[-1:], short, axis=0)])
        parts = [self._once(names, fed[start : start + self._fixed]) for start in range(0, len(fed), self._fixed)]
        return [np.concatenate(columns)[:n] for columns in zip(*parts, strict=True)]

    def _once(self, names: list[str], fed: np.ndarray) -> list[np.ndarray]:
        try:
            given: list[Any] = self.session.run(names, {self._input: fed})
        except Exception as error:  # onnxruntime's have no common base
            if "memory" in str(error).lower() and "alloc" in str(error).lower():
                raise MemoryError(str(error)) from error
            raise BenchError(
                f"onnxruntime cannot run '{self.card.name}' on images {tuple(fed.shape)}: {first_line(error)}"
            ) from error
        for name, array in zip(names, given, strict=True):
            if not isinstance(array, np.ndarray) or array.dtype.kind != "f" or array.ndim < 2:
                what = f"{array.dtype} {array.shape}" if isinstance(array, np.ndarray) else type(array).__name__
                raise BenchError(
                    f"output '{name}' of '{self.card.name}' is {what}, no row of numbers per image: choose another "
                    f"with ?output=NAME"
                )
        return given


def vectors(array: np.ndarray, pool: str | None, channels_last: bool) -> np.ndarray:
    """[B, D] of an output: as it is, the class token or the mean of tokens [B, N, D], or the mean of maps.

    Maps are [B, D, H, W], or [B, H, W, D] of a graph whose input has its channels last. Raises `BenchError` for tokens
    without a ``pool`` of ``cls`` or ``avg``, and for other shapes.
    """
    if array.ndim == 2:
        return array
    if array.ndim == 4:
        flat: np.ndarray = array.mean(axis=(1, 2) if channels_last else (2, 3), dtype=np.float64)
        return flat
    if array.ndim == 3 and pool == "cls":
        return array[:, 0]
    if array.ndim == 3 and pool == "avg":
        mean: np.ndarray = array.mean(axis=1, dtype=np.float64)
        return mean
    if array.ndim == 3:
        raise BenchError(
            f"the graph gives tokens {list(array.shape[1:])} per image: say ?pool=cls (the first) or ?pool=avg (the "
            f"mean of all)"
        )
    raise BenchError(f"the graph gives {list(array.shape[1:])} per image, which is no feature, tokens or map")


def first_line(error: Exception) -> str:
    """What an error of onnxruntime says, on one line of readable length."""
    text = " ".join(str(error).split())
    return "".join(char if char.isprintable() else "?" for char in text)[:300] or type(error).__name__


def shape_of(value: Any) -> list[int | None]:
    """Lengths of an input or output of a session; None for those that are free."""
    lengths: Sequence[Any] = value.shape or ()
    return [one if isinstance(one, int) and one > 0 else None for one in lengths]
