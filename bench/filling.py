"""Filling: the shards that a store lacks, made by forwarding the samples of each through the network."""

from __future__ import annotations

import itertools
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
import torch
from torch import Tensor

from bench.device import Precision, forward_mode, is_out_of_memory, synchronize
from bench.errors import BenchError
from bench.loader import Decoder, decode, explained, output_shape
from bench.modality import noun_of
from bench.outputs import outputs
from bench.shards import Corrupt

if TYPE_CHECKING:
    from bench.backbone import Backbone
    from bench.dataset import Dataset
    from bench.progress import Progress, Stage

POLL = 0.2
"""Seconds between looks at shards that other processes make."""
BEHIND = 2
"""Shards that may wait for the disk while the network goes on."""


class Store(Protocol):
    """What is filled: `bench.store.FeatureStore` or `bench.memorystore.MemoryStore`."""

    @property
    def n(self) -> int: ...
    @property
    def batch(self) -> int: ...
    def span(self, shard: int) -> tuple[int, int]: ...
    def missing(self) -> list[int]: ...
    def claim(self, shard: int) -> bool: ...
    def release(self, shard: int) -> None: ...
    def lower_batch(self, batch: int) -> None: ...
    def write(
        self, shard: int, arrays: Mapping[str, np.ndarray], corrupt: Sequence[Corrupt], made: Mapping[str, Any]
    ) -> None: ...


@dataclass
class Tally:
    """Seconds by stage and images decoded by this process."""

    decode: float = 0.0
    forward: float = 0.0
    wait: float = 0.0
    write: float = 0.0
    decoded: int = 0


@dataclass
class _Shard:
    """A shard in the making."""

    number: int
    left: int
    """Batches to come."""
    parts: list[dict[str, Tensor]] = field(default_factory=list)
    kept: list[int] = field(default_factory=list)
    corrupt: list[Corrupt] = field(default_factory=list)


