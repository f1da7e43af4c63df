"""Features that a probe chooses among: ``pooled``, ``cls:avg``, ``blocks4.cls:avg``... parts joined end to end."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from bench.errors import BenchError
from suites.classification import features_of

if TYPE_CHECKING:
    from bench.card import Card
    from bench.featureset import FeatureSet

PARTS = ("pooled", "cls", "avg")


def resolved(choices: Sequence[str], card: Card) -> list[str]:
    """The choices as this model can serve them, each once.

    Tokens are what transformers have: a choice that the model lacks (a CNN, features made elsewhere) is its pooled
    feature, which is what the published code probes for a ResNet.
    Raises `BenchError` for a choice that is no feature.
    """
    found = []
    for choice in choices:
        parts = [_part(part, choice) for part in choice.split(":")]
        if not all(_has(card, part) for part in parts):
            parts = ["pooled"]
        found.append(":".join(parts))
    return list(dict.fromkeys(found))


def _has(card: Card, part: str) -> bool:
    if part == "pooled" or part in card.dims:
        return True
    kind = part.rpartition(".")[2] if part.startswith("block") else ""
    if kind == "avg" and not part.startswith("blocks"):
        return card.family != "features"
    return (kind == "cls" and "cls" in card.dims) or (kind == "avg" and card.family in ("vit", "text"))


def _part(part: str, choice: str) -> str:
    stem, _, kind = part.rpartition(".")
    several = stem.startswith("blocks")
    number = stem.removeprefix("blocks" if several else "block")
    blocks = stem.startswith("block") and number.isdigit() and int(number) > 0 and kind in ("cls", "avg")
    if part not in PARTS and not blocks:
        raise BenchError(
            f"option features: '{choice}' is no feature: join pooled, cls, avg, blocks4.cls, blocks4.avg (the last "
            f"four) or block7.avg (the seventh alone) with a colon, as in blocks4.cls:avg"
        )
    return f"block{'s' * several}{int(number)}.{kind}" if blocks else part


def names_in(choices: Sequence[str]) -> tuple[str, ...]:
    """The stored arrays that the choices are made of."""
    return tuple(sorted({part for choice in choices for part in choice.split(":")}))


def built(data: FeatureSet, choice: str) -> np.ndarray:
    """float32 [N, D]: the parts of ``choice`` side by side. Refused when a value is not finite."""
    parts = [features_of(data, part) for part in choice.split(":")]
    return parts[0] if len(parts) == 1 else np.concatenate(parts, axis=1)


def described(choice: str, card: Card) -> dict[str, Any]:
    """The choice as a record's ``feature``: tokens, and the number of blocks where it is not the last one alone."""
    layers = 1
    tokens = []
    blocks: list[int] = []
    for part in choice.split(":"):
        stem, _, kind = part.rpartition(".")
        if stem.startswith("blocks"):
            layers = max(layers, int(stem.removeprefix("blocks")))
        elif stem:
            blocks.append(int(stem.removeprefix("block")))
        tokens.append(card.feature if part == "pooled" else kind)
    told = {"tokens": "+".join(tokens), "layers": layers, "norm": "none"}
    return {**told, "block": "+".join(map(str, dict.fromkeys(blocks)))} if blocks else told


def each(data: FeatureSet, choices: Sequence[str]) -> Iterator[tuple[str, np.ndarray]]:
    """The choices one after the other: only one is in memory at a time."""
    for choice in choices:
        yield choice, built(data, choice)
