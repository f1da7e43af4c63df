"""Images decoded and transformed in worker processes, ahead of the network."""

from __future__ import annotations

import functools
import math
import mmap
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
from bench.text import printable

if TYPE_CHECKING:
    from PIL import Image

    from bench.card import Transform

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


class Task(NamedTuple):
    """One batch to decode. ``slot``: its place in the shared room, where there is one."""

    indices: Sequence[int]
    slot: int | None = None


class Decoder:
    """The map-style data set that the loader's workers hold: a `Task` becomes a `Decoded` batch.

    ``shape``: what every image has after preprocessing, where that is known beforehand.
    """

    def __init__(
        self,
        dataset: Dataset,
        preprocess: Callable[[Image.Image], Tensor],
        shape: tuple[int, int, int] | None = None,
    ) -> None:
        self.dataset = dataset
        self.preprocess = preprocess
        self.shape = shape
        self.room: Tensor | None = None

    def __len__(self) -> int:
        return len(self.dataset)

    def __getitems__(self, task: Task) -> Decoded:
        start = time.perf_counter()
        indices = task.indices
        batch = self.room[task.slot] if self.room is not None and task.slot is not None else None
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
                    batch = torch.empty((len(indices), *tensor.shape), dtype=torch.float32)
                if tensor.shape != batch.shape[1:]:
                    raise BenchError(
                        f"the images of {self.dataset.name} differ in size after the model's transform "
                        f"({tuple(batch.shape[1:])} and {tuple(tensor.shape)}): it needs a crop or a fixed size"
                    )
                batch[len(kept)] = tensor
                kept.append(index)
        except BenchError as error:
            return Decoded(torch.empty(0), [], [], str(error), time.perf_counter() - start)
        if batch is None or task.slot is not None:
            return Decoded(torch.empty(0), kept, corrupt, "", time.perf_counter() - start)
        return Decoded(batch[: len(kept)], kept, corrupt, "", time.perf_counter() - start)


def _is_unreadable(cause: BaseException | None) -> bool:
    # Pillow's own complaints about a file's content are OSErrors without a number: those are corrupt images.
    return isinstance(cause, OSError) and cause.errno is not None


def _unreadable(path: str, reason: str) -> str:
    return (
        f"{_printable(path)} cannot be read ({_printable(reason)}): was it moved or deleted during the run? "
        f"What was finished is kept; put it back and run the same command again"
    )


def _printable(text: str) -> str:
    return printable(" ".join(str(text).split()))


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


def decode(decoder: Decoder, batches: Iterable[Sequence[int]], *, workers: int, size: int) -> Iterator[Decoded]:
    """The batches (of at most ``size``) in order, decoded by ``workers`` processes (0: in this one, when asked for).

    The images of a batch are valid until the next one is asked for. Raises `BenchError` when an image cannot be read at
    all or a worker process dies.
    """
    if workers == 0:
        for indices in batches:
            yield _checked(decoder.__getitems__(Task(indices)))
        return
    from torch.utils.data import DataLoader

    # Beside the batches that the workers may have in hand: the one given out last, and one to spare.
    slots = workers * AHEAD + 2
    fork = sys.platform == "linux"
    room = _room((slots, size, *decoder.shape)) if fork and decoder.shape is not None else None
    decoder.room = room
    tasks = (Task(indices, i % slots if room is not None else None) for i, indices in enumerate(batches))
    loader: DataLoader[Any] = DataLoader(
        decoder,  # type: ignore[arg-type]
        batch_sampler=tasks,  # type: ignore[arg-type]
        num_workers=workers,
        prefetch_factor=AHEAD,
        collate_fn=_as_it_is,
        worker_init_fn=functools.partial(end_without, os.getpid()),
        # Forked workers start at once and need no pickling; elsewhere the platform's own way.
        multiprocessing_context="fork" if fork else None,
        # The caller's random state is not ours to advance.
        generator=torch.Generator(),
    )
    try:
        for i, decoded in enumerate(loader):
            if room is not None:
                decoded = decoded._replace(images=room[i % slots][: len(decoded.kept)])
            yield _checked(decoded)
    except RuntimeError as error:
        raise explained(error) from error
    finally:
        decoder.room = None


def end_without(parent: int, worker: int) -> None:
    """Called where worker number ``worker`` begins: end it if its parent was killed before it could begin to watch it.

    PyTorch's own watch takes whoever is the parent by then, and the worker would wait for ever.
    """
    if os.getppid() != parent:
        os._exit(1)


def _room(shape: tuple[int, ...]) -> Tensor:
    """float32 memory that forked workers share, used again and again.

    Anonymous, so that the small /dev/shm of a container does not bound it; reused, so that no batch pays page faults.
    """
    return torch.frombuffer(mmap.mmap(-1, 4 * math.prod(shape)), dtype=torch.float32).view(shape)


def output_shape(transform: Transform) -> tuple[int, int, int] | None:
    """[3, H, W] of every image after ``transform``; None when it depends on the image."""
    size = transform.crop
    if size is None and not isinstance(transform.resize, int):
        size = transform.resize
    if size is None or transform.custom is not None:
        return None
    return (3, size, size) if isinstance(size, int) else (3, *size)


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
