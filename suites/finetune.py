"""Fine-tune: a copy of the network trained end to end with a new classifier, by a published recipe."""

from __future__ import annotations

import dataclasses
import json
import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from bench.errors import BenchError
from bench.files import write_atomically
from bench.modality import noun_of
from bench.options import Allowed
from bench.suite import Needs, engine_of
from suites.classification import Labels, accuracies, confidence_of, labels_of
from suites.finetuning import text
from suites.finetuning.recipe import OPTIONS, grid_of, length_of, optimiser_of, schedule_of, table

if TYPE_CHECKING:
    from bench.card import Card
    from bench.dataset import Dataset
    from bench.protocol import Protocol
    from bench.record import Measurement
    from bench.suite import Task
    from suites.finetuning.network import FineTuned
    from suites.training.loop import Trained

MOST_CORRUPT = 0.01
"""Share of test images that may be left out because they cannot be decoded."""


class FineTune:
    """Top-1, top-5 and mean per class of the network at the end of its training; the curve is in ``details``.

    With several learning rates or weight decays each is tried on a hold-out of train, and the best is trained on all.
    """

    name = "finetune"
    default = "finetune/mae-b@1"
    options: ClassVar[dict[str, Allowed]] = OPTIONS

    def needs(self, protocol: Protocol, card: Card) -> Needs:
        if card.family == "text":
            text.check(protocol, card)
            return Needs(features=(), backbone=True)
        if protocol.settings["pool"] == "pooler":
            raise BenchError(
                f"{protocol.id} fine-tunes a text encoder, and '{card.name}' ({card.architecture}) reads images: "
                f"choose another recipe with --protocol finetune=adamw"
            )
        if card.family in ("module", "video", "features"):
            raise BenchError(
                f"suite 'finetune' trains a copy of an image network, and '{card.name}' is of the family "
                f"'{card.family}' ({card.container or card.architecture}): give "
                f"{'a checkpoint of it with its weights' if card.family == 'module' else 'one'}"
            )
        pool = protocol.settings["pool"]
        if pool == "mean" and "cls" not in card.dims and card.family != "vit":
            raise BenchError(
                f"{protocol.id} averages patch tokens, and '{card.name}' ({card.architecture}) has none: choose a "
                f"recipe for it with --protocol finetune=adamw, or --set finetune.pool=pooled"
            )
        if pool == "cls" and "cls" not in card.dims:
            raise BenchError(
                f"{protocol.id} reads a class token, and '{card.name}' ({card.architecture}) has none: choose a "
                f"recipe for it with --protocol finetune=adamw, or --set finetune.pool=pooled"
            )
        return Needs(features=(), backbone=True)

    def evaluate(self, task: Task) -> Iterator[Measurement]:
        if getattr(task.images["train"], "targets", None) is not None:
            raise BenchError(
                f"suite 'finetune' learns classes, and {task.data['train'].dataset} gives its texts scores: "
                f"--suite glue --set glue.tasks=stsb learns those"
            )
        if any(np.ndim(split.labels) != 1 for split in task.data.values()):
            raise BenchError("suite 'finetune' learns one class per sample, and these data have several")
        task, train = _part_of_train(text.shortened(task))
        labels = labels_of(task)
        task.progress.say(
            f"{task.protocol.id}: " + "; ".join(f"{name} {value}" for name, value in table(task.settings).items())
        )
        grid = grid_of(task.settings)
        tried: list[dict[str, Any]] = []
        lr, decay = grid[0]
        if len(grid) > 1:
            lr, decay, tried = _choose(task, train, labels, grid)
        rows = np.arange(len(train))
        trained = train_copy(task, train, labels.train, rows, labels.trained, lr, decay, "finetune")
        logits, kept, left_out = predict(task, trained, task.images["test"], "finetune test")
        if len(kept) < len(task.data["test"]):
            task = dataclasses.replace(task, data={**task.data, "test": some_of(task.data["test"], kept)})
            labels = dataclasses.replace(labels, test=labels.test[kept])
        top, score = rank(logits, labels)
        pooled = task.card.feature if task.settings["pool"] == "pooled" else task.settings["pool"]
        network: FineTuned = trained.network  # type: ignore[assignment]
        replaced = int(network.replaced)
        yield from accuracies(
            task, labels, top, score, engine=engine_of("torch", "bench-train+torch"), outcome="last", headline=True,
            confidence=confidence_of(logits),
            selection="holdout" if tried else "last", seeds=[task.seed], settings={},
            feature={**task.feature(), "tokens": pooled, "trained": "end to end"},
            details={
                **trained.details(),
                "recipe": table(task.settings),
                **({"tried": tried} if tried else {}),
                **({"training_images_replaced": replaced} if replaced else {}),
                **({"left_out": {"test": left_out}} if left_out else {}),
            },
        )  # fmt: skip


