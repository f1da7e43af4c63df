"""The one registry: each room's ``__init__`` is a visible table of names, imported only when asked for.

Third parties add rows from their own package through the entry-point groups ``bench.adapters``, ``bench.suites``
and ``bench.datasets`` (entry point name = the row's name, value = ``module:attribute``).
"""

from __future__ import annotations

import difflib
import functools
from importlib import import_module
from importlib.metadata import entry_points
from typing import Any, Literal, NamedTuple

from bench.errors import BenchError

Room = Literal["adapters", "models", "suites", "datasets", "reports"]

_TABLES: dict[str, tuple[str, str]] = {
    "adapters": ("adapters", "TABLE"),
    "models": ("adapters", "MODELS"),
    "suites": ("suites", "TABLE"),
    "datasets": ("bench.data", "TABLE"),
    "reports": ("reports", "TABLE"),
}


LISTED = 16
"""Names that a sentence holds."""


class Entry(NamedTuple):
    """A row of a room's table: where the thing is (``module:attribute``) and one line on what it is."""

    target: str
    summary: str


@functools.cache
def table(room: Room) -> dict[str, Entry]:
    """All rows of a room, ours first, then those of installed plug-ins. Imports the room's ``__init__`` alone."""
    name, attribute = _TABLES[room]
    module = import_module(name)
    if not hasattr(module, attribute):
        raise BenchError(
            f"the package '{name}' that Python found at {getattr(module, '__file__', '?')} is not bench's: another "
            f"distribution of that name is installed; install bench in a virtual environment of its own"
        )
    rows: dict[str, Entry] = dict(getattr(module, attribute))
    for point in entry_points(group=f"bench.{room}"):
        origin = point.dist.name if point.dist else "a plug-in"
        rows.setdefault(point.name, Entry(point.value, f"from {origin}"))
    return rows


def resolve(room: Room, name: str) -> Any:
    """Import and return the object behind a row; an unknown name is refused with the nearest ones."""
    rows = table(room)
    if name not in rows:
        raise BenchError(f"unknown {room.removesuffix('s')} '{name}'{nearest(name, list(rows))}")
    module, _, attribute = rows[name].target.partition(":")
    try:
        return getattr(import_module(module), attribute)
    except ImportError as error:
        raise BenchError(f"{room.removesuffix('s')} '{name}' cannot be loaded here: {error}") from error


def nearest(name: str, names: list[str]) -> str:
    """The tail of a refusal: the nearest of ``names``; when none is near all of them, or where to see them."""
    close = difflib.get_close_matches(name, names, n=3, cutoff=0.5)
    if close:
        return f"; nearest: {', '.join(close)}"
    if not names:
        return ""
    listed = ", ".join(sorted(names)[:LISTED])
    return f"; there are: {listed}{f' and {len(names) - LISTED:,} more' if len(names) > LISTED else ''}"
