"""Every combination of several values of several settings: the axes of a sweep."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from itertools import product
from typing import Any

from bench.axes import AXES, axes_of
from bench.errors import BenchError


def combinations(vary: Mapping[str, Any], suites: Sequence[str]) -> Iterator[dict[str, Any]]:
    """The settings of every combination, the last key changing fastest; one without settings where nothing varies.

    ``vary``: ``suite.option`` -> its values; an axis alone (``size``, ``block``, `bench.axes`) is that axis of every
    suite that has it. What is said of suites that are not among ``suites`` is left out. Raises `BenchError` for a key
    that is neither and for one without values.
    """
    columns = []
    for key, values in vary.items():
        if not isinstance(values, list) or not values:
            raise BenchError(f"vary.{key} is a list of one or more values, as in [1, 2]")
        if len({str(value) for value in values}) < len(values):
            raise BenchError(f"vary.{key} gives a value twice")
        suite = key.partition(".")[0]
        if key in AXES:
            names = [f"{name}.{key}" for name in suites if key in axes_of(name)]
            if not names:
                raise BenchError(f"vary.{key}: none of the suites ({', '.join(suites)}) has this axis")
        elif key == suite:
            raise BenchError(f"vary.{key} is no axis ({', '.join(AXES)}) and no suite.option")
        elif suite not in suites:
            continue
        else:
            names = [key]
        columns.append([dict.fromkeys(names, value) for value in values])
    for chosen in product(*columns):
        yield {name: value for part in chosen for name, value in part.items()}
