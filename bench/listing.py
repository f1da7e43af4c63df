"""`bench list`: rows of what there is, for people and as JSON."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

from bench.registry import resolve, table

Rows = list[dict[str, Any]]


def models() -> Rows:
    """The kinds of SPEC, the names that need no file of the user's, and the released checkpoints of `bench verify`."""
    rows = [
        {"model": name if name == "path" else f"{name}:...", "what": entry.summary}
        for name, entry in table("adapters").items()
    ]
    rows += [{"model": spec, "what": entry.summary} for spec, entry in table("models").items()]
    released: Rows = resolve("reports", "references")()
    return rows + released


def suites() -> Rows:
    """Every suite with its default protocol."""
    return [
        {"suite": name, "default": resolve("suites", name).default, "what": entry.summary}
        for name, entry in table("suites").items()
    ]


def protocols() -> Rows:
    """Every protocol card."""
    from bench.protocol import cards

    return [
        {
            "protocol": card.id,
            "suite": card.suite,
            "title": card.title,
            "selection": card.selection,
            "verified": card.verified,
            "source": card.source,
        }
        for card in sorted(cards().values(), key=lambda card: card.id)
    ]


def data() -> Rows:
    """Every data set and reader."""
    return [{"data": name, "what": entry.summary} for name, entry in table("datasets").items()]


def features() -> Rows:
    """What the feature store holds."""
    from bench.housekeeping import stores

    return [info._asdict() for info in stores()]


LISTINGS: dict[str, Callable[[], Rows]] = {
    "models": models,
    "suites": suites,
    "protocols": protocols,
    "data": data,
    "features": features,
}


def render(what: str, rows: Rows, *, as_json: bool) -> str:
    """The rows as an aligned table, or as JSON."""
    if as_json:
        return json.dumps(rows, indent=1, default=str)
    if what == "features":
        from bench.cache import cache_root

        total = sum(row["bytes"] for row in rows) / 1e9
        head = f"{cache_root() / 'features'}: {len(rows)} stores, {total:.2f} GB"
        return head + ("\n" + aligned(rows) if rows else "")
    return aligned(rows)


def aligned(rows: Rows) -> str:
    """Columns aligned by spaces: readable on a terminal, and one row a line for grep."""
    if not rows:
        return "none"
    names = list(rows[0])
    cells = [[_text(row[name]) for name in names] for row in rows]
    widths = [max(len(name), *(len(line[i]) for line in cells)) for i, name in enumerate(names)]
    lines = ["  ".join(text.ljust(width) for text, width in zip(line, widths, strict=True)).rstrip() for line in cells]
    head = "  ".join(name.ljust(width) for name, width in zip(names, widths, strict=True)).rstrip()
    return "\n".join([head, *lines])


def _text(value: object) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    return str(value)
