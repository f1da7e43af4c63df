"""MemoryStore: the shards of a live module's features, in memory; gone when the evaluation is."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from bench.shards import Array, Corrupt, Header


class MemoryStore:
    """What `bench.store.FeatureStore` is on disk, for one process and one evaluation."""

    def __init__(self, n: int, *, batch: int, shard: int) -> None:
        self.n = n
        self.batch = batch
        self.shard = shard
        self._headers: dict[int, Header] = {}
        self._arrays: dict[int, dict[str, np.ndarray]] = {}

    @property
    def shards(self) -> int:
        return -(-self.n // self.shard)

    def span(self, shard: int) -> tuple[int, int]:
        return shard * self.shard, min((shard + 1) * self.shard, self.n)

    def missing(self) -> list[int]:
        return [shard for shard in range(self.shards) if shard not in self._headers]

    def claim(self, shard: int) -> bool:
        return shard not in self._headers

    def release(self, shard: int) -> None:
        pass

    def lower_batch(self, batch: int) -> None:
        self.batch = batch

    def write(
        self, shard: int, arrays: Mapping[str, np.ndarray], corrupt: Sequence[Corrupt], made: Mapping[str, Any]
    ) -> None:
        start, stop = self.span(shard)
        described = {name: Array(sha256="", shape=array.shape) for name, array in arrays.items()}
        self._arrays[shard] = dict(arrays)
        self._headers[shard] = Header(
            store="memory",
            start=start,
            stop=stop,
            corrupt=list(corrupt),
            arrays=described,
            batch=self.batch,
            made=dict(made),
        )

    def header(self, shard: int) -> Header:
        return self._headers[shard]

    def read(self, shard: int, name: str, rows: slice = slice(None)) -> np.ndarray:
        return self._arrays[shard][name][rows]
