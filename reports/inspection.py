"""What `bench inspect` prints of a card: how the checkpoint was read, a fact a line."""

from __future__ import annotations

from typing import TYPE_CHECKING

from reports.wording import clean

if TYPE_CHECKING:
    from bench.card import Card


def render(card: Card) -> str:
    """The card for people::

    efficientnet-lite0
      container     torch legacy pickle
      layout        plain
      architecture  tf_efficientnet_lite0, 3,413,024 parameters
      coverage      308 of 308 tensors
      ...
    """
    lines = [clean(card.name)]
    lines += [f"  {label:<13} {clean(text)}" for label, text in _facts(card) if text]
    return "\n".join(lines)


def _facts(card: Card) -> list[tuple[str, str]]:
    facts = [("container", card.container or "")]
    layout = card.layout or ""
    if card.weights_key is not None:
        layout = ", ".join(part for part in (layout, f"weights '{card.weights_key}'") if part)
    facts += [
        ("layout", layout),
        ("method", card.method or ""),
        ("architecture", card.architecture + (f", {card.parameters:,} parameters" if card.parameters else "")),
    ]
    if card.coverage is not None:
        found = card.coverage
        facts.append(("coverage", f"{found.filled} of {found.total} backbone tensors"))
        facts.append(("heads", ", ".join(found.heads)))
        facts.append(("unused", ", ".join(found.unused)))
    outputs = ", ".join(f"{name} {width}" for name, width in card.dims.items())
    facts += [
        ("transform", card.transform.describe() if card.transform is not None else ""),
        ("feature", f"pooled is {card.feature}"),
        ("outputs", outputs),
        ("pyramid", ", ".join(f"{c} at stride {s}" for c, s in zip(card.channels, card.strides, strict=True))),
        ("classes", card.classes or ""),
        ("digest", card.weight_digest),
    ]
    facts += [("hazard", text) for text in card.hazards]
    facts += [("note", text) for text in card.notes]
    return facts
