"""coco and voc07: a detector over the network's maps, trained, and its average precision."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any, ClassVar

from bench.errors import BenchError
from bench.options import Allowed, count, positive, words
from bench.suite import Needs, Outcomes, engine_of
from suites.annotated import annotated, refuse_without_maps
from suites.drawing import captions

if TYPE_CHECKING:
    from bench.card import Card
    from bench.protocol import Protocol
    from bench.record import Engine, Measurement
    from bench.suite import Task


class Detecting:
    """What the detection suites share; subclasses say how detections are judged."""

    name: str
    default: str
    kinds = "coco:PATH or voc:PATH"
    options: ClassVar[dict[str, Allowed]] = {
        "engine": words("torchvision", "detectron2"),
        "iterations": count(),
        "batch": count(most=65_536),
        "size": count(least=32, most=4096),
        "lr": positive(most=100),
        "warmup": count(least=0),
        "steps": Allowed(above=0, most=1, a_set=True),
        "weight_decay": Allowed(least=0, most=100),
        "layer_decay": Allowed(above=0, most=1),
        "optimiser": words("sgd", "adamw"),
        "bn": words("batch", "fixed"),
        "fpn_norm": words("batch", "none"),
        "head": words("fpn", "c4", "cascade"),
        "window": count(least=0, most=1024),
        "drop_path": Allowed(least=0, below=1),
    }

    def needs(self, protocol: Protocol, card: Card) -> Needs:
        if card.family in ("video", "text"):
            raise BenchError(
                f"suite '{self.name}' detects things in images, and '{card.name}' is a {card.family} network"
            )
        refuse_without_maps(self.name, card)
        if protocol.settings["engine"] == "detectron2":
            from suites.detection.detectron_package import check_detectron2

            check_detectron2(self.name)
        return Needs(features=(), backbone=True)

    def evaluate(self, task: Task) -> Iterator[Measurement]:
        from suites.detection.engines import job_of
        from suites.detection.precision import truth_of

        train, test = annotated(task, "instances", "boxes", self.kinds)
        masks = bool(task.settings["masks"])
        if masks and not (train.masked and test.masked):
            raise BenchError(
                f"{task.protocol.id} needs a mask for every object, and {train.name} has boxes alone: "
                f"--set {self.name}.masks=no, or --protocol {self.name}=tv-fasterrcnn-fpn-1x, needs none"
            )
        truth = truth_of(test)
        if not any(not row["iscrowd"] and not row["difficult"] for row in truth["annotations"]):
            raise BenchError(f"{test.name} {test.split} has no object that counts: there is nothing to find")
        job = job_of(task, len(train.classes), masks)
        trained = job.train(train)
        detections = job.detect(trained.network, test)
        task.files["detections.json"] = json.dumps(detections, separators=(",", ":")).encode()
        details = {**trained.details(), "detections": len(detections), "figures": captions(task.files)}
        if passed := {s.split: s.passed_over for s in (train, test) if getattr(s, "passed_over", 0)}:
            details["boxes_without_area"] = passed
        first = True
        tables = self.matches(truth, detections, masks)
        for metric, value, interval in self.judged(truth, detections, masks, task.seed):
            if first:
                details["per_class"] = dict(zip(map(str, test.classes), per_class(tables[metric], metric), strict=True))
            yield task.measure(
                metric, value, n=len(test), engine=self.engine(job.engine()), interval=interval,
                interval_method="bootstrap over images" if interval else None,
                interval_note=None if interval else "too few images: the metric is undefined in resamples",
                outcomes=tables[metric], headline=first, seeds=[task.seed], details=details if first else {},
                feature={"tokens": "maps", "layers": len(task.card.strides), "norm": "none"},
            )  # fmt: skip
            first = False

    def judged(
        self, truth: dict[str, Any], detections: list[dict[str, Any]], masks: bool, seed: int
    ) -> Iterator[tuple[str, float, tuple[float, float] | None]]:
        """(metric, percent, interval), the headline first."""
        raise NotImplementedError

    def matches(self, truth: dict[str, Any], detections: list[dict[str, Any]], masks: bool) -> Mapping[str, Outcomes]:
        """What each metric's detections met, by metric: from this two records are compared on the same images."""
        raise NotImplementedError

    def engine(self, detector: Engine) -> Engine:
        """The judge of detections and the ``detector`` that made them."""
        judge = engine_of("faster-coco-eval")
        return detector.model_copy(update={"name": f"{judge.name} {judge.version}+{detector.name}"})


class COCO(Detecting):
    """COCO's AP of boxes (the headline) and, of Mask R-CNN, masks: mean, at .50 and .75, by size."""

    name = "coco"
    default = "coco/tv-maskrcnn-fpn-1x@1"

    def judged(
        self, truth: dict[str, Any], detections: list[dict[str, Any]], masks: bool, seed: int
    ) -> Iterator[tuple[str, float, tuple[float, float] | None]]:
        from suites.detection.precision import coco_intervals, coco_precision

        for kind, name in (("bbox", "box"), ("segm", "mask")):
            if kind == "segm" and not masks:
                continue
            values = coco_precision(truth, detections, kind)
            yield from _named(name, values, coco_intervals(truth, detections, values, kind, seed=seed), "ap")

    def matches(self, truth: dict[str, Any], detections: list[dict[str, Any]], masks: bool) -> Mapping[str, Outcomes]:
        from suites.detection.precision import STATS, coco_matches

        found = {}
        for kind, name in (("bbox", "box"), ("segm", "mask")):
            if kind == "segm" and not masks:
                continue
            tables = coco_matches(truth, detections, kind)
            shared = {area: Outcomes(f"{name}-{area}", table) for area, table in tables.items()}
            for stat in STATS:
                found[f"{name}_{stat}"] = shared.get(stat.removeprefix("ap_"), shared["all"])
        return found


class VOC07(Detecting):
    """VOC2007's 11-point AP of boxes: at IoU .50 (the headline), .75, and the mean over .50 to .95."""

    name = "voc07"
    default = "voc07/tv-fasterrcnn-fpn-24k@1"
    kinds = "voc:PATH"

    def judged(
        self, truth: dict[str, Any], detections: list[dict[str, Any]], masks: bool, seed: int
    ) -> Iterator[tuple[str, float, tuple[float, float] | None]]:
        from suites.detection.precision import voc_intervals, voc_precision

        values = voc_precision(truth, detections)
        yield from _named("box", values, voc_intervals(truth, detections, values, seed=seed), "ap50")

    def matches(self, truth: dict[str, Any], detections: list[dict[str, Any]], masks: bool) -> Mapping[str, Outcomes]:
        from suites.detection.precision import voc_matches

        table = Outcomes("box-all", voc_matches(truth, detections)["all"])
        return dict.fromkeys(("box_ap", "box_ap50", "box_ap75"), table)

    def engine(self, detector: Engine) -> Engine:
        return detector.model_copy(update={"name": f"bench-voc07+{detector.name}"})


def per_class(table: Outcomes, metric: str) -> list[float | None]:
    """Each class' own average precision, percent; None where it has no object."""
    from bench.matched import by_class, unpacked

    found = by_class(*unpacked(table.arrays), "ap50" if metric.endswith("ap50") else "ap")
    return [None if value is None else 100 * value for value in found]


def _named(
    name: str, values: Mapping[str, float], intervals: Mapping[str, tuple[float, float] | None], first: str
) -> Iterator[tuple[str, float, tuple[float, float] | None]]:
    for metric in sorted(values, key=lambda metric: metric != first):
        yield f"{name}_{metric}", values[metric], intervals[metric]
