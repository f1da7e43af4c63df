"""What is special about fine-tuning a text encoder: recipes without an image's augmentation, and a length of texts."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING

from bench.errors import BenchError

if TYPE_CHECKING:
    from bench.card import Card
    from bench.protocol import Protocol
    from bench.suite import Task


def check(protocol: Protocol, card: Card) -> None:
    """Refuse, for the text encoder ``card``, a recipe that crops or mixes images."""
    settings = protocol.settings
    if settings["crop"] != "none" or settings["mixup"] or settings["cutmix"]:
        raise BenchError(
            f"{protocol.id} crops or mixes images, and '{card.name}' ({card.architecture}) reads texts: choose a "
            f"recipe for texts with --protocol {protocol.suite}=bert"
        )


def shortened(task: Task) -> Task:
    """The task with texts cut at the recipe's length, where it states one and the network reads texts."""
    length = task.settings.get("length")
    if not length or task.card.family != "text" or task.backbone is None:
        return task
    # A Backbone of an adapter that reads texts can be shortened; the engine knows no such thing.
    backbone = task.backbone.shortened(length)  # type: ignore[operator]
    return dataclasses.replace(task, backbone=backbone, card=backbone.card)
