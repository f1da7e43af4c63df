"""Transfer of small networks as distillation papers measure it: a new classifier on 32 x 32 images, the rest frozen."""

from __future__ import annotations

import copy
import dataclasses
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from bench.card import Transform
from bench.errors import BenchError
from bench.suite import engine_of
from suites.classification import accuracies, confidence_of, labels_of

if TYPE_CHECKING:
    from bench.backbone import Backbone
    from bench.card import Card
    from bench.record import Measurement
    from bench.suite import Task

SIZE = 32
STATISTICS = {
    "stl10": ((0.4467, 0.4398, 0.4066), (0.2603, 0.2566, 0.2712)),
    "tinyimagenet": ((0.4802, 0.4481, 0.3975), (0.2770, 0.2691, 0.2821)),
}
"""Mean and deviation by set, as the published script has them."""
MODES = {"frozen": True, "dcd-compat": False}
"""Batch normalisation: whether its running statistics stay as they are."""


class Transferred(nn.Module):
    """``backbone`` with a new linear classifier, N(0, 0.01), which alone is learnt.

    Without ``frozen`` the running statistics of its batch normalisation move while it is trained, which is what the
    published script does by calling ``train()`` on the whole network. ``forward`` takes a batch (images, labels int64
    [B], replaced bool [B]) and returns the loss.
    """

    replaced: Tensor

    def __init__(self, backbone: Backbone, classes: int, *, frozen: bool, seed: int) -> None:
        super().__init__()
        self.backbone = backbone
        self.frozen = frozen
        self.head = nn.Linear(backbone.card.dims["pooled"], classes)
        with torch.no_grad():
            self.head.weight.normal_(0, 0.01, generator=torch.Generator().manual_seed(seed))
            self.head.bias.zero_()
        self.register_buffer("replaced", torch.zeros((), dtype=torch.int64))

    def train(self, mode: bool = True) -> Transferred:
        super().train(mode)
        if self.frozen:
            self.backbone.eval()
        return self

    def logits(self, images: Tensor) -> Tensor:
        """[B, C]."""
        with torch.no_grad():
            pooled = self.backbone.features(images)["pooled"]
        out: Tensor = self.head(pooled)
        return out

    def forward(self, batch: tuple[Tensor, Tensor, Tensor]) -> dict[str, Tensor]:
        images, labels, replaced = batch
        self.replaced += replaced.sum()
        return {"loss": nn.functional.cross_entropy(self.logits(images), labels)}


def check(sets: list[str], card: Card) -> None:
    """Refuse a set without published statistics, and a network that cannot be copied."""
    for name in sets:
        if name not in STATISTICS:
            raise BenchError(
                f"transfer/dcd has no mean and deviation for '{name}': its sets are {', '.join(STATISTICS)}"
            )
    if card.family == "module":
        raise BenchError(
            f"transfer/dcd copies the network, and '{card.name}' is a {card.container or 'module'}: give a checkpoint "
            f"of it with its weights"
        )


def evaluate(task: Task, facts: dict[str, Any]) -> Iterator[Measurement]:
    """Top-1 of the last epoch with frozen batch statistics (the headline), and as the published script leaves them."""
    from suites.finetune import predict, rank, some_of

    mean, deviation = STATISTICS[task.source]
    transform = Transform(resize=(SIZE, SIZE), crop=None, interpolation="bilinear", mean=mean, std=deviation)
    assert task.backbone is not None  # The engine refuses stored features.
    labels = labels_of(task)
    for mode, frozen in MODES.items():
        backbone = copy.deepcopy(task.backbone)
        backbone.card = task.card.model_copy(update={"transform": transform})
        mine = dataclasses.replace(task, card=backbone.card, backbone=backbone, outcomes={})
        trained = _trained(mine, labels.train, labels.trained, mode)
        logits, kept, left_out = predict(mine, trained, task.images["test"], f"{mode} test")
        seen = labels
        if len(kept) < len(task.data["test"]):
            mine.data = {**task.data, "test": some_of(task.data["test"], kept)}
            seen = dataclasses.replace(labels, test=labels.test[kept])
        top, score = rank(logits, seen)
        for measurement in accuracies(
            mine, seen, top, score, engine=engine_of("torch", "bench-train+torch"), outcome=mode, headline=frozen,
            confidence=confidence_of(logits),
            selection="last", seeds=[task.seed], settings={"batch_norm": mode},
            details={**trained.details(), **facts, **({"left_out": {"test": left_out}} if left_out else {})},
        ):  # fmt: skip
            task.outcomes[task._count] = mine.outcomes[mine._count - 1]
            task._count += 1
            yield measurement


def _trained(task: Task, y: Any, classes: int, mode: str) -> Any:
    from torchvision import transforms as T

    from bench.loader import default_workers
    from suites.finetuning.images import TrainingImages
    from suites.loop_probe import Augmented
    from suites.training.length import Length
    from suites.training.loop import train
    from suites.training.schedule import Schedule

    settings, backbone = task.settings, task.backbone
    assert backbone is not None
    assert backbone.card.transform is not None
    transform = backbone.card.transform
    device = torch.device(task.device)
    network = Transferred(backbone, classes, frozen=MODES[mode], seed=task.seed)
    length = Length.of(len(y), settings["batch"], epochs=settings["epochs"])
    optimiser = torch.optim.SGD(
        network.head.parameters(), lr=settings["lr"], momentum=settings["momentum"],
        weight_decay=settings["weight_decay"],
    )  # fmt: skip
    augment = Augmented(
        T.Compose(
            [
                T.Resize((SIZE, SIZE)), T.RandomCrop(SIZE, padding=4), T.RandomHorizontalFlip(), T.ToTensor(),
                T.Normalize(transform.mean, transform.std),
            ]
        )
    )  # fmt: skip
    milestones = tuple(round(at * length.per_epoch) for at in settings["steps"] if at < settings["epochs"])
    return train(
        network, optimiser, TrainingImages(task.images["train"], y, augment), length=length,
        schedule=Schedule("steps", settings["lr"], length.iterations, milestones=milestones), device=device,
        progress=task.progress, precision=task.protocol.precision, seed=task.seed, name=mode,
        folder=task.folder / mode if task.folder is not None else None, identity=[task.protocol.id, mode, task.source],
        micro=None if not MODES[mode] else task.batch,
        workers=task.workers if task.workers is not None else default_workers(device),
    )  # fmt: skip
