"""What `bench inspect` prints of a card: how the checkpoint was read, a fact a line."""

from __future__ import annotations

from typing import TYPE_CHECKING

from reports.wording import clean

if TYPE_CHECKING:
    from bench.card import Card, Coverage

_FEATURES = {
    "cls": "class token",
    "cls before norm": "class token before the final norm",
    "avg": "mean of the patch tokens",
    "flat": "last map, flattened",
    "attention_pool": "attention pooling of the last map",
    "pre_logits": "what the classifier sees",
    "pooler_output": "pooler_output of the model's own class",
}


def render(card: Card) -> str:
    """The card for people::

    dino_deitsmall16_pretrain_full_checkpoint
      container     torch zip, 2 weight sets: teacher (EMA), student; chosen: teacher (--weights-key student for ...)
      layout        DINO, prefix backbone.
      architecture  vit_small_patch16_224 (inferred from names and shapes), 21,665,664 parameters
      coverage      150 of 150 backbone tensors; left over: head.* (projection head, known)
      transform     resize 256 bicubic, crop 224, ImageNet mean/std
      feature       class token, 384 wide
      ...
    """
    lines = [clean(card.name)]
    lines += [f"  {label:<13} {clean(text)}" for label, text in _facts(card) if text]
    return "\n".join(lines)


def _facts(card: Card) -> list[tuple[str, str]]:
    architecture = card.architecture + (f" ({card.architecture_from})" if card.architecture_from else "")
    facts = [
        ("container", _container(card)),
        ("layout", card.layout or ""),
        ("method", card.method or ""),
        ("architecture", architecture + (f", {card.parameters:,} parameters" if card.parameters else "")),
        ("coverage", _coverage(card.coverage) if card.coverage is not None else ""),
        ("transform", card.transform.describe() if card.transform is not None else ""),
        ("feature", _feature(card)),
        ("outputs", ", ".join(f"{name} {width}" for name, width in card.dims.items())),
        ("pyramid", ", ".join(f"{c} at stride {s}" for c, s in zip(card.channels, card.strides, strict=True))),
        ("classes", card.classes or ""),
        ("text tower", card.text or ""),
        ("digest", card.weight_digest),
    ]
    facts += [("hazards" if i == 0 else "", text) for i, text in enumerate(card.hazards)]
    facts += [("notes" if i == 0 else "", text) for i, text in enumerate(card.notes)]
    return facts


def _container(card: Card) -> str:
    words = card.container or ""
    sets = card.weight_sets
    if len(sets) < 2:
        return f"{words}, weights '{card.weights_key}'" if card.weights_key else words
    listed = ", ".join(f"{name} (EMA)" if name in card.averages else name for name in sets)
    remedy = f"--weights-key {sets[1]} for the other" if len(sets) == 2 else "--weights-key for another"
    return f"{words}, {len(sets)} weight sets: {listed}; chosen: {sets[0]} ({remedy})"


def _coverage(found: Coverage) -> str:
    left: dict[str, list[str]] = {}
    for name in found.heads:
        left.setdefault(f"{found.kinds.get(name, 'head')}, known", []).append(name)
    for name in found.unused:
        left.setdefault(found.kinds.get(name, "unknown"), []).append(name)
    words = "; ".join(f"{', '.join(names)} ({kind})" for kind, names in left.items())
    filled = f"{found.filled} of {found.total} backbone tensors"
    return f"{filled}; left over: {words}" if left else f"{filled}; nothing left over"


def _feature(card: Card) -> str:
    if not card.feature:
        return ""
    words = _FEATURES.get(card.feature, card.feature)
    if card.feature == "avg" and card.family in ("cnn", "hybrid"):
        words = "mean of the last map"
    width = card.dims.get("pooled")
    return f"{words}, {width} wide" if width else words
