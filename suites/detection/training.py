"""One training of a detector by torchvision, and its detections on the test split in COCO's result form."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from bench.data.masks import encoded
from bench.device import forward_mode
from bench.errors import BenchError
from bench.loader import default_workers
from suites.detection.pyramids import Trunk, detector
from suites.detection.samples import Annotated, Sample, together
from suites.drawing import chosen, detection_png
from suites.segmentation.crops import image_of
from suites.training.feed import own_randomness, seed_all
from suites.training.groups import grouped
from suites.training.length import Length
from suites.training.loop import Trained, train
from suites.training.schedule import Schedule

if TYPE_CHECKING:
    from bench.suite import Task

SHORT = (640, 672, 704, 736, 768, 800)
"""Short sides of training at a test size of 800; other sizes in proportion."""
LONG = 1333 / 800
SHOWN = 0.5
"""Detections of at least this score are drawn."""


class Learner(nn.Module):
    """``forward(batch)`` gives the detector's losses."""

    def __init__(self, network: Any) -> None:
        super().__init__()
        self.network = network

    def forward(self, batch: list[Sample]) -> dict[str, Tensor]:
        images, targets = zip(*batch, strict=True)
        losses: dict[str, Tensor] = self.network(list(images), list(targets))
        return losses


@dataclass
class Job:
    """What a detection suite does with its settings."""

    task: Task
    classes: int
    masks: bool

    @property
    def device(self) -> torch.device:
        return torch.device(self.task.device)

    def learner(self) -> Learner:
        task, settings = self.task, self.task.settings
        card, size = task.card, settings["size"]
        assert task.backbone is not None
        if card.transform is not None and card.transform.custom is not None:
            raise BenchError(
                f"suite '{task.protocol.suite}' scales images itself, and this model's transform is a callable: "
                f"give bench.wrap a transform of sizes, mean and std"
            )
        mean, std = (card.transform.mean, card.transform.std) if card.transform else ((0.0,) * 3, (1.0,) * 3)
        with own_randomness():
            seed_all(task.seed)
            trunk = Trunk(
                task.backbone, frozen=settings["frozen"], fixed=settings["bn"] == "fixed", norm=settings["fpn_norm"]
            )
            if settings["jitter"]:
                sizes, longest = (size,), size
            else:
                sizes, longest = tuple(round(side * size / 800) for side in SHORT), round(LONG * size)
            network = detector(trunk, self.classes, masks=self.masks, sizes=sizes, longest=longest, mean=mean, std=std)
        learner: nn.Module = Learner(network)
        if torch.distributed.is_initialized() and self.device.type == "cuda":
            learner = nn.SyncBatchNorm.convert_sync_batchnorm(learner)  # type: ignore[no-untyped-call]
        assert isinstance(learner, Learner)
        return learner

    def train(self, dataset: Any) -> Trained:
        task, settings = self.task, self.task.settings
        learner = self.learner()
        samples = Annotated(dataset, masks=self.masks, jitter=settings["size"] if settings["jitter"] else None)
        trunk = learner.network.backbone
        inner = getattr(trunk.backbone, "network", trunk.backbone)
        rest = nn.ModuleList([trunk.neck, learner.network.rpn, learner.network.roi_heads])
        parts: list[tuple[nn.Module, float]] = [] if trunk.frozen else [(inner, 1.0)]
        groups = grouped(
            [*parts, (rest, 1.0)],
            weight_decay=settings["weight_decay"],
            layer_decay=settings["layer_decay"] if parts else 1.0,
            # SGD's recipes decay everything; AdamW's leave vectors out.
            undecayed=settings["optimiser"] == "adamw",
        )
        iterations, rate = settings["iterations"], settings["lr"]
        optimiser: torch.optim.Optimizer = (
            torch.optim.SGD(groups, lr=rate, momentum=0.9)
            if settings["optimiser"] == "sgd"
            else torch.optim.AdamW(groups, lr=rate, betas=(0.9, 0.999))
        )
        return train(
            learner,
            optimiser,
            samples,
            length=Length.of(len(samples), settings["batch"], iterations=iterations),
            schedule=Schedule(
                "steps", rate, iterations, warmup=min(settings["warmup"], iterations // 2), start=rate * 1e-3,
                milestones=tuple(round(share * iterations) for share in settings["steps"]),
            ),
            device=self.device,
            progress=task.progress,
            precision=task.protocol.precision,
            seed=task.seed,
            name=f"{task.protocol.suite} {'Mask' if self.masks else 'Faster'} R-CNN",
            folder=task.folder,
            identity=[task.protocol.id, task.card.weight_digest, dataset.fingerprint],
            micro=task.batch,
            workers=default_workers(self.device) if task.workers is None else task.workers,
            collate=together,
            every=max(1, iterations // 20),
        )  # fmt: skip

    def detect(self, learner: Any, dataset: Any) -> list[dict[str, Any]]:
        """The detections of every image, rows of COCO's result form; a handful is drawn."""
        from torchvision.transforms.functional import to_tensor

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
                (found,) = learner.network([to_tensor(image).to(self.device)])
                mine = rows_of(found, dataset.image_id(index), dataset.class_ids)
                rows += mine
                if index in drawn:
                    task.files[f"drawn-{index}.png"] = self._drawn(dataset, index, image, mine)
                stage.advance()
        return rows

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
