"""StoredFeatureSet: one split's features read back from its stores, out of core where asked."""

from __future__ import annotations

import weakref
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Protocol

import numpy as np

from bench.errors import BenchError
from bench.featureset import FeatureSet
from bench.shards import PIECE, Corrupt, DamagedShard, Header

if TYPE_CHECKING:
    from bench.dataset import Dataset


class Shards(Protocol):
    """What holds the features: a `bench.store.FeatureStore`, or memory."""

    @property
    def shards(self) -> int: ...
    def header(self, shard: int) -> Header: ...
    def read(self, shard: int, name: str, rows: slice = slice(None)) -> np.ndarray: ...


class StoredFeatureSet(FeatureSet):
    """Features of the samples of ``dataset`` that could be decoded, in the data set's order.

    ``homes`` says which store holds each name. The stores stay marked as in use as long as this lives.
    """

    def __init__(self, dataset: Dataset, homes: dict[str, Shards]) -> None:
        self._homes = homes
        self._cache: weakref.WeakValueDictionary[str, np.ndarray] = weakref.WeakValueDictionary()
        self.dataset = dataset.name
        self.split = dataset.split
        self.fingerprint = dataset.fingerprint
        self.classes = dict(zip((int(c) for c in dataset.class_ids), dataset.classes, strict=True))
        self.corrupt = self._left_out()
        labels, ids = np.asarray(dataset.labels), dataset.ids
        validation: np.ndarray | None = getattr(dataset, "validation", None)
        if self.corrupt:
            keep = np.ones(len(labels), dtype=bool)
            keep[[bad.sample for bad in self.corrupt]] = False
            labels = labels[keep]
            validation = None if validation is None else validation[keep]
            ids = [ids[int(index)] for index in np.flatnonzero(keep)]
        self.labels = labels
        self.validation = validation
        self.ids: Sequence[str] = ids
        self.widths = {name: self._width(name) for name in homes}

    def array(self, name: str) -> np.ndarray:
        """float32 [N, D], contiguous, read-only; kept only as long as somebody uses it."""
        found = self._cache.get(name)
        if found is None:
            width = self._home(name, self.widths)[1]
            found = np.empty((len(self), width), dtype=np.float32)
            for start, part in self._parts(name, max(1, PIECE // max(1, 4 * width))):
                found[start : start + len(part)] = part
            found.flags.writeable = False
            self._cache[name] = found
        return found

    def blocks(self, name: str, rows: int) -> Iterator[tuple[int, np.ndarray]]:
        """(first row, float32 [<= rows, D]) in order, read from the shards as they are asked for."""
        cached = self._cache.get(name)
        if cached is not None:
            for start in range(0, len(cached), rows):
                yield start, cached[start : start + rows]
            return
        held: list[np.ndarray] = []
        first, waiting = 0, 0
        for _, part in self._parts(name, rows):
            while len(part):
                take = part[: rows - waiting]
                held.append(take)
                waiting += len(take)
                part = part[len(take) :]
                if waiting == rows:
                    yield first, held[0] if len(held) == 1 else np.concatenate(held)
                    first, waiting, held = first + rows, 0, []
        if held:
            yield first, held[0] if len(held) == 1 else np.concatenate(held)

    def _home(self, name: str, widths: dict[str, int]) -> tuple[Shards, int]:
        if name not in self._homes:
            raise BenchError(f"feature '{name}' was not extracted; there are: {', '.join(sorted(self._homes))}")
        return self._homes[name], widths[name]

    def _parts(self, name: str, rows: int | None = None) -> Iterator[tuple[int, np.ndarray]]:
        """(first row, rows) shard by shard, at most ``rows`` at a time."""
        home, _ = self._home(name, self.widths)
        first = 0
        for shard in range(home.shards):
            count = home.header(shard).rows
            step = rows or count or 1
            for start in range(0, count, step):
                try:
                    part = home.read(shard, name, slice(start, min(start + step, count)))
                except DamagedShard as error:
                    raise BenchError(f"a stored feature was damaged while in use ({error}): run again") from error
                yield first + start, part
            first += count

    def _left_out(self) -> list[Corrupt]:
        lists = []
        for home in {id(home): home for home in self._homes.values()}.values():
            lists.append([bad for shard in range(home.shards) for bad in home.header(shard).corrupt])
        if any([bad.sample for bad in other] != [bad.sample for bad in lists[0]] for other in lists):
            raise BenchError(
                f"two stores of {self.dataset} {self.split} disagree on which images are corrupt: "
                f"remove them with `bench clean` and run again"
            )
        return lists[0]

    def _width(self, name: str) -> int:
        home = self._homes[name]
        for shard in range(home.shards):
            header = home.header(shard)
            if header.rows:
                return header.arrays[name].shape[1]
        return 0
