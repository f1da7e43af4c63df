"""One training of a detector by torchvision, and its detections on the test split in COCO's result form."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from bench.data.masks import encoded
from bench.device import forward_mode
from bench.errors import BenchError
from bench.suite import engine_of
from suites.detection.pyramids import Reader, Trunk, detector
from suites.detection.samples import Annotated, Sample, together
from suites.drawing import chosen, detection_png
from suites.segmentation.crops import image_of
from suites.training.drop_path import set_drop_path
from suites.training.feed import own_randomness, seed_all
from suites.training.groups import grouped
from suites.training.precise import precise
from suites.training.task import scaled_transform, train_task

if TYPE_CHECKING:
    from bench.card import Transform
    from bench.record import Engine
    from bench.suite import Task
    from suites.training.feed import Samples
    from suites.training.loop import Trained

SHORT = {"coco": tuple(range(640, 801, 32)), "voc07": tuple(range(480, 801, 32))}
"""Short sides of training at a test size of 800, by suite; other sizes in proportion."""
LONG = 1333 / 800
SHOWN = 0.5
"""Detections of at least this score are drawn."""


class Learner(nn.Module):
    """``forward(batch)`` in train mode gives the detector's losses."""

    def __init__(self, network: Any) -> None:
        super().__init__()
        self.network = network

    def forward(self, batch: list[Sample]) -> dict[str, Tensor]:
        images, targets = zip(*batch, strict=True)
        losses: dict[str, Tensor] = self.network(list(images), list(targets))
        return losses


