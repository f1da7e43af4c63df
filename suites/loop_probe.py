"""Linear heads learnt on augmented images, the frozen network in the loop: one forward pass serves every head."""

from __future__ import annotations

import dataclasses
import io
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from bench.card import digest_of
from bench.errors import BenchError
from bench.files import write_atomically
from suites.choices import built, names_in
from suites.heads import Group, beginning

if TYPE_CHECKING:
    from bench.backbone import Backbone
    from bench.dataset import Dataset
    from bench.suite import Task
    from suites.best_epoch import BestEpoch
    from suites.classification import Labels
    from suites.sgd_grid import Head
    from suites.training.length import Length

PIECE = {"cuda": 256, "cpu": 32}
"""Images that go through the network at once, unless the user says so."""


def learnt(
    task: Task, labels: Labels, grid: Sequence[Head], held: np.ndarray | None = None
) -> Iterator[tuple[Head, np.ndarray]]:
    """As `suites.sgd_probe.learnt`, from random crops and flips of the images instead of stored features.

    What the heads answer to (test, or the held part of train) are stored features by the evaluation transform.
    """
    for feature, (members, group) in _learn(task, labels, grid, held).items():
        heads = group.heads()
        seen = built(task.data["test" if held is None else "train"], feature)
        seen = seen if held is None else seen[held]
        for index, head in enumerate(members):
            yield head, heads.logits(seen, index)


def best_of_epochs(
    task: Task, labels: Labels, grid: Sequence[Head]
) -> tuple[list[dict[str, Any]], tuple[Head, np.ndarray] | None]:
    """(every head with its best epoch on test, the best head and its logits float32 [N, K] there).

    None for the latter where every head diverged.
    """
    from suites.best_epoch import BestEpoch

    best = BestEpoch(task.data["test"], list(dict.fromkeys(head.feature for head in grid)), labels.test)
    _learn(task, labels, grid, None, best)
    return best.path(grid), best.chosen()


def length_of(settings: dict[str, Any], samples: int) -> Length:
    """How long the heads learn from so many samples: an epoch's incomplete batch is left out."""
    from suites.training.length import Length

    limit = {"iterations": settings["iterations"]} if settings["iterations"] else {"epochs": settings["epochs"]}
    return Length.of(samples, settings["batch"], **limit)


