"""Grad-CAM: is the student right for its teacher's reasons? Similarity of where both find a class in an image."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from bench.errors import BenchError
from bench.options import Allowed
from suites import looking
from suites.pairing import knows

if TYPE_CHECKING:
    from bench.card import Card
    from bench.protocol import Protocol
    from bench.record import Measurement
    from bench.suite import Needs, Task

NAMES = ("cosine", "spearman")


class GradCAMAgreement:
    """For the class that the teacher predicts (the headline; also among images that both have right), and for each
    network's own prediction."""

    name = "gradcam"
    default = "gradcam/last-map@1"
    options: ClassVar[dict[str, Allowed]] = looking.OPTIONS

    def needs(self, protocol: Protocol, card: Card) -> Needs:
        from suites.class_activation import check

        check(card, "the student")
        return looking.needs_of(protocol)

    def evaluate(self, task: Task) -> Iterator[Measurement]:
        import torch

        from bench.device import float32_products
        from suites.class_activation import GradCAM, check

        student, card, teacher, guide = looking.both_networks(task)
        check(guide, "the teacher")
        _same_classes(card, guide)
        mine, theirs = GradCAM(student), GradCAM(teacher)
        rows: list[int] = []
        predicted: dict[str, list[np.ndarray]] = {"student": [], "teacher": []}
        found: dict[str, list[np.ndarray]] = {"teacher": [], "student": [], "student own": []}
        with float32_products():
            for kept, images, guided in looking.batches(task, task.settings["split"]):
                rows += kept
                reference = theirs(guided)
                classes = reference.logits.argmax(dim=1)
                own = mine(images)
                answers = own.logits.argmax(dim=1)
                same = own if torch.equal(answers, classes) else mine(images, classes)
                predicted["teacher"].append(classes.cpu().numpy())
                predicted["student"].append(answers.cpu().numpy())
                for key, made in (("teacher", reference), ("student", same), ("student own", own)):
                    found[key].append(made.maps.cpu().numpy())
        at = looking.enough(task, rows)
        stacked = {key: np.concatenate(parts) for key, parts in found.items()}
        says = {role: np.concatenate(parts) for role, parts in predicted.items()}
        details: dict[str, Any] = {
            "networks": looking.transforms_of(card, guide),
            "layer": {"teacher": theirs.layer, "student": mine.layer},
        }
        label = {"teacher": looking.label_of(guide)}
        for_teachers = looking.Maps(at, stacked["teacher"], stacked["student"])
        yield from looking.measured(
            task, "gradcam", for_teachers, NAMES, headline=True, settings={"class": "teacher", **label}, details=details
        )
        if (right := self._right(task, says, at)) is not None:
            yield from looking.measured(
                task, "gradcam", for_teachers, NAMES, among=right,
                settings={"class": "teacher", "among": "both right", **label}, details=details,
            )  # fmt: skip
        for_own = looking.Maps(at, stacked["teacher"], stacked["student own"])
        yield from looking.measured(
            task, "gradcam", for_own, NAMES, settings={"class": "own", **label}, details=details
        )

    @staticmethod
    def _right(task: Task, says: dict[str, np.ndarray], rows: np.ndarray) -> np.ndarray | None:
        """bool [N]: both predict the label; None where the classifiers' classes are not known to be the data's."""
        data = task.data[task.settings["split"]]
        if data.labels.ndim > 1 or not knows(task.card.classes, data.dataset) or not _knows(task, data.dataset):
            return None
        classes = np.array(sorted(data.classes), dtype=np.int64)
        if task.card.dims["logits"] != len(classes):
            return None
        target = np.searchsorted(classes, data.labels[rows])
        return np.asarray((says["teacher"] == target) & (says["student"] == target))


def _knows(task: Task, dataset: str) -> bool:
    return task.teacher_card is not None and knows(task.teacher_card.classes, dataset)


def _same_classes(student: Card, teacher: Card) -> None:
    widths = student.dims["logits"], teacher.dims["logits"]
    if widths[0] != widths[1] or (student.classes and teacher.classes and student.classes != teacher.classes):
        raise BenchError(
            f"gradcam looks for one class in both networks, and the classifiers differ: {widths[0]} classes "
            f"({student.classes or 'unnamed'}) of '{student.name}', {widths[1]} ({teacher.classes or 'unnamed'}) of "
            f"'{teacher.name}'"
        )