def rank(logits: np.ndarray, labels: Labels) -> tuple[np.ndarray, np.ndarray]:
    """The best classes [N, m] and the true class' probability [N]; refused when a logit is not finite."""
    from suites.classification import rank as ranked

    if not np.isfinite(logits).all():
        raise BenchError("the fine-tuned network gives logits that are not finite: lower finetune.lr")
    return ranked(logits, labels)


def predict(
    task: Task, trained: Trained, images: Dataset, stage_name: str
) -> tuple[np.ndarray, np.ndarray, dict[str, Any]]:
    """(logits float32 [M, C], the M rows that could be decoded, what was left out) of ``images``."""
    import torch

    from bench.device import forward_mode
    from bench.loader import Decoder, decode, default_workers, output_shape

    network: FineTuned = trained.network  # type: ignore[assignment]
    device = torch.device(task.device)
    size = task.batch or (256 if device.type == "cuda" else 64)
    backbone = task.backbone
    assert backbone is not None
    shape = output_shape(task.card.transform) if task.card.transform is not None else None
    decoder = Decoder(images, backbone.preprocess, shape)
    batches = [range(start, min(start + size, len(images))) for start in range(0, len(images), size)]
    workers = task.workers if task.workers is not None else default_workers(device)
    found: list[np.ndarray] = []
    rows: list[int] = []
    corrupt: list[str] = []
    with (
        forward_mode(device, task.protocol.precision),
        task.progress.stage(stage_name, len(images), noun_of(images)) as stage,
    ):
        for decoded in decode(decoder, batches, workers=workers, size=size):
            if decoded.kept:
                found.append(network.logits(decoded.images.to(device)).float().cpu().numpy())
            rows += decoded.kept
            corrupt += [bad.path for bad in decoded.corrupt]
            stage.advance(len(decoded.kept) + len(decoded.corrupt))
    if len(corrupt) > MOST_CORRUPT * len(images):
        raise BenchError(
            f"{len(corrupt)} of the {len(images)} {noun_of(images)} of {images.name} {images.split} cannot be decoded, "
            f"more than the {MOST_CORRUPT:.0%} allowed, first {corrupt[0]}: mend or remove them"
        )
    left_out = {"corrupt": len(corrupt), "corrupt_images": corrupt[:20]} if corrupt else {}
    return np.concatenate(found), np.array(rows), left_out


def train_copy(
    task: Task, train: Dataset, y: np.ndarray, rows: np.ndarray, classes: int, lr: float, decay: float, name: str,
    regression: bool = False,
) -> Trained:  # fmt: skip
    """A fresh copy of the backbone trained on ``rows`` of ``train``; ``y`` are classes, or numbers in a regression."""
    import torch

    from bench.data.subset import Subset
    from bench.loader import default_workers
    from suites.finetuning.images import TrainingImages, augmentation, mixing
    from suites.finetuning.network import FineTuned
    from suites.training.loop import train as learn

    settings = task.settings
    backbone = task.backbone
    assert backbone is not None
    network = FineTuned(
        backbone, classes, pool=settings["pool"], head_sd=settings["head_sd"], drop_path=settings["drop_path"],
        mixing=mixing(settings, classes), smoothing=settings["smoothing"], checkpointing=settings["checkpointing"],
        seed=task.seed, dropout=settings.get("dropout", 0.0), regression=regression,
    )  # fmt: skip
    length = length_of(settings, len(rows))
    if settings["bn_momentum_by_epoch"]:
        slow_batch_norm(network, length.per_epoch)
    device = torch.device(task.device)
    part = train if len(rows) == len(train) else Subset(train, rows)
    return learn(
        network,
        optimiser_of(settings, network, lr, decay),
        TrainingImages(part, y[rows], augmentation(settings, backbone)),
        length=length,
        schedule=schedule_of(settings, length, lr),
        device=device,
        progress=task.progress,
        precision=task.protocol.precision,
        seed=task.seed,
        name=name,
        folder=task.folder / name.replace(" ", "-") if task.folder is not None else None,
        identity=[task.protocol.id, lr, decay],
        micro=task.batch,
        workers=task.workers if task.workers is not None else default_workers(device),
        clip=settings["clip"] or None,
        average=settings["ema"] or None,
    )


