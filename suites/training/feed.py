"""Pieces of batches, each sample made under a seed of its own, ahead of the network in worker processes."""

from __future__ import annotations

import functools
import os
import random
import sys
from collections.abc import Callable, Generator, Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple, Protocol

import numpy as np
import torch
from torch import Tensor

from bench.errors import BenchError
from bench.loader import end_without, explained
from suites.training.length import Length
from suites.training.order import Order, draw_seed

Collate = Callable[[list[Any]], Any]


class Samples(Protocol):
    """What is learned from. Cheap to hand to worker processes."""

    def __len__(self) -> int: ...

    def __getitem__(self, index: int, /) -> Any: ...


class Draw(NamedTuple):
    """One sample of one batch."""

    sample: int
    seed: int


class _Seeded:
    """The map-style data set of the loader: a list of draws becomes a batch, or the sentence of a refusal."""

    def __init__(self, samples: Samples, collate: Collate) -> None:
        self.samples = samples
        self.collate = collate

    def __getitems__(self, draws: list[Draw]) -> Any:
        try:
            made = []
            with own_randomness(cuda=False):
                for draw in draws:
                    seed_all(draw.seed, cuda=False)
                    made.append(self.samples[draw.sample])
            return self.collate(made)
        except BenchError as error:
            # An exception of a worker would come back as a RuntimeError with a traceback for a text.
            return _Refusal(str(error))


class _Refusal(NamedTuple):
    sentence: str


def feed(
    samples: Samples,
    order: Order,
    pieces: list[range],
    iterations: range,
    *,
    collate: Collate | None = None,
    workers: int = 0,
    pin: bool = False,
) -> Generator[Any, None, None]:
    """The batches of ``pieces`` of every one of ``iterations``, in order."""
    from torch.utils.data import default_collate

    seeded = _Seeded(samples, collate or default_collate)
    tasks = (draws(order, iteration, piece) for iteration in iterations for piece in pieces)
    if workers == 0:
        for task in tasks:
            yield _checked(seeded.__getitems__(task))
        return
    from torch.utils.data import DataLoader

    loader: DataLoader[Any] = DataLoader(
        seeded,  # type: ignore[arg-type]
        batch_sampler=tasks,
        num_workers=workers,
        collate_fn=_as_it_is,
        pin_memory=pin,
        multiprocessing_context="fork" if sys.platform == "linux" else None,
        worker_init_fn=functools.partial(end_without, os.getpid()),
        generator=torch.Generator(),
    )
    try:
        for batch in loader:
            yield _checked(batch)
    except RuntimeError as error:
        raise explained(error) from error


def draws(order: Order, iteration: int, piece: range) -> list[Draw]:
    """The samples at the places ``piece`` of one batch."""
    indices = order.batch(iteration)
    return [Draw(int(indices[place]), draw_seed(order.seed, iteration, place)) for place in piece]


def made(samples: Samples, order: Order, length: Length, count: int, collate: Collate | None = None) -> Any:
    """The first ``count`` samples of the first batch, as the feed makes them."""
    return next(feed(samples, order, [range(min(count, length.batch))], range(1), collate=collate))


def seed_all(seed: int, *, cuda: bool = True) -> None:
    """Every random state that a transform or a layer may draw from; ``cuda``: the GPUs' too."""
    random.seed(seed)
    np.random.seed(seed)
    if cuda:
        torch.manual_seed(seed)
    else:
        torch.default_generator.manual_seed(seed)


@contextmanager
def own_randomness(*, cuda: bool = True) -> Iterator[None]:
    """Random states (with ``cuda`` the GPUs' too) are at the end what they were."""
    states = (random.getstate(), np.random.get_state(), torch.get_rng_state())
    gpus = torch.cuda.get_rng_state_all() if cuda and torch.cuda.is_initialized() else None  # type: ignore[no-untyped-call]
    try:
        yield
    finally:
        random.setstate(states[0])
        np.random.set_state(states[1])
        torch.set_rng_state(states[2])
        if gpus is not None:
            torch.cuda.set_rng_state_all(gpus)


def to_device(batch: Any, device: torch.device) -> Any:
    """Every tensor in nested tuples, lists and dictionaries on ``device``."""
    if isinstance(batch, Tensor):
        return batch.to(device, non_blocking=True)
    if isinstance(batch, dict):
        return {key: to_device(value, device) for key, value in batch.items()}
    if isinstance(batch, tuple) and hasattr(batch, "_fields"):
        return type(batch)(*(to_device(value, device) for value in batch))
    if isinstance(batch, list | tuple):
        return type(batch)(to_device(value, device) for value in batch)
    return batch


def _checked(batch: Any) -> Any:
    if isinstance(batch, _Refusal):
        raise BenchError(batch.sentence)
    return batch


def _as_it_is(batch: Any) -> Any:
    return batch
