"""What `attention` and `gradcam` share: both networks over the same images, and a similarity an image."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from bench.bootstrap import percentile, resampled_sums
from bench.dataset import DecodeError
from bench.errors import BenchError
from bench.options import Allowed, count, words
from bench.suite import Needs, Outcomes, engine_of
from suites import map_similarity
from suites.pairing import Network, described
from suites.similarity import chosen_rows

if TYPE_CHECKING:
    import torch

    from bench.backbone import Backbone
    from bench.card import Card
    from bench.protocol import Protocol
    from bench.record import Measurement
    from bench.suite import Task

MEASURES: dict[str, tuple[Callable[[np.ndarray, np.ndarray], np.ndarray], bool]] = {
    "cosine": (map_similarity.cosine, True),
    "spearman": (map_similarity.spearman, True),
    "kl": (map_similarity.divergence, False),
    "js": (map_similarity.jensen_shannon, False),
}
"""Function of (teacher's rows, student's rows), and whether more is more alike."""


OPTIONS: dict[str, Allowed] = {
    "split": words("train", "test"),
    "samples": count(2),
    "replicates": count(100, 10_000_000),
}


def needs_of(protocol: Protocol) -> Needs:
    """Both networks and the images of one split; no stored features."""
    return Needs(features=(), splits=(protocol.settings["split"],), teacher=True, backbone=True)


def both_networks(task: Task) -> tuple[Backbone, Card, Backbone, Card]:
    """The student and its card, the teacher and its. Raises `BenchError` where one is stored features."""
    if task.backbone is None or task.teacher_card is None:
        raise BenchError(
            f"suite '{task.protocol.suite}' forwards both networks: give the student and --teacher as SPECs"
        )
    if task.teacher_backbone is None:
        raise BenchError(
            f"suite '{task.protocol.suite}' forwards both networks, and the teacher '{task.teacher_card.name}' is "
            f"stored features: give the network itself"
        )
    return task.backbone, task.card, task.teacher_backbone, task.teacher_card


def batches(task: Task, split: str) -> Iterator[tuple[list[int], torch.Tensor, torch.Tensor]]:
    """(rows, the student's images, the teacher's images [B, 3, H, W]) of a seeded draw, each by its own transform.

    Images that cannot be decoded are passed over.
    """
    import torch

    student, _, teacher, _ = both_networks(task)
    device = torch.device(task.device)
    for backbone in (student, teacher):
        if not getattr(backbone, "live", False):
            backbone.to(device)
    images = task.images[split]
    rows = chosen_rows(len(images), task.settings["samples"], task.seed)
    size = task.batch or 16
    with task.progress.stage(task.protocol.suite, len(rows), "images") as stage:
        for start in range(0, len(rows), size):
            kept: list[int] = []
            mine: list[torch.Tensor] = []
            theirs: list[torch.Tensor] = []
            for row in rows[start : start + size]:
                try:
                    image = images.image(int(row))
                except DecodeError:
                    continue
                mine.append(student.preprocess(image))
                theirs.append(teacher.preprocess(image))
                kept.append(int(row))
            if kept:
                yield kept, _stacked(mine, student).to(device), _stacked(theirs, teacher).to(device)
            stage.advance(len(rows[start : start + size]))


def enough(task: Task, rows: list[int]) -> np.ndarray:
    """int64 [N]: the images that both networks saw. Raises `BenchError` for fewer than two."""
    if len(rows) < 2:
        raise BenchError(f"{task.protocol.suite}: fewer than two images could be decoded")
    return np.array(rows)


def _stacked(images: list[torch.Tensor], backbone: Backbone) -> torch.Tensor:
    import torch

    if len({tuple(image.shape) for image in images}) > 1:
        raise BenchError(
            f"the transform of '{backbone.card.name}' gives images of several sizes: maps of one grid are needed"
        )
    return torch.stack(images)


def label_of(card: Card) -> str:
    """How a comparison's settings name a network."""
    return Network(card, {}).label


def transforms_of(student: Card, teacher: Card) -> dict[str, Any]:
    """For the details: each network with the transform that it saw the images through."""
    return described({"student": Network(student, {}), "teacher": Network(teacher, {})})


@dataclass
class Maps:
    """Maps of the same images, float [N, h, w] each."""

    rows: np.ndarray
    teacher: np.ndarray
    student: np.ndarray

    def compare(self, name: str, *, apart: bool = False) -> np.ndarray:
        """A similarity [N] on the teacher's grid; ``apart``: the student's map of another image, which is chance."""
        theirs = map_similarity.shares(self.teacher)
        mine = map_similarity.shares(map_similarity.on_grid(self.student, *self.teacher.shape[1:]))
        return MEASURES[name][0](theirs, np.roll(mine, 1, axis=0) if apart else mine)


def measured(
    task: Task,
    kind: str,
    maps: Maps,
    names: tuple[str, ...],
    *,
    among: np.ndarray | None = None,
    headline: bool = False,
    settings: dict[str, Any],
    details: dict[str, Any],
) -> Iterator[Measurement]:
    """One measurement for each of ``names``: the mean over images, with a bootstrap over them.

    ``among``: bool [N], the images that count. An image in which a network's map is blank has no value, and is counted.
    """
    split = task.settings["split"]
    keep = np.ones(len(maps.rows), dtype=bool) if among is None else among
    values = {name: maps.compare(name) for name in names}
    stem = "-".join([kind, *(str(value) for key, value in settings.items() if key != "teacher")])
    for position, name in enumerate(names):
        taken = keep & np.isfinite(values[name])
        each = values[name][taken]
        if len(each) < 2:
            task.progress.warn(f"{task.protocol.suite}: {name} is left out: {len(each)} images have a value")
            continue
        value = float(each.mean()) if np.ptp(each) > 0 else float(each[0])
        (sums,) = resampled_sums([each[:, None]], replicates=task.settings["replicates"], seed=task.seed)
        chance = maps.compare(name, apart=True)
        chance = chance[np.isfinite(chance)]
        yield task.measure(
            name, value, n=len(each), engine=engine_of("torch", "bench-maps+torch"), unit="",
            higher_is_better=MEASURES[name][1], interval=percentile(sums[:, 0] / len(each), value),
            interval_method="bootstrap over images", split=split, headline=headline and position == 0,
            seeds=[task.seed], settings=settings, feature={"tokens": kind},
            outcomes=Outcomes(
                stem.replace(" ", "-"),
                {"row": maps.rows[keep], **{k: np.nan_to_num(v[keep], nan=-1.0) for k, v in values.items()}},
            ),
            details={
                **details,
                "grid": {"teacher": list(maps.teacher.shape[1:]), "student": list(maps.student.shape[1:])},
                **({"blank": int((keep & ~taken).sum())} if (keep & ~taken).any() else {}),
                **({"of_different_images": float(chance.mean())} if len(chance) else {}),
            },
        )  # fmt: skip
