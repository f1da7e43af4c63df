"""Images decoded and transformed in worker processes, ahead of the network."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from torch import Tensor

from bench.dataset import Dataset, DecodeError
from bench.errors import BenchError
from bench.shards import Corrupt

if TYPE_CHECKING:
    from PIL import Image

VARIABLE = "BENCH_WORKERS"
AHEAD = 2
"""Batches that each worker prepares ahead."""


class Decoded(NamedTuple):
    """One batch: float32 [B, 3, H, W] of the images that could be decoded, and what became of the others."""

    images: Tensor
    kept: list[int]
    corrupt: list[Corrupt]
    refusal: str
    """Why the run cannot go on (a file that cannot be read at all), or the empty string."""
    seconds: float
    """What decoding took, in whichever process."""


class Decoder:
    """The map-style data set that the loader's workers hold: a list of indices becomes a `Decoded` batch."""

    def __init__(self, dataset: Dataset, preprocess: Callable[[Image.Image], Tensor]) -> None:
        self.dataset = dataset
        self.preprocess = preprocess

    def __len__(self) -> int:
        return len(self.dataset)

    def __getitem__(self, index: int) -> Decoded:
        return self.__getitems__([index])

    def __getitems__(self, indices: Sequence[int]) -> Decoded:
        start = time.perf_counter()
        batch: Tensor | None = None
        kept: list[int] = []
        corrupt: list[Corrupt] = []
        try:
            for index in indices:
                try:
                    image = self.dataset.image(index)
                except DecodeError as error:
                    if _is_unreadable(error.__cause__ or error.__context__):
                        raise BenchError(_unreadable(error.path, error.reason)) from error
                    corrupt.append(Corrupt(index, _printable(error.path), _printable(error.reason)))
                    continue
                except OSError as error:
                    raise BenchError(_unreadable(self.dataset.ids[index], str(error))) from error
                tensor = self.preprocess(image)
                if batch is None:
                    batch = _room(len(indices), tensor)
                if tensor.shape != batch.shape[1:]:
                    raise BenchError(
                        f"the images of {self.dataset.name} differ in size after the model's transform "
                        f"({tuple(batch.shape[1:])} and {tuple(tensor.shape)}): it needs a crop or a fixed size"
                    )
                batch[len(kept)] = tensor
                kept.append(index)
        except BenchError as error:
            return Decoded(torch.empty(0), [], [], str(error), time.perf_counter() - start)
        images = batch[: len(kept)] if batch is not None else torch.empty(0)
        return Decoded(images, kept, corrupt, "", time.perf_counter() - start)


def _room(count: int, like: Tensor) -> Tensor:
    """An empty batch; in a worker it lies in shared memory from the start, which saves a copy."""
    batch = torch.empty((count, *like.shape), dtype=torch.float32)
    if torch.utils.data.get_worker_info() is not None:
        batch.share_memory_()  # type: ignore[no-untyped-call]
    return batch


def _is_unreadable(cause: BaseException | None) -> bool:
    # Pillow's own complaints about a file's content are OSErrors without a number: those are corrupt images.
    return isinstance(cause, OSError) and cause.errno is not None


def _unreadable(path: str, reason: str) -> str:
    return (
        f"{_printable(path)} cannot be read ({_printable(reason)}): was it moved or deleted during the run? "
        f"What was finished is kept; put it back and run the same command again"
    )


def _printable(text: str) -> str:
    # File names may hold bytes that are no UTF-8.
    return " ".join(str(text).encode("utf-8", "backslashreplace").decode().split())


def default_workers(device: torch.device) -> int:
    """Worker processes when nobody says: ``$BENCH_WORKERS``, else by the processors this process may use."""
    given = os.environ.get(VARIABLE)
    if given:
        if not given.isdigit():
            raise BenchError(f"{VARIABLE}={given} is no number of worker processes")
        return int(given)
    processors = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    if processors == 1:
        return 0
    # On a CPU the network itself wants the processors.
    return min(16, processors - 1) if device.type == "cuda" else min(8, max(1, processors // 2))


def decode(decoder: Decoder, batches: Iterable[Sequence[int]], *, workers: int, pin: bool) -> Iterator[Decoded]:
    """The batches in order, decoded by ``workers`` processes (0: in this one, when asked for).

    Raises `BenchError` when an image cannot be read at all or a worker process dies.
    """
    if workers == 0:
        for indices in batches:
            yield _checked(decoder.__getitems__(indices))
        return
    from torch.utils.data import DataLoader

    loader: DataLoader[Any] = DataLoader(
        decoder,  # type: ignore[arg-type]
        batch_sampler=batches,  # type: ignore[arg-type]
        num_workers=workers,
        prefetch_factor=AHEAD,
        collate_fn=_as_it_is,
        pin_memory=pin,
        # Forked workers start at once and need no pickling; elsewhere the platform's own way.
        multiprocessing_context="fork" if sys.platform == "linux" else None,
        # The caller's random state is not ours to advance.
        generator=torch.Generator(),
    )
    try:
        for decoded in loader:
            yield _checked(decoded)
    except RuntimeError as error:
        raise explained(error) from error


def explained(error: RuntimeError) -> Exception:
    """The sentence for a dead worker process; any other error as it is."""
    if "DataLoader worker" not in str(error):
        return error
    return BenchError(
        "a process that decodes images died (killed, or out of memory or shared memory); what was finished is kept: "
        "run the same command again, with fewer --workers or --workers 0"
    )


def _checked(decoded: Decoded) -> Decoded:
    if decoded.refusal:
        raise BenchError(decoded.refusal)
    return decoded


def _as_it_is(decoded: Any) -> Any:
    return decoded
