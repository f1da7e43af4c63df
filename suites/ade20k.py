"""ade20k: semantic segmentation with a linear head on the frozen network, or UperNet fine-tuned with it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, ClassVar

from bench.errors import BenchError
from bench.options import Allowed, count, positive, words
from bench.suite import Needs, Outcomes
from suites.annotated import annotated, refuse_without_maps
from suites.drawing import captions

if TYPE_CHECKING:
    from bench.card import Card
    from bench.protocol import Protocol
    from bench.record import Measurement
    from bench.suite import Task
    from suites.segmentation.own import Job

KINDS = "segfolder:PATH or ade20k:PATH"


class ADE20K:
    """mIoU (the headline), mAcc and aAcc at the images' own size, from sums over the whole split."""

    name = "ade20k"
    default = "ade20k/linear@2"
    options: ClassVar[dict[str, Allowed]] = {
        "engine": words("own", "mmseg"),
        "head": words("linear", "upernet"),
        "layers": count(most=64),
        "blocks": words("last", "spread"),
        "iterations": count(),
        "batch": count(most=65_536),
        "size": count(least=16, most=4096),
        "stride": count(most=4096),
        "lr": positive(most=100),
        "schedule": words("poly", "onecycle"),
        "warmup": count(least=0),
        "warmup_start": Allowed(least=0, most=1),
        "weight_decay": Allowed(least=0, most=100),
        "layer_decay": Allowed(above=0, most=1),
        "drop_path": Allowed(least=0, below=1),
        "dropout": Allowed(least=0, below=1),
        "width": count(most=4096),
        "scale_least": positive(most=64),
        "scale_most": positive(most=64),
        "long_side": Allowed(least=0, most=10_000),
        "test": words("single", "multi", "larger"),
    }

    def needs(self, protocol: Protocol, card: Card) -> Needs:
        if card.family in ("video", "text"):
            raise BenchError(f"suite 'ade20k' segments images, and '{card.name}' is a {card.family} network")
        refuse_without_maps("ade20k", card)
        if protocol.settings["stride"] > protocol.settings["size"]:
            raise BenchError("ade20k.stride is larger than ade20k.size: windows would leave pixels out")
        if protocol.settings["scale_least"] > protocol.settings["scale_most"]:
            raise BenchError("ade20k.scale_least is larger than ade20k.scale_most")
        if 0 < protocol.settings["long_side"] < 1:
            raise BenchError("ade20k.long_side is at least 1 (times the short side), or 0 for any length")
        if protocol.settings["engine"] == "mmseg":
            from suites.segmentation.published import check_installed

            check_installed()
        return Needs(features=(), backbone=True)

    def evaluate(self, task: Task) -> Iterator[Measurement]:
        train, test = annotated(task, "mask", "masks of class numbers", KINDS)
        for split in (train, test):
            check = getattr(split, "check", None)
            if check is not None:
                check()
        job = _job(task, tuple(train.classes))
        trained = job.train(train)
        overlap = job.test(trained.network, test)
        table = overlap.table()
        union = table[:, 1] + table[:, 2] - table[:, 0]
        outcomes = Outcomes("images", {"intersection": table[:, 0], "union": union, "labelled": table[:, 2]})
        values = overlap.values()
        intervals = overlap.intervals(values, task.seed)
        details = {
            **trained.details(),
            "per_class": dict(zip(map(str, test.classes), overlap.per_class(), strict=True)),
            "figures": captions(task.files),
        }
        for metric, value in values.items():
            interval = intervals[metric]
            yield task.measure(
                metric, value, n=len(test), engine=job.engine(), interval=interval,
                interval_method="bootstrap over images" if interval else None,
                interval_note=None if interval else "too few images: the metric is undefined in resamples",
                outcomes=outcomes, headline=metric == "miou", seeds=[task.seed],
                details=details if metric == "miou" else {}, feature=job.feature,
            )  # fmt: skip


def _job(task: Task, classes: tuple[str, ...]) -> Job:
    """The engine that the protocol asks for."""
    if task.settings["engine"] == "mmseg":
        from suites.segmentation.published import PublishedJob

        return PublishedJob(task, classes)
    from suites.segmentation.own import Job

    return Job(task, classes)