def slow_batch_norm(network: FineTuned, per_epoch: int) -> None:
    """Batch norm's momentum as SimCLR fine-tunes: the old statistics keep max(1 - 10 / steps per epoch, 0.9)."""
    from torch import nn

    for part in network.modules():
        if isinstance(part, nn.modules.batchnorm._BatchNorm):
            part.momentum = 1 - max(1 - 10 / per_epoch, 0.9)


def _choose(
    task: Task, train: Dataset, labels: Labels, grid: list[tuple[float, float]]
) -> tuple[float, float, list[dict[str, Any]]]:
    """The best (learning rate, weight decay) on a hold-out of train, the first of equals, and all that was tried."""
    from bench.data.subset import Subset
    from suites.validation import holdout

    held = holdout(labels.train, task.settings["holdout"], task.seed, remedy="give one finetune.lr and weight_decay")
    known, unknown = np.flatnonzero(~held), np.flatnonzero(held)
    kept = task.folder / "tried.json" if task.folder is not None else None
    tried = _tried(kept)[: len(grid)]
    for number, (lr, decay) in list(enumerate(grid, 1))[len(tried) :]:
        name = f"finetune {number} of {len(grid)}"
        trained = train_copy(task, train, labels.train, known, labels.trained, lr, decay, name)
        logits, rows, _ = predict(task, trained, Subset(train, unknown), "finetune hold-out")
        accuracy = 100 * float((logits.argmax(axis=1) == labels.train[unknown[rows]]).mean())
        tried.append({"lr": lr, "weight_decay": decay, "holdout_top1": accuracy})
        if kept is not None and task.folder is not None:
            # The number is all that is needed of it: 49 networks would fill a disk.
            write_atomically(kept, json.dumps(tried).encode())
            shutil.rmtree(task.folder / name.replace(" ", "-"), ignore_errors=True)
    best = max(tried, key=lambda point: point["holdout_top1"])
    return best["lr"], best["weight_decay"], tried


def _tried(path: Path | None) -> list[dict[str, Any]]:
    """What an interrupted run has tried; its folder is that of the very same request."""
    try:
        found: list[dict[str, Any]] = json.loads(path.read_text()) if path is not None else []
    except (OSError, ValueError):
        return []
    return found


def _part_of_train(task: Task) -> tuple[Task, Dataset]:
    """The samples to learn from: all, those of a published list, or a share of every class."""
    from bench.data.subset import Subset
    from suites.fewshot import drawn, listed

    settings, train = task.settings, task.images["train"]
    if not settings["list"] and not settings["percent"]:
        return task, train
    data = task.data["train"]
    if settings["list"]:
        rows = listed(data, _list_at(settings["list"]), "finetune.list")
    else:
        _, y = np.unique(data.labels, return_inverse=True)
        quota = np.maximum(np.floor(settings["percent"] / 100 * np.bincount(y) + 0.5).astype(int), 1)
        rows = drawn(y, quota, task.seed)
    part = Subset(train, rows)
    chosen = some_of(data, rows, part.fingerprint)
    return dataclasses.replace(task, data={**task.data, "train": chosen}), part


def _list_at(name: str) -> Path:
    """The file of a published list: a path, or a name under ``$BENCH_DATA``."""
    root = os.environ.get("BENCH_DATA")
    places = [Path(name).expanduser()]
    if root:
        places += [Path(root).expanduser() / "imagenet" / name, Path(root).expanduser() / name]
    for place in places:
        if place.is_file():
            return place
    raise BenchError(
        f"the list of training images '{name}' is not here (looked at {', '.join(map(str, places))}): put SimCLR's "
        f"file of that name (google-research/simclr, imagenet_subsets) there, or draw a share of your own with "
        f"--set finetune.list= --set finetune.percent=1"
    )


def some_of(data: Any, rows: np.ndarray, fingerprint: str | None = None) -> Any:
    """Some samples of a split without features."""
    from bench.featureset import ArrayFeatureSet

    return ArrayFeatureSet(
        {}, data.labels[rows], dataset=data.dataset, split=data.split, fingerprint=fingerprint or data.fingerprint,
        ids=[data.ids[int(row)] for row in rows], classes=data.classes,
    )  # fmt: skip
