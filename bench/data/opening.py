"""From a SPEC of data to its splits; and the part of a data set that ``--limit`` takes."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np

from bench.data.subset import Subset
from bench.dataset import Dataset, Splits
from bench.errors import BenchError
from bench.files import at_home
from bench.modality import noun_of
from bench.registry import nearest, resolve, table


def open_data(spec: str) -> Splits:
    """The splits behind ``spec``: a name (``demo``, ``fashion-mnist``) or ``kind:PATH`` (``imagefolder:/data/mine``).

    Raises `BenchError` for an unknown kind, and for data that are not there (saying where it looked).
    """
    kind, _, rest = spec.partition(":")
    kinds = table("datasets")
    if kind not in kinds:
        if at_home(spec).exists():
            raise BenchError(
                f"--data {spec} is a path without its kind: write imagefolder:{spec} for a folder per class"
            )
        raise BenchError(f"unknown data '{kind}'{nearest(kind, list(kinds))} (or kind:PATH, as in imagefolder:PATH)")
    try:
        splits: Splits = resolve("datasets", kind)(rest)
    except OSError as error:
        raise BenchError(f"--data {spec[:120]} cannot be read: {error.strerror or error}") from None
    except UnicodeDecodeError as error:
        raise BenchError(f"--data {spec} has a list or an annotation that is not UTF-8 text ({error})") from None
    except OverflowError:
        raise BenchError(f"--data {spec} has a class number beyond 64 bits: number the classes from 0") from None
    for split in splits:
        if len(split) == 0:
            raise BenchError(f"--data {spec}: the split '{split.split}' holds no {noun_of(split)}")
    return splits


def data_folders(name: str) -> list[Path]:
    """Where the named set may be: ``$BENCH_DATA/<name>``; none when the variable is not set."""
    root = os.environ.get("BENCH_DATA")
    return [at_home(root) / name] if root else []


def not_found(name: str, looked: list[Path], provide: str) -> BenchError:
    """The refusal of a named set that is not there: every place looked at, and how to provide it."""
    places = ", ".join(str(path) for path in looked) or "nowhere, for $BENCH_DATA is not set"
    return BenchError(f"the data set '{name}' is not here (looked in {places}): {provide}")


def limited(dataset: Dataset, n: int) -> Dataset:
    """``n`` samples of ``dataset`` spread over its classes in proportion, or the whole when it has no more.

    Deterministic: within a class the samples are taken at even distances, and the order of the data set is kept.
    """
    if n < 1:
        raise BenchError(f"--limit {n} leaves no {noun_of(dataset)}: give a number of at least 1")
    if n >= len(dataset):
        return dataset
    if dataset.labels.ndim > 1:
        # Samples of a multi-label set belong to no single class.
        return Subset(dataset, _spread(len(dataset), n))
    _, labels, counts = np.unique(dataset.labels, return_inverse=True, return_counts=True)
    # Largest remainder: the quotas add up to n, and no class is off its share by one or more.
    exact = counts * (n / len(labels))
    quota = np.floor(exact).astype(int)
    order = np.argsort(-(exact - quota), kind="stable")
    quota[order[: n - quota.sum()]] += 1
    members = np.split(np.argsort(labels, kind="stable"), np.cumsum(counts)[:-1])
    chosen = [own[_spread(len(own), q)] for own, q in zip(members, quota, strict=True)]
    return Subset(dataset, np.sort(np.concatenate(chosen)))


def _spread(count: int, n: int) -> np.ndarray:
    """``n`` of ``count`` positions at even distances, ascending."""
    return (np.arange(n) * count) // max(n, 1)