class Filling:
    """Makes the missing shards of one store, sharing the work with any other process that does the same.

    Every shard is cut into the same batches wherever a run begins, so a resumed run repeats the bits of an undisturbed
    one. ``rank`` of ``world`` begins with its own part and then helps the others.
    """

    def __init__(
        self,
        backbone: Backbone,
        dataset: Dataset,
        *,
        device: torch.device,
        precision: Precision,
        workers: int,
        progress: Progress,
        rank: int = 0,
        world: int = 1,
        refuse: Callable[[list[Corrupt]], None],
    ) -> None:
        self.backbone = backbone
        self.dataset = dataset
        self.names: tuple[str, ...] = ()
        self.device = device
        self.precision = precision
        self.workers = workers
        self.progress = progress
        self.rank, self.world = rank, world
        self.refuse = refuse
        self.tally = Tally()
        self.corrupt: list[Corrupt] = []
        self._decoder = decoder(backbone, dataset)
        self._claimed: set[int] = set()

    def fill(self, store: Store, names: Sequence[str]) -> None:
        """Return when every shard is there with these ``names``, whoever made it.

        Raises `BenchError`; finished shards are kept whatever happens.
        """
        self.names = tuple(names)
        missing = store.missing()
        if not missing:
            return
        with self.progress.stage(
            f"extract {self.dataset.name} {self.dataset.split}", store.n, noun_of(self.dataset)
        ) as stage:
            stage.skip(store.n - _samples(store, missing))
            while missing:
                made = self._pass(store, missing, stage)
                if not made:
                    time.sleep(POLL)
                left = store.missing()
                stage.skip(_samples(store, set(missing) - set(left) - made))
                stage.advance(0, note="the rest is being made by another process" if left and not made else "")
                missing = left

    def _pass(self, store: Store, missing: list[int], stage: Stage) -> set[int]:
        """Make all shards that nobody else is making; returns them."""
        mine = [shard for shard in missing if shard % self.world == self.rank]
        claims = self._claims(store, mine + [shard for shard in missing if shard % self.world != self.rank])
        first = next(claims, None)
        if first is None:
            return set()
        size = store.batch
        plan: deque[_Shard] = deque()
        batches = self._batches(store, itertools.chain([first], claims), plan, size)
        # A worker costs more to start than a few batches take.
        few = _samples(store, missing) <= 2 * size
        made: set[int] = set()
        pending: deque[tuple[Future[None], _Shard]] = deque()
        writer = ThreadPoolExecutor(1, thread_name_prefix="bench-write")
        stream = decode(self._decoder, batches, workers=0 if few else self.workers, size=size)
        try:
            while True:
                start = time.perf_counter()
                decoded = next(stream, None)
                self.tally.wait += time.perf_counter() - start
                if decoded is None:
                    break
                self.tally.decode += decoded.seconds
                self.tally.decoded += len(decoded.kept)
                shard = plan[0]
                shard.kept += decoded.kept
                shard.corrupt += decoded.corrupt
                if decoded.corrupt:
                    self.corrupt += decoded.corrupt
                    self.refuse(self.corrupt)
                if decoded.kept:
                    shard.parts.append(self._forward(store, decoded.images))
                stage.advance(len(decoded.kept) + len(decoded.corrupt))
                shard.left -= 1
                if shard.left == 0:
                    plan.popleft()
                    arrays = self._gather(shard)
                    pending.append((writer.submit(self._write, store, shard, arrays), shard))
                    made.add(shard.number)
                while len(pending) > BEHIND or (pending and pending[0][0].done()):
                    pending.popleft()[0].result()
            while pending:
                pending.popleft()[0].result()
        except RuntimeError as error:
            # A worker's death may be reported anywhere: torch raises it from a signal handler.
            raise explained(error) from error
        finally:
            writer.shutdown(wait=True)
            stream.close()  # type: ignore[attr-defined]
            for number in list(self._claimed):
                store.release(number)
            self._claimed.clear()
        return made

    def _claims(self, store: Store, shards: Sequence[int]) -> Iterator[int]:
        for shard in shards:
            if store.claim(shard):
                self._claimed.add(shard)
                yield shard

    def _batches(self, store: Store, claims: Iterator[int], plan: deque[_Shard], size: int) -> Iterator[Sequence[int]]:
        """The index lists of the shards claimed, which are claimed only as the workers get to them."""
        for number in claims:
            start, stop = store.span(number)
            plan.append(_Shard(number, left=-(-(stop - start) // size)))
            for first in range(start, stop, size):
                yield range(first, min(first + size, stop))

    def _forward(self, store: Store, images: Tensor) -> dict[str, Tensor]:
        """Features of one batch; when memory runs out, in halves, and the smaller size is kept from here on."""
        start = time.perf_counter()
        while True:
            size = store.batch
            try:
                with forward_mode(self.device, self.precision):
                    parts = [
                        outputs(self.backbone, part.to(self.device), self.names) for part in torch.split(images, size)
                    ]
                    found = parts[0] if len(parts) == 1 else _joined(parts, self.names)
                self.tally.forward += time.perf_counter() - start
                return found
            except (RuntimeError, MemoryError) as error:
                if not is_out_of_memory(error):
                    raise
                if size == 1:
                    raise BenchError(
                        f"'{self.backbone.card.name}' does not fit into the memory of {self.device} with a single "
                        f"image: use a smaller input, --precision bf16, or another device"
                    ) from error
            # Outside of the handler, whose traceback would keep the tensors alive.
            parts = []
            if self.device.type == "cuda":
                torch.cuda.empty_cache()
            # A divisor, so that the batches of a resumed run fall where these do.
            store.lower_batch(max(part for part in range(1, size // 2 + 1) if size % part == 0))
            self.progress.warn(f"memory ran out with {size} images at once: going on with {store.batch}")

    def _gather(self, shard: _Shard) -> dict[str, np.ndarray]:
        """The shard's arrays on the host; refused when a feature is not finite."""
        start = time.perf_counter()
        arrays = {name: t.cpu().numpy() for name, t in _joined(shard.parts, self.names).items()} if shard.parts else {}
        shard.parts.clear()
        synchronize(self.device)
        self.tally.forward += time.perf_counter() - start
        for name, array in arrays.items():
            if np.isfinite(array).all():
                continue
            bad = np.flatnonzero(~np.isfinite(array).all(axis=1))
            raise BenchError(
                f"{len(bad)} of the {len(array)} features of samples {shard.kept[0]} to {shard.kept[-1]} of "
                f"{self.dataset.name} {self.dataset.split} are NaN or infinite, first '{name}' of sample "
                f"{self.dataset.ids[shard.kept[bad[0]]]}: the weights of '{self.backbone.card.name}' are broken, or "
                f"{self.precision} is too narrow for them"
            )
        return arrays

    def _write(self, store: Store, shard: _Shard, arrays: dict[str, np.ndarray]) -> None:
        start = time.perf_counter()
        store.write(shard.number, arrays, shard.corrupt, self._made())
        self._claimed.discard(shard.number)
        self.tally.write += time.perf_counter() - start

    def _made(self) -> dict[str, Any]:
        name = torch.cuda.get_device_name(self.device) if self.device.type == "cuda" else "cpu"
        return {"device": name, "threads": torch.get_num_threads(), "torch": torch.__version__}


def decoder(backbone: Backbone, dataset: Dataset) -> Decoder:
    """Decoding and the backbone's own preprocessing, without the network where it does not need it."""
    import functools

    from bench.backbone import Backbone as Base
    from bench.transform import apply

    if type(backbone).preprocess is Base.preprocess:
        if backbone.card.transform is None:
            raise BenchError(f"'{backbone.card.name}' has no image transform: it cannot be run on images")
        transform = backbone.card.transform
        return Decoder(dataset, functools.partial(apply, transform), output_shape(transform))
    return Decoder(dataset, backbone.preprocess)


def _joined(parts: Sequence[dict[str, Tensor]], names: Sequence[str]) -> dict[str, Tensor]:
    return {name: torch.cat([part[name] for part in parts]) for name in names}


def _samples(store: Store, shards: Sequence[int] | set[int]) -> int:
    return sum(stop - start for start, stop in map(store.span, shards))
