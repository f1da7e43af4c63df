"""ELPV: 2 624 photos of solar cells by electroluminescence, functional or defective (Buerhop-Lutz et al. 2018)."""

from __future__ import annotations

import math
from importlib.util import find_spec
from pathlib import Path

import numpy as np

from bench.data.files import FileDataset
from bench.data.holdout import HOLDOUT, held_out
from bench.data.opening import data_folders, not_found
from bench.dataset import Splits
from bench.errors import BenchError
from bench.files import regular

CLASSES = ("functional", "defective")
_LARGEST = 2**24


def open_elpv(rest: str) -> Splits:
    """``$BENCH_DATA/elpv`` (``labels.csv``, ``images/``), or the installed package elpv-dataset (its code is not run).

    The published grade is the probability of a defect, 0, 1/3, 2/3 or 1: a cell counts as defective from 1/2 up. There
    is no published division: a fifth is held out by file name. Raises `BenchError` for a set that is not there, and for
    a list that is not the published one.
    """
    if rest:
        raise BenchError("'elpv' is looked up under $BENCH_DATA and takes no path: link $BENCH_DATA/elpv to it")
    looked = data_folders("elpv")
    spec = find_spec("elpv_dataset")
    installed = [Path(place) / "data" for place in (spec.submodule_search_locations or [] if spec is not None else [])]
    for root in [*looked, *installed]:
        if (root / "labels.csv").is_file():
            return _splits(root)
    raise not_found("elpv", looked, "set $BENCH_DATA and put labels.csv and images/ there, or pip install elpv-dataset")


def _splits(root: Path) -> Splits:
    path = root / "labels.csv"
    try:
        if regular(path).st_size > _LARGEST:
            raise BenchError(f"elpv: {path} is larger than {_LARGEST >> 20} MiB: it is not the published list")
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise BenchError(f"elpv: {path} cannot be read ({error})") from None
    rows: dict[str, int] = {}
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        parts = line.replace(",", " ").split()
        grade = _grade(parts[1]) if len(parts) >= 2 else math.nan
        if not 0 <= grade <= 1:
            raise BenchError(f"elpv: line {number} of {path} is no image and probability of a defect")
        if parts[0] in rows:
            raise BenchError(f"elpv: line {number} of {path} names {parts[0]} again")
        rows[parts[0]] = int(grade >= 0.5)
    if not rows:
        raise BenchError(f"elpv: {path} names no images")
    paths = sorted(rows)
    whole = FileDataset("elpv", "train", root, paths, [rows[name] for name in paths], CLASSES)
    held = np.array([held_out(name) for name in paths])
    return Splits(whole.part("train", np.flatnonzero(~held)), whole.part(HOLDOUT, np.flatnonzero(held)))


def _grade(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        return math.nan
