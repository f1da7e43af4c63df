"""What a reader found in a file or folder, and how it tells which classes it replaced."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

_NAMED = 8


@dataclass(frozen=True)
class Container:
    """What a file holds. ``content``: nested dictionaries and lists of tensors and plain values."""

    kind: str
    content: Any
    hazards: list[str] = field(default_factory=list)


def replaced(names: list[str]) -> list[str]:
    """A hazard for each class that was replaced; beyond the first few, their number."""
    told = [f"{printable(name)} in the pickle: replaced by an inert stand-in, nothing executed" for name in names]
    if len(told) > _NAMED:
        told = [*told[:_NAMED], f"{len(told) - _NAMED} more classes in the pickle: replaced, nothing executed"]
    return told


def printable(text: str) -> str:
    """``text`` with a question mark for what would move a terminal's cursor."""
    return "".join(char if char.isprintable() else "?" for char in text)