@dataclass
class Job:
    """One training and its detections. Another engine overrides how networks, samples and detections are made."""

    task: Task
    classes: int
    masks: bool

    @property
    def device(self) -> torch.device:
        return torch.device(self.task.device)

    @property
    def transform(self) -> Transform:
        found: Transform = scaled_transform(self.task)
        return found

    @property
    def sizes(self) -> tuple[tuple[int, ...], int]:
        """Short sides of training (the last is the test's), and the longest side."""
        size = self.task.settings["size"]
        if self.task.settings["jitter"]:
            return (size,), size
        return tuple(round(side * size / 800) for side in SHORT[self.task.protocol.suite]), round(LONG * size)

    def engine(self) -> Engine:
        return engine_of("torchvision")

    def reading(self) -> dict[str, Any]:
        """How the backbone is read: what `Reader` is told."""
        settings = self.task.settings
        suite, card, backbone = self.task.protocol.suite, self.task.card, self.task.backbone
        if settings["window"] and (settings["frozen"] or not (backbone is not None and backbone.depth)):
            what = "is frozen here" if settings["frozen"] else f"({card.architecture}) is no plain transformer"
            raise BenchError(
                f"{self.task.protocol.id} divides the attention of a plain transformer that is trained into windows, "
                f"and '{card.name}' {what}: choose another recipe (bench list protocols), or "
                f"--set {suite}.window=0 --set {suite}.relative=no"
            )
        if settings["relative"] and not settings["window"]:
            raise BenchError(
                f"relative positions are learned where attention has windows, and {suite}.window=0 has none: "
                f"--set {suite}.relative=no"
            )
        return {
            "frozen": settings["frozen"], "fixed": settings["bn"] == "fixed", "fixed_stem": settings["fixed_stem"],
            "window": settings["window"], "option": f"{suite}.window",
            # Square images of ViTDet have so many patches on a side; other sizes are interpolated.
            "positions": settings["size"] // self.task.card.strides[-1] if settings["relative"] else 0,
        }  # fmt: skip

    def drop_paths(self, reader: Reader) -> None:
        suite = self.task.protocol.suite
        if not reader.frozen:
            rate = self.task.settings["drop_path"]
            set_drop_path(reader.trunk, rate, self.task.card.architecture, f"{suite}.drop_path")

    def learner(self) -> Learner:
        """A new detector to train; random numbers are the seed's."""
        task, settings = self.task, self.task.settings
        assert task.backbone is not None
        if settings["head"] != "fpn":
            suite = task.protocol.suite
            raise BenchError(
                f"{suite}.head={settings['head']} is of detectron2 alone: --set {suite}.engine=detectron2, or "
                f"--set {suite}.head=fpn"
            )
        trunk = Trunk(task.backbone, norm=settings["fpn_norm"], **self.reading())
        self.drop_paths(trunk)
        sizes, longest = self.sizes
        return Learner(
            detector(
                trunk, self.classes, masks=self.masks, sizes=sizes, longest=longest, mean=self.transform.mean,
                std=self.transform.std,
            )
        )  # fmt: skip

    def parts(self, learner: Any) -> tuple[Reader, nn.ModuleList]:
        """The reader of the backbone, and everything after it."""
        network = learner.network
        return network.backbone, nn.ModuleList([network.backbone.neck, network.rpn, network.roi_heads])

    def samples(self, dataset: Any) -> Samples:
        settings = self.task.settings
        return Annotated(dataset, masks=self.masks, jitter=settings["size"] if settings["jitter"] else None)

    def groups(self, learner: Any) -> list[dict[str, Any]]:
        settings = self.task.settings
        reader, rest = self.parts(learner)
        parts: list[tuple[nn.Module, float]] = [] if reader.frozen else [(reader.trunk, 1.0)]
        return grouped(
            [*parts, (rest, 1.0)],
            weight_decay=settings["weight_decay"],
            layer_decay=settings["layer_decay"] if parts else 1.0,
            # SGD's recipes decay everything; AdamW's leave vectors out.
            undecayed=settings["optimiser"] == "adamw",
        )

    def train(self, dataset: Any) -> Trained:
        task, settings = self.task, self.task.settings
        with own_randomness():
            seed_all(task.seed)
            learner = self.learner()
        groups, rate = self.groups(learner), settings["lr"]
        optimiser: torch.optim.Optimizer = (
            torch.optim.SGD(groups, lr=rate, momentum=0.9)
            if settings["optimiser"] == "sgd"
            else torch.optim.AdamW(groups, lr=rate, betas=(0.9, 0.999))
        )
        samples, iterations = self.samples(dataset), settings["iterations"]
        trained = train_task(
            task,
            learner,
            optimiser,
            samples,
            name=f"{task.protocol.suite} {'Mask' if self.masks else 'Faster'} R-CNN",
            fingerprint=dataset.fingerprint,
            kind="steps",
            start=1e-3,
            milestones=tuple(round(share * iterations) for share in settings["steps"]),
            collate=together,
        )
        if settings["precise_bn"]:
            precise(trained, samples, settings["batch"], task, collate=together)
        return trained

    def detect(self, learner: Any, dataset: Any) -> list[dict[str, Any]]:
        """The detections of every image, rows of COCO's result form; a handful is drawn."""
        task = self.task
        rows: list[dict[str, Any]] = []
        drawn = set(chosen(len(dataset)))
        learner.network.eval()
        with (
            forward_mode(self.device, task.protocol.precision),
            task.progress.stage(f"{task.protocol.suite} test", len(dataset), "images") as stage,
        ):
            for index in range(len(dataset)):
                image = image_of(dataset, index)
                mine = rows_of(self.found(learner, image), dataset.image_id(index), dataset.class_ids)
                rows += mine
                if index in drawn:
                    task.files[f"drawn-{index}.png"] = self._drawn(dataset, index, image, mine)
                stage.advance()
        return rows

    def found(self, learner: Any, image: Any) -> dict[str, Tensor]:
        """What the detector finds: boxes (corners) [K, 4], labels [K] from 1, scores [K], and perhaps masks [K, 1, H,
        W] in [0, 1]."""
        from torchvision.transforms.functional import to_tensor

        (found,) = learner.network([to_tensor(image).to(self.device)])
        result: dict[str, Tensor] = found
        return result

    def _drawn(self, dataset: Any, index: int, image: Any, rows: list[dict[str, Any]]) -> bytes:
        truth, position = dataset.instances(index), {number: k for k, number in enumerate(dataset.class_ids)}
        return detection_png(
            image,
            [(row["bbox"], position[row["category_id"]], row["score"]) for row in rows if row["score"] >= SHOWN],
            list(zip(truth.boxes.tolist(), truth.labels.tolist(), strict=True)),
            dataset.classes,
        )


def rows_of(found: dict[str, Tensor], image: int, class_ids: Any) -> list[dict[str, Any]]:
    """torchvision's output for one image as rows; numbers are rounded here, before anything is computed from them."""
    boxes = found["boxes"].float().cpu().double()
    boxes[:, 2:] -= boxes[:, :2]
    masks = found["masks"][:, 0].float().cpu() >= 0.5 if "masks" in found else [None] * len(boxes)
    rows = []
    for box, label, score, mask in zip(
        boxes.tolist(), found["labels"].tolist(), found["scores"].float().tolist(), masks, strict=True
    ):
        row: dict[str, Any] = {
            "image_id": image,
            "category_id": int(class_ids[label - 1]),
            "bbox": [round(value, 3) for value in box],
            "score": round(score, 6),
        }
        if mask is not None:
            row["segmentation"] = encoded(mask.numpy())
        rows.append(row)
    return rows
