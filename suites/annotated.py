"""What the dense suites ask: of a network its maps; of a data set masks or boxes, and splits that are sound."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from bench.errors import BenchError

if TYPE_CHECKING:
    from bench.card import Card
    from bench.suite import Task


def refuse_without_maps(suite: str, card: Card) -> None:
    """Raise `BenchError` for a network whose stages cannot be read, such as a graph that gives features alone."""
    if not card.strides and card.family != "features":  # of stored features the run itself says so
        raise BenchError(
            f"suite '{suite}' reads the maps of a network's stages, and '{card.name}' "
            f"({card.container or card.architecture}) gives none: give a checkpoint of it with its weights"
        )


def annotated(task: Task, method: str, what: str, kinds: str) -> tuple[Any, Any]:
    """(train, test) of ``task.images``, which have ``method``. Refuses other kinds of data by name."""
    for split in task.images.values():
        whole = getattr(split, "_dataset", split)
        if not hasattr(whole, method):
            raise BenchError(
                f"suite '{task.protocol.suite}' needs {what}, and {split.name} has none: give --data {kinds}"
            )
    train, test = task.images["train"], task.images["test"]
    if train.class_ids != test.class_ids:
        raise BenchError(f"the splits of {train.name} have other classes: give both the same")
    return train, test