def _learn(
    task: Task, labels: Labels, grid: Sequence[Head], held: np.ndarray | None, best: BestEpoch | None = None
) -> dict[str, tuple[list[Head], Group]]:
    """The learnt heads by their feature; ``best`` looks at them after every epoch, and at the end.

    The network stays in eval mode, its batch statistics untouched. Interrupted, it goes on at its last epoch, exactly.
    """
    from bench.cpu import cpu_pass
    from bench.data.subset import Subset
    from suites.finetuning.images import TrainingImages
    from suites.training.order import Order

    settings = task.settings
    backbone = task.backbone
    if backbone is None:
        raise BenchError(f"{task.protocol.id} runs the network itself: it cannot be computed from stored features")
    images = _decodable(task)
    rows = np.arange(len(labels.train)) if held is None else np.flatnonzero(~held)
    length = length_of(settings, len(rows))
    groups = _groups(task, labels, grid, length.batch, length.iterations, length.per_epoch)
    samples = TrainingImages(Subset(images, rows), labels.train[rows], augmentation(settings, backbone))
    device = torch.device(task.device)
    if not getattr(backbone, "live", False):
        backbone.to(device)
    told = [task.seed, *([h.feature, h.rate, h.decay] for h in grid), *(["every epoch"] if best else [])]
    kept = _Kept(task.folder, told, rows, labels)
    first = kept.take_over(groups, device, best)
    with cpu_pass(backbone, device), task.progress.stage("SGD heads", length.iterations, "steps") as stage:
        stage.advance(first)
        order = Order(length, task.seed)
        for iteration, (names, targets) in enumerate(
            _batches(task, backbone, samples, order, range(first, length.iterations), names_in([*groups])), first
        ):
            for feature, (_, group) in groups.items():
                group.advance(torch.cat([names[part] for part in feature.split(":")], dim=1), targets)
            done = iteration + 1
            if best is not None and (done % length.per_epoch == 0 or done == length.iterations):
                best.look(groups, -(-done // length.per_epoch))
            if done % length.per_epoch == 0:
                kept.keep(groups, done, best)
            stage.advance()
    return groups


def augmentation(settings: dict[str, Any], backbone: Backbone) -> Callable[[Any], Tensor]:
    """RandomResizedCrop (area 0.08 to 1) at the model's input size and a flip; then the model's mean and deviation.

    The crops are torchvision's, or with the setting ``crops`` at ``clipped`` those of `suites.crops`.

    Raises `BenchError` for a model whose input size is not fixed.
    """
    from torchvision import transforms as T

    from bench.loader import output_shape

    transform = backbone.card.transform
    shape = output_shape(transform) if transform is not None else None
    if transform is None or shape is None:
        raise BenchError(
            f"'{backbone.card.name}' has no fixed input size, which random crops need: take the -cached recipe"
        )
    crop = T.RandomResizedCrop
    if settings.get("crops") == "clipped":
        from suites.crops import ClippedCrop

        crop = ClippedCrop
    return Augmented(
        T.Compose(
            [
                crop(shape[1:], interpolation=T.InterpolationMode(settings["interpolation"])),
                T.RandomHorizontalFlip(),
                T.ToTensor(),
                T.Normalize(transform.mean, transform.std),
            ]
        )
    )


class Augmented:
    """A transform of RGB images."""

    def __init__(self, transform: Callable[[Any], Any]) -> None:
        self.transform = transform

    def __call__(self, image: Any) -> Tensor:
        from bench.transform import rgb

        return torch.as_tensor(self.transform(rgb(image)), dtype=torch.float32)


def _groups(
    task: Task, labels: Labels, grid: Sequence[Head], batch: int, iterations: int, per_epoch: int
) -> dict[str, tuple[list[Head], Group]]:
    from suites.sgd_grid import recipe_of

    members: dict[str, list[Head]] = {}
    for head in grid:
        members.setdefault(head.feature, []).append(head)
    groups = {}
    widths = task.data["train"].widths
    for feature, heads in members.items():
        recipe = dataclasses.replace(
            recipe_of(task.settings, len(labels.train), heads), batch=batch, iterations=iterations,
            warmup=round(task.settings["warmup"] * per_epoch),
        )  # fmt: skip
        generator = torch.Generator().manual_seed(task.seed)
        width = sum(widths[part] for part in feature.split(":"))
        weight, bias = beginning(recipe.init, labels.trained, width, generator)
        groups[feature] = (heads, Group(weight.to(task.device), recipe, bias.to(task.device)))
    return groups


def _batches(
    task: Task, backbone: Backbone, samples: Any, order: Any, iterations: range, names: Sequence[str]
) -> Iterator[tuple[dict[str, Tensor], Tensor]]:
    """(the features of one total batch by name, its targets), forwarded in pieces that fit."""
    from bench.device import forward_mode
    from bench.loader import default_workers
    from bench.outputs import outputs
    from suites.training.feed import feed

    device = torch.device(task.device)
    pieces = order.length.pieces(task.batch or PIECE[device.type])
    workers = task.workers if task.workers is not None else default_workers(device)
    found: list[dict[str, Tensor]] = []
    targets: list[Tensor] = []
    for images, labels, _ in feed(samples, order, pieces, iterations, workers=workers, pin=device.type == "cuda"):
        with forward_mode(device, task.protocol.precision):
            found.append(outputs(backbone, images.to(device), names))
        targets.append(labels.to(device))
        if len(found) == len(pieces):
            yield {name: torch.cat([part[name] for part in found]) for name in names}, torch.cat(targets)
            found, targets = [], []


def _decodable(task: Task) -> Dataset:
    """The training images whose features there are: those that cannot be decoded are left out here too."""
    from bench.data.subset import Subset

    images, ids = task.images["train"], task.data["train"].ids
    if len(images) == len(ids):
        return images
    known = set(ids)
    return Subset(images, np.array([row for row, name in enumerate(images.ids) if name in known]))


class _Kept:
    """Where the heads are kept between epochs: nothing where the run keeps nothing."""

    def __init__(self, folder: Path | None, grid: list[Any], rows: np.ndarray, labels: Labels) -> None:
        told = digest_of([grid, rows.tolist(), labels.train.tolist()])
        self.path = folder / f"heads-{told[:16]}.pt" if folder is not None else None

    def keep(self, groups: dict[str, tuple[list[Head], Group]], iteration: int, best: BestEpoch | None) -> None:
        if self.path is None:
            return
        buffer = io.BytesIO()
        document = {"iteration": iteration, "groups": [group.state() for _, group in groups.values()]}
        torch.save(document if best is None else {**document, "best": best.state(groups)}, buffer)
        write_atomically(self.path, buffer.getvalue())

    def take_over(
        self, groups: dict[str, tuple[list[Head], Group]], device: torch.device, best: BestEpoch | None
    ) -> int:
        """The iteration to begin with; what cannot be read is made again."""
        if self.path is None or not self.path.is_file():
            return 0
        try:
            document = torch.load(self.path, map_location=device, weights_only=True)
            for (_, group), state in zip(groups.values(), document["groups"], strict=True):
                group.restore(state)
            if best is not None:
                best.restore(document["best"], groups)
            return int(document["iteration"])
        except Exception:
            # Damaged by something other than us: what holds other heads has another name.
            return 0
