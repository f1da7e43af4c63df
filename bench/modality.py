"""Modality: whether samples are images or texts, and that a network is given what it reads."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Literal

from bench.errors import BenchError

if TYPE_CHECKING:
    from bench.card import Card
    from bench.dataset import Dataset, Splits

Modality = Literal["image", "text"]


def modality_of(dataset: Dataset) -> Modality:
    """``text`` for a set whose samples are `bench.dataset.Text`; ``image`` for all that does not say."""
    said: Modality = getattr(dataset, "modality", "image")
    return said


def noun_of(dataset: Dataset) -> str:
    """What its samples are called on a screen: ``images`` or ``texts``."""
    return f"{modality_of(dataset)}s"


def reads(card: Card) -> Modality | None:
    """What a network takes; None for a user's own module with a transform of its own, which may take anything."""
    if card.family == "text":
        return "text"
    own = card.family == "module" and card.transform is not None and card.transform.custom is not None
    return None if own else "image"


def check(cards: Iterable[Card], opened: Mapping[str, Splits]) -> None:
    """Refuse, in one sentence, an image network on texts and a text encoder on images."""
    for card in cards:
        wanted = reads(card)
        for spec, splits in opened.items():
            given = modality_of(splits.train)
            if wanted is None or wanted == given:
                continue
            if wanted == "text":
                raise BenchError(
                    f"'{card.name}' ({card.architecture}) is a text encoder, and --data {spec} holds images: give "
                    f"texts, as in text:FOLDER or glue:sst2"
                )
            raise BenchError(
                f"'{card.name}' ({card.architecture}) reads images, and --data {spec} holds texts: give images, or a "
                f"text encoder's folder as --model"
            )
