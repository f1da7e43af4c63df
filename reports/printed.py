"""The printed tables that come with the package, and what the audit found of their cells."""

from __future__ import annotations

import csv
import functools
import io
from importlib.resources import files
from typing import Literal, NamedTuple

Standing = Literal["not checked", "not confirmed", "variant", "corrected", "noted"]
"""``not checked``: the audit has no row. ``not confirmed``: it has one, but nobody read the source. ``variant``:
another value is printed elsewhere, and nothing is wrong. ``corrected``: the source contradicts the cell. ``noted``: the
source agrees with the number and contradicts what it is said to be."""

FILES = {
    "ssl": "ssl.csv",
    "kd": "kd.csv",
    "dcd1": "dcd_table1_cifar100.csv",
    "dcd2": "dcd_table2_transfer.csv",
    "dcd3": "dcd_table3_imagenet.csv",
    "dcd4": "dcd_table4_coco.csv",
}
SAME_ARCHITECTURE = {
    ("W-40-2", "W-16-2"), ("W-40-2", "W-40-1"), ("R-56", "R-20"), ("R-110", "R-20"), ("R-110", "R-32"),
    ("R-32x4", "R-8x4"), ("VGG-13", "VGG-8"),
}  # fmt: skip
"""The pairs of DCD's table 1 in which teacher and student are of one family."""


class Audit(NamedTuple):
    """One row of audit.csv."""

    table: str
    method: str
    column: str
    survey_value: str
    audited_value: str
    severity: str
    basis: str
    note: str

    @property
    def standing(self) -> Standing:
        if self.basis != "verified":
            return "not confirmed"
        if self.severity == "variant":
            return "variant"
        return "noted" if self.audited_value == self.survey_value and self.survey_value else "corrected"


@functools.cache
def rows(table: str) -> tuple[dict[str, str], ...]:
    """The rows of a printed table (a key of ``FILES``), values as printed."""
    return tuple(csv.DictReader(io.StringIO(_text(FILES[table]))))


@functools.cache
def audits() -> tuple[Audit, ...]:
    return tuple(Audit(**row) for row in csv.DictReader(io.StringIO(_text("audit.csv"))))


def audit_of(table: str, method: str, column: str) -> int | None:
    """Index in `audits` of what is known of a cell; ``column`` of a DCD table is ``teacher->student``."""
    exact = {(a.table, a.method, a.column): index for index, a in enumerate(audits())}
    found = exact.get((table, method, column))
    teacher, arrow, student = column.partition("->")
    if found is None and table == "dcd1" and arrow and (teacher, student) not in SAME_ARCHITECTURE:
        found = exact.get((table, method, "different architecture"))
    return found


def value_of(text: str) -> float | None:
    """The number of a printed cell; ``*`` marks zero-shot, an empty cell is unreported."""
    bare = text.removesuffix("*")
    return float(bare) if bare else None


def _text(name: str) -> str:
    return files("reports").joinpath("published", name).read_text(encoding="utf-8")
