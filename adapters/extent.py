"""How large a container's content is, counted as a tree: a few shared lists can stand for billions of paths."""

from __future__ import annotations

from typing import Any

from bench.errors import BenchError

DEPTH = 100
NODES = 5_000_000


def check(content: Any) -> None:
    """Raises `BenchError` where the content nests in itself, deeper than 100 levels, or unfolds to over 5 million."""
    sizes: dict[int, int] = {}
    depths: dict[int, int] = {}
    open_: set[int] = set()
    waiting: list[tuple[Any, bool]] = [(content, False)]
    while waiting:
        here, done = waiting.pop()
        if not isinstance(here, (dict, list, tuple)):
            continue
        key = id(here)
        inner = [
            one for one in (here.values() if isinstance(here, dict) else here) if isinstance(one, dict | list | tuple)
        ]
        if done:
            open_.discard(key)
            sizes[key] = len(here) + 1 + sum(sizes[id(one)] for one in inner)
            depths[key] = 1 + max((depths[id(one)] for one in inner), default=0)
            if depths[key] > DEPTH or sizes[key] > NODES:
                raise BenchError(
                    f"the file's content is nested over {DEPTH} deep or unfolds to over {NODES:,} values: "
                    "save the state_dict alone"
                )
        elif key in open_:
            raise BenchError("the file's content holds itself, as no checkpoint does: save the state_dict alone")
        elif key not in sizes:
            open_.add(key)
            waiting.append((here, True))
            waiting += [(one, False) for one in inner]
