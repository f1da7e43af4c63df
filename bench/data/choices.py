"""The choices that a SPEC may carry after its path: ``hf:/data/set?image=photo&label=species``."""

from __future__ import annotations

from collections.abc import Sequence
from urllib.parse import parse_qsl

from bench.errors import BenchError
from bench.registry import nearest


def with_choices(kind: str, rest: str, known: Sequence[str]) -> tuple[str, dict[str, str]]:
    """The path and the choices of ``rest``. Raises `BenchError` for a choice that ``kind`` does not know."""
    path, mark, text = rest.partition("?")
    if not mark or "=" not in text:
        # A question mark in a path, not ours.
        return rest, {}
    choices = dict(parse_qsl(text, keep_blank_values=True))
    for name, value in choices.items():
        if name not in known:
            raise BenchError(f"{kind}: unknown choice '{name}' in ?{text}{nearest(name, list(known))}")
        if not value:
            raise BenchError(f"{kind}: the choice '{name}' in ?{text} is empty: write {name}=VALUE")
    return path, choices
