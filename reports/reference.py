"""Published values of released checkpoints, and whether a measured number reproduces one.

`published/reference.csv` has a row per value: the released file and its address, the protocol it was published under,
the data set and its number of test samples, the value and the two-sided tolerance of a re-evaluation, and the source.
A number that is too good is as wrong as one that is too bad.
"""

from __future__ import annotations

import csv
import functools
import os
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path, PurePath
from typing import TYPE_CHECKING, Any

from bench.errors import BenchError
from bench.registry import nearest
from reports.wording import digits

if TYPE_CHECKING:
    from bench.card import Card
    from bench.record import Measurement, Record


@dataclass(frozen=True)
class Reference:
    """One published value."""

    name: str
    title: str
    file: str
    """Name of the released file; empty where none was released in a form that is read here."""
    address: str
    architecture: str
    layout: str
    protocol: str
    dataset: str
    n: int
    """Test samples that the value was published on."""
    metric: str
    setting: str
    """``k=20``; empty for the headline."""
    value: float
    tolerance: float
    source: str

    @property
    def suite(self) -> str:
        return self.protocol.partition("/")[0]


@dataclass(frozen=True)
class Verdict:
    """A measured number beside the published one."""

    reference: Reference
    value: float

    @property
    def off(self) -> float:
        return self.value - self.reference.value

    @property
    def reproduced(self) -> bool:
        # Published values are printed to one or two decimals: a difference equal to the tolerance is within it.
        return abs(self.off) <= self.reference.tolerance + 1e-9

    def __str__(self) -> str:
        return "reproduced" if self.reproduced else f"off by {self.off:+.{digits('%')}f}"


@functools.cache
def references() -> tuple[Reference, ...]:
    """Every row of the table, in its order."""
    text = files("reports").joinpath("published", "reference.csv").read_text(encoding="utf-8")
    types: dict[str, Any] = {"n": int, "value": float, "tolerance": float}
    return tuple(
        Reference(**{key: types.get(key, str)(value) for key, value in row.items()})
        for row in csv.DictReader(text.splitlines())
    )


def listing() -> list[dict[str, str]]:
    """A row per released model, for ``bench list models``."""
    found = []
    for name in dict.fromkeys(r.name for r in references()):
        mine = [r for r in references() if r.name == name]
        values = ", ".join(f"{r.protocol} {r.metric} {r.value:g}" for r in mine)
        where = mine[0].address or mine[0].file or "no released file"
        found.append({"model": name, "what": f"{mine[0].title}; published {values}; {where}"})
    return found


def of_model(name: str) -> list[Reference]:
    """The published values of ``name`` (a name of the table, or the released file's). Raises `BenchError`."""
    known = list(dict.fromkeys(r.name for r in references()))
    if name in known:
        return [r for r in references() if r.name == name]
    released = sorted({r.name for r in references() if r.file and r.file == PurePath(name).name})
    if len(released) > 1:
        raise BenchError(f"{PurePath(name).name} is the file of {', '.join(released)}: say which with --reference NAME")
    if not released:
        raise BenchError(
            f"no published values are known for '{name}'{nearest(name, known)}; `bench list models` shows all"
        )
    return of_model(released[0])


def located(references_: Sequence[Reference]) -> Path:
    """The released file on this machine. Raises `BenchError` with every place looked at, and the official address."""
    first = references_[0]
    if not first.file:
        raise BenchError(
            f"{first.title} has no released file known here: give your own with --model PATH --reference {first.name}"
        )
    root = os.environ.get("BENCH_DATA")
    hub = Path(os.environ.get("TORCH_HOME", Path.home() / ".cache/torch")) / "hub/checkpoints"
    suffix = "".join(PurePath(first.file).suffixes[-2:]) if first.file.endswith(".tar") else PurePath(first.file).suffix
    folders = [*([Path(root).expanduser() / "checkpoints"] if root else []), hub, Path.cwd()]
    # Some names (resnet50.pth) are those of several releases: a file named after the model cannot be mistaken.
    shared = len({r.name for r in references() if r.file == first.file}) > 1
    names = [f"{first.name}{suffix}", *([] if shared else [first.file])]
    for folder in folders:
        for name in names:
            if (folder / name).is_file():
                return folder / name
    looked = ", ".join(str(folder / name) for folder in folders for name in names)
    whence = f"download {first.address} there" if first.address else "put it there"
    raise BenchError(
        f"the released file of {first.title} is not here (looked for {looked}): {whence}, or give --model PATH "
        f"--reference {first.name}"
    )


def judge(record: Record, wanted: Sequence[Reference]) -> list[Verdict]:
    """A verdict per published value of ``wanted``. Raises `BenchError` for a run that cannot be held against it."""
    verdicts = []
    for reference in wanted:
        same = [m for m in record.measurements if m.suite == reference.suite and m.metric == reference.metric]
        found = next((m for m in same if _comparable(m, reference)), None)
        if found is None:
            raise BenchError(_difference(same, reference))
        verdicts.append(Verdict(reference, found.value))
    return verdicts


def mark(card: Card, m: Measurement) -> Verdict | None:
    """The verdict on a measurement of a released checkpoint; None for what has no published value.

    The checkpoint is told by the released file's name, which has to be one release's alone, and by its architecture.
    """
    own = PurePath(card.spec).name
    # A file's arguments beside the name (heads, epsilon) are those that its own layout reads.
    mine = [r for r in _by_file().get(own, ()) if r.architecture == card.architecture.partition("(")[0]]
    reference = next((r for r in mine if r.metric == m.metric and _comparable(m, r)), None)
    return Verdict(reference, m.value) if reference is not None else None


@functools.cache
def _by_file() -> dict[str, tuple[Reference, ...]]:
    found: dict[str, tuple[Reference, ...]] = {}
    for r in references():
        names = {f"{r.name}{suffix}" for suffix in (".pth", ".pth.tar", ".pt", ".ckpt", ".safetensors")}
        shared = len({other.name for other in references() if other.file == r.file}) > 1
        for name in names | ({r.file} if r.file and not shared else set()):
            found[name] = (*found.get(name, ()), r)
    return found


def _comparable(m: Measurement, reference: Reference) -> bool:
    return m.protocol == reference.protocol and m.n == reference.n and m.precision == "fp32" and _setting(m, reference)


def _setting(m: Measurement, reference: Reference) -> bool:
    if not reference.setting:
        return m.headline
    key, _, value = reference.setting.partition("=")
    return str(m.settings.get(key)) == value


def _published(reference: Reference) -> str:
    return f"{reference.title}'s published {reference.metric} of {reference.value:g} is under {reference.protocol}"


def of_other_size(reference: Reference, n: int, dataset: str) -> str:
    """Why a run on ``n`` samples cannot be held against the published value."""
    return (
        f"{_published(reference)} on {reference.n:,} samples of {reference.dataset}, and this run has {n:,} of "
        f"{dataset}: give the whole test split"
    )


def _difference(same: Sequence[Measurement], reference: Reference) -> str:
    """Why none of the measurements can be held against the published value."""
    what = _published(reference)
    if not same:
        return f"{what}, and this run has no {reference.metric} of suite '{reference.suite}'"
    nearest_ = next((m for m in same if m.protocol == reference.protocol), same[0])
    if nearest_.protocol != reference.protocol:
        return f"{what}, and this run is under {nearest_.protocol}: another protocol is another number"
    if nearest_.n != reference.n:
        return of_other_size(reference, nearest_.n, nearest_.dataset)
    return f"{what} at {reference.setting or 'its headline'} in fp32, and this run has no such number"
