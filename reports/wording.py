"""How a measurement is said: its value, its setting, what it was computed with. Every report says it alike."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from collections.abc import Sequence

    from bench.card import Card
    from bench.record import Measurement

_NATURAL_DIGITS = 4
_COUNTS = 1000
"""In natural units, what is this large is a count or next to one: decimals would say nothing."""


def digits(unit: str) -> int:
    """Decimals shown: two for percent, four for natural units. The record keeps full precision."""
    return 2 if unit == "%" else _NATURAL_DIGITS


def number(m: Measurement, value: float | None = None) -> str:
    """The measurement's value, or another one in its unit, rounded for display; never ``-0.00``."""
    shown = m.value if value is None else value
    text = f"{shown:,.0f}" if m.unit != "%" and abs(shown) >= _COUNTS else f"{shown:.{digits(m.unit)}f}"
    return text.removeprefix("-") if not text.strip("-0.") else text


def setting_label(m: Measurement) -> str:
    """``k=20, temperature=0.07``: the settings of one measurement within its protocol, empty when there are none."""
    return _settings(m.settings)


class _WithSettings(Protocol):
    settings: dict[str, Any]


def shared_settings(group: Sequence[_WithSettings]) -> tuple[str, list[str]]:
    """What the settings of all have in common, said once, and for each what is its own."""
    first = group[0].settings
    common = {
        key: value for key, value in first.items() if all(key in m.settings and m.settings[key] == value for m in group)
    }
    own = [_settings({k: v for k, v in m.settings.items() if k not in common}) for m in group]
    return _settings(common), own


def _settings(settings: dict[str, Any]) -> str:
    # k comes first: it is what a reader of nearest-neighbour numbers looks for.
    order = sorted(settings, key=lambda key: (key != "k", key))
    return ", ".join(f"{key}={_value(settings[key])}" for key in order)


def provenance(m: Measurement) -> str:
    """Feature, precision where it is not the usual one, selection, engine: ``avg, l2, faiss 1.15.1``."""
    feature = dict(m.feature)
    parts = []
    if tokens := feature.pop("tokens", None):
        parts.append(f"{tokens} of {blocks} blocks" if (blocks := feature.get("layers", 1)) != 1 else str(tokens))
        feature.pop("layers", None)
    if (norm := feature.pop("norm", None)) not in (None, "none"):
        parts.append(str(norm))
    parts += [f"{key} {_value(value)}" for key, value in sorted(feature.items())]
    if m.precision != "fp32":
        parts.append(m.precision)
    if m.selection == "holdout":
        parts.append("selected on a hold-out")
    elif m.selection == "last":
        parts.append("last epoch")
    elif m.selection == "best_on_test":
        parts.append("selected on test")
    parts.append(f"{m.engine.name} {m.engine.version}")
    return ", ".join(parts)


def _value(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:g}"
    return str(value)


def describe(card: Card) -> str:
    """What filled the network, in one line."""
    parts = [card.architecture]
    if card.parameters:
        parts.append(f"{card.parameters:,} parameters")
    if card.layout:
        parts.append(f"{card.layout} ({card.container})" if card.container else card.layout)
    if card.coverage is not None:
        parts.append(f"{card.coverage.filled:,}/{card.coverage.total:,} tensors from the checkpoint")
        if card.coverage.unused:
            parts.append(f"unused: {', '.join(card.coverage.unused)}")
    parts.append(f"weights {short(card.weight_digest)}")
    return ", ".join(parts)


def short(digest: str) -> str:
    """The first 12 hexadecimal digits of a ``sha256:`` digest."""
    return digest.removeprefix("sha256:")[:12]


def brief(text: str, most: int = 240) -> str:
    """Text from a record at a length that a cell can show; the files for machines keep it whole."""
    return text if len(text) <= most else f"{text[: most - 1]}\N{HORIZONTAL ELLIPSIS}"


def clean(text: str) -> str:
    """Text from a record without characters that a terminal would obey."""
    return "".join(c if c.isprintable() else "\N{REPLACEMENT CHARACTER}" for c in text)


def markdown_text(text: str) -> str:
    """Text from a record as Markdown that shows it as it is, on one line, also inside a table."""
    flat = clean(" ".join(text.split()))
    return re.sub(r"([\\`*_{}\[\]<>|#])", r"\\\1", flat).replace("\\<", "&lt;").replace("\\>", "&gt;")
