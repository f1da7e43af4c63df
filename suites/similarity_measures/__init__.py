"""Similarity of two representations of the same samples, one family of measures a file.

Every measure is a pure function of two feature matrices with a card of its own (`measure.Measure`): bounds, value of a
representation against itself, source, and the changes of the features that it does not see.
"""

from __future__ import annotations

import functools
from importlib import import_module

from bench.errors import BenchError
from bench.registry import nearest
from suites.similarity_measures.measure import Measure

FAMILIES = ("cka", "cca", "procrustes", "rsa", "neighbours", "rkd", "distance_correlation", "clusters")


@functools.cache
def measures() -> dict[str, Measure]:
    """Every measure by name, in the order of the families."""
    found = (m for family in FAMILIES for m in import_module(f"{__name__}.{family}").MEASURES)
    return {measure.name: measure for measure in found}


def get(name: str) -> Measure:
    """The measure ``name``; refused with the nearest names."""
    if name not in measures():
        raise BenchError(f"unknown similarity measure '{name}'{nearest(name, list(measures()))}")
    return measures()[name]
