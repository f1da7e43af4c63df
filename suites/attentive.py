"""Attentive probe: one query attends to the frozen network's last tokens, and a linear classifier reads what it finds.

Networks trained by masked modelling keep what they know in their patch tokens, which no fixed mean of them shows.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from bench.errors import BenchError
from bench.options import Allowed, count, positive, words
from bench.suite import Needs, engine_of
from suites.classification import accuracies, confidence_of, labels_of

if TYPE_CHECKING:
    from bench.backbone import Backbone
    from bench.card import Card
    from bench.protocol import Protocol
    from bench.record import Measurement
    from bench.suite import Task
    from suites.attentive_head import Attentive


class AttentiveProbe:
    """Top-1, top-5 and mean per class of the last epoch; the network is in the loop and stays as it is."""

    name = "attentive"
    default = "attentive/single-query@1"
    axes: ClassVar[tuple[str, ...]] = ("size",)
    options: ClassVar[dict[str, Allowed]] = {
        "heads": count(0, 1024),
        "lr": positive(1e6),
        "weight_decay": Allowed(least=0, most=1e6),
        "batch": count(2),
        "epochs": positive(1e6),
        "iterations": count(0),
        "warmup": Allowed(least=0, most=1e6),
        "crop": words("resized", "none"),
        "interpolation": words("bilinear", "bicubic"),
    }

    def needs(self, protocol: Protocol, card: Card) -> Needs:
        if card.family != "vit":
            raise BenchError(
                f"suite 'attentive' reads the tokens of a transformer's last block, and '{card.name}' "
                f"({card.architecture}) has none: use suite 'linear'"
            )
        return Needs(features=(), backbone=True)

    def evaluate(self, task: Task) -> Iterator[Measurement]:
        from suites.finetune import predict, rank, some_of

        labels = labels_of(task)
        trained = _trained(task, labels.train, labels.trained)
        logits, kept, left_out = predict(task, trained, task.images["test"], "attentive test")
        if len(kept) < len(task.data["test"]):
            task = dataclasses.replace(task, data={**task.data, "test": some_of(task.data["test"], kept)})
            labels = dataclasses.replace(labels, test=labels.test[kept])
        top, score = rank(logits, labels)
        network: Attentive = trained.network
        yield from accuracies(
            task, labels, top, score, engine=engine_of("torch", "bench-train+torch"), outcome="last", headline=True,
            confidence=confidence_of(logits),
            selection="last", seeds=[task.seed], settings={},
            feature={"tokens": "all of the last block", "layers": 1, "norm": "none", "read by": "one query"},
            details={
                **trained.details(),
                "attention_heads": network.attention.num_heads,
                **({"training_images_replaced": int(network.replaced)} if int(network.replaced) else {}),
                **({"left_out": {"test": left_out}} if left_out else {}),
            },
        )  # fmt: skip


def _trained(task: Task, y: np.ndarray, classes: int) -> Any:
    import torch

    from bench.loader import default_workers
    from suites.attentive_head import Attentive
    from suites.finetuning.images import TrainingImages
    from suites.loop_probe import augmentation
    from suites.training.length import Length
    from suites.training.loop import train
    from suites.training.schedule import Schedule

    settings, backbone = task.settings, task.backbone
    assert backbone is not None  # The engine refuses stored features.
    device = torch.device(task.device)
    backbone.to(device)
    network = Attentive(backbone, classes, heads_of(task.card, settings["heads"]), task.seed)
    length = Length.of(
        len(y), settings["batch"],
        **({"iterations": settings["iterations"]} if settings["iterations"] else {"epochs": settings["epochs"]}),
    )  # fmt: skip
    decayed = [p for p in network.parameters() if p.ndim > 1]
    others = [p for p in network.parameters() if p.ndim <= 1]
    optimiser = torch.optim.AdamW(
        [{"params": decayed, "weight_decay": settings["weight_decay"]}, {"params": others, "weight_decay": 0.0}],
        lr=settings["lr"],
    )
    made = augmentation(settings, backbone) if settings["crop"] == "resized" else _Untouched(backbone)
    return train(
        network, optimiser, TrainingImages(task.images["train"], y, made), length=length,
        schedule=Schedule(
            "cosine", settings["lr"], length.iterations, warmup=round(settings["warmup"] * length.per_epoch)
        ),
        device=device, progress=task.progress, precision=task.protocol.precision, seed=task.seed, name="attentive",
        folder=task.folder / "attentive" if task.folder is not None else None, identity=[task.protocol.id],
        micro=task.batch, workers=task.workers if task.workers is not None else default_workers(device),
    )  # fmt: skip


def heads_of(card: Card, asked: int) -> int:
    """Attention heads: as asked, or (0) one for every 64 of the width. Refused when they do not divide the width."""
    width = card.dims["pooled"]
    heads = asked or max(1, width // 64)
    if width % heads:
        if not asked:
            return 1
        raise BenchError(f"attentive.heads={asked} does not divide the width {width} of '{card.name}'")
    return heads


class _Untouched:
    def __init__(self, backbone: Backbone) -> None:
        self.backbone = backbone

    def __call__(self, image: Any) -> Any:
        return self.backbone.preprocess(image)
