"""Finding architectures by the names and shapes of a checkpoint's tensors.

Every timm architecture is kept as a bottom-k sketch (the k smallest hashes of its ``name:shape`` strings; Broder, "On
the resemblance and containment of documents", 1997), so that a thousand architectures are compared in milliseconds and
only the few best are built. ``python -m adapters.sketch`` makes the table again for the installed timm.
"""

from __future__ import annotations

import functools
import hashlib
import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import numpy as np

from adapters.heads import is_head

SIZE = 24
_TABLE = Path(__file__).with_name("architectures.npz")
# Shapes that depend on the input size, not on the architecture.
_SIZED = re.compile(r"pos_embed\w*|relative_position_bias_table|rel_pos_[hw]|relative_position_index|attn_mask")


def hashes(shapes: Mapping[str, Sequence[int]]) -> np.ndarray:
    """uint32 [N], ascending: one per tensor; known heads, counters and size-dependent shapes play no part."""
    values = []
    for name, shape in shapes.items():
        last = name.rpartition(".")[2]
        if is_head(name) or last == "num_batches_tracked" or last == "relative_position_index":
            continue
        text = name if _SIZED.fullmatch(last) else f"{name}:{','.join(map(str, shape))}"
        values.append(int.from_bytes(hashlib.blake2s(text.encode(), digest_size=4).digest(), "little"))
    return np.unique(np.array(values, dtype=np.uint32))


def nearest(shapes: Mapping[str, Sequence[int]], n: int = 8) -> list[tuple[str, float]]:
    """The ``n`` timm architectures most like ``shapes``, best first, each with its estimated resemblance in [0, 1]."""
    own = hashes(shapes)
    if not len(own):
        return []
    names, sketches, counts = _table()
    # Resemblance: among the k smallest hashes of the union, the share that both have.
    both = np.isin(sketches, own)
    limit = np.where(counts > SIZE, sketches[:, -1].astype(np.int64), np.iinfo(np.uint32).max)
    limit = np.minimum(limit, int(own[SIZE - 1]) if len(own) > SIZE else np.iinfo(np.uint32).max)
    inside = (sketches <= limit[:, None]) & (np.arange(SIZE) < counts[:, None])
    shared = (both & inside).sum(1)
    union = inside.sum(1) + np.searchsorted(own, limit, side="right") - shared
    score = shared / np.maximum(union, 1)
    # Equal sketches: the architecture of equal tensor count first, then the plainest (shortest) name.
    order = sorted(
        range(len(names)), key=lambda i: (-score[i], abs(int(counts[i]) - len(own)), len(names[i]), names[i])
    )
    return [(names[i], float(score[i])) for i in order[:n] if score[i] > 0]


@functools.cache
def _table() -> tuple[list[str], np.ndarray, np.ndarray]:
    with np.load(_TABLE, allow_pickle=False) as file:
        return file["names"].tolist(), file["sketches"], file["counts"]


def make(shapes: Iterable[tuple[str, Mapping[str, Sequence[int]]]], path: Path = _TABLE) -> None:
    """Write the table for (architecture, names and shapes of its tensors) pairs."""
    rows = [(name, hashes(tensors)) for name, tensors in shapes]
    sketches = np.full((len(rows), SIZE), np.iinfo(np.uint32).max, dtype=np.uint32)
    for row, (_, values) in zip(sketches, rows, strict=True):
        row[: len(values)] = values[:SIZE]
    np.savez_compressed(
        path, names=np.array([n for n, _ in rows]), sketches=sketches, counts=np.array([len(v) for _, v in rows])
    )


def add(names: Iterable[str], path: Path = _TABLE) -> None:
    """Put architectures into the table that is there, in place of their rows if they have any."""
    from adapters.architecture import Architecture

    known, sketches, counts = _table()
    fresh = {name: hashes(Architecture(name).outline().needed) for name in names}
    kept = [i for i, name in enumerate(known) if name not in fresh]
    rows = np.full((len(fresh), SIZE), np.iinfo(np.uint32).max, dtype=np.uint32)
    for row, values in zip(rows, fresh.values(), strict=True):
        row[: len(values)] = values[:SIZE]
    np.savez_compressed(
        path,
        names=np.array([known[i] for i in kept] + list(fresh)),
        sketches=np.concatenate([sketches[kept], rows]),
        counts=np.array([int(counts[i]) for i in kept] + [len(v) for v in fresh.values()]),
    )


def main() -> None:
    """Make the table for the installed timm (minutes)."""
    import timm

    from adapters.architecture import Architecture
    from adapters.networks import TABLE
    from bench.errors import BenchError

    def outlines() -> Iterable[tuple[str, Mapping[str, Sequence[int]]]]:
        for name in [*timm.list_models(), *TABLE]:
            try:
                yield name, Architecture(name).outline().needed
            except BenchError:  # a few need libraries that are not installed
                continue

    make(outlines())


if __name__ == "__main__":
    main()
