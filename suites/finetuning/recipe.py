"""A recipe: the settings of a protocol card as an optimiser, a schedule and a length; and as a table."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

from bench.errors import BenchError
from bench.options import Allowed, count, words
from suites.training.groups import grouped
from suites.training.length import Length
from suites.training.schedule import Schedule

if TYPE_CHECKING:
    import torch

    from suites.finetuning.network import FineTuned

RULES = {"absolute": None, "batch/256": 256, "batch/512": 512}
"""How the stated learning rate becomes the one used: as it is, or times the total batch over this number."""

_SOME = Allowed(least=0, most=1)
OPTIONS: dict[str, Allowed] = {
    "epochs": Allowed(above=0, most=100_000),
    # 0: the epochs say how long.
    "iterations": count(0),
    "batch": count(),
    "lr": Allowed(above=0, most=1e6, a_set=True),
    "lr_rule": words(*RULES),
    # None: the trunk's.
    "head_lr": Allowed(above=0, most=1e6),
    "optimiser": words("adamw", "sgd"),
    "momentum": Allowed(least=0, below=1),
    "weight_decay": Allowed(least=0, most=1e3, a_set=True),
    "layer_decay": Allowed(above=0, most=1),
    # -epoch: a new rate at every epoch, not at every iteration; -whole: the cosine counts the warmup's epochs too.
    "schedule": words("cosine", "cosine-epoch", "cosine-whole", "cosine-whole-epoch", "linear", "steps", "constant"),
    "warmup": Allowed(least=0, most=100_000),
    # Where the warmup begins and the cosine ends; the rate itself, whatever the rule.
    "warmup_lr": Allowed(least=0, most=1e6),
    "min_lr": Allowed(least=0, most=1e6),
    "milestones": Allowed(least=0, most=100_000, a_set=True),
    "gamma": Allowed(above=0, most=1),
    "drop_path": Allowed(least=0, below=1),
    "mixup": Allowed(least=0, most=100),
    "cutmix": Allowed(least=0, most=100),
    "smoothing": Allowed(least=0, below=1),
    "crop": words("resized", "padded", "none"),
    "least_area": Allowed(above=0, most=1),
    "erasing": _SOME,
    "pool": words("pooled", "cls", "mean", "pooler"),
    # Before the classifier; of texts, and tokens of a text, special ones counted.
    "dropout": Allowed(least=0, below=1),
    "length": count(4, 100_000),
    "head_sd": Allowed(above=0, most=10),
    # 0: none.
    "clip": Allowed(least=0, most=1e6),
    "ema": Allowed(least=0, below=1),
    # 0: all of train.
    "percent": Allowed(least=0, most=100),
    "holdout": Allowed(above=0, below=1),
}


def length_of(settings: dict[str, Any], samples: int) -> Length:
    """How long ``samples`` training images are learned from. Mixing pairs images, so batches are then even."""
    pairs = 2 if settings["mixup"] > 0 or settings["cutmix"] > 0 else 1
    if settings["batch"] < pairs:
        raise BenchError("mixup and cutmix mix two images: finetune.batch must be at least 2")
    if settings["iterations"]:
        return Length.of(samples, settings["batch"], iterations=settings["iterations"], multiple=pairs)
    return Length.of(samples, settings["batch"], epochs=settings["epochs"], multiple=pairs)


def schedule_of(settings: dict[str, Any], length: Length, lr: float) -> Schedule:
    """The learning rate of every iteration; epochs of the card become iterations of ``length``."""
    warmup = round(settings["warmup"] * length.per_epoch)
    if warmup >= length.iterations:
        # A run cut short (`finetune.epochs=1`) keeps the warmup's share of the recipe, so that it learns at all.
        whole = settings["iterations"] or settings["epochs"] * length.per_epoch
        warmup = math.floor(length.iterations * min(0.5, settings["warmup"] * length.per_epoch / max(whole, 1)))
    kind, *how = settings["schedule"].split("-")
    return Schedule(
        "poly" if kind == "linear" else kind,
        peak=rate_of(settings, lr, length.batch),
        iterations=length.iterations,
        warmup=warmup,
        start=min(settings["warmup_lr"], rate_of(settings, lr, length.batch)),
        floor=min(settings["min_lr"], rate_of(settings, lr, length.batch)),
        milestones=tuple(round(epoch * length.per_epoch) for epoch in settings["milestones"]),
        gamma=settings["gamma"],
        whole="whole" in how,
        every=length.per_epoch if "epoch" in how else 1,
    )


def rate_of(settings: dict[str, Any], lr: float, batch: int) -> float:
    """The learning rate itself: by the card's rule, for the total batch that is really used."""
    per = RULES[settings["lr_rule"]]
    return lr if per is None else lr * batch / per


def optimiser_of(settings: dict[str, Any], network: FineTuned, lr: float, weight_decay: float) -> torch.optim.Optimizer:
    """AdamW or SGD over the groups of layer decay, the head with a rate of its own where the card gives one."""
    import torch

    head = settings["head_lr"] / lr if settings["head_lr"] is not None else 1.0
    if settings["decay_over_lr"]:
        weight_decay /= lr
    groups = grouped(
        [(network.trunk, 1.0), (network.tail, 1.0), (network.norm, 1.0), (network.head, head)],
        weight_decay=weight_decay,
        layer_decay=settings["layer_decay"],
        undecayed=settings["decay_spares_vectors"],
    )
    if settings["optimiser"] == "adamw":
        return torch.optim.AdamW(groups, lr=lr, betas=(0.9, 0.999), eps=1e-8)
    if settings["nesterov"] and settings["momentum"] == 0:
        raise BenchError("Nesterov's momentum needs one: finetune.momentum above 0, or finetune.nesterov=false")
    return torch.optim.SGD(groups, lr=lr, momentum=settings["momentum"], nesterov=settings["nesterov"])


def grid_of(settings: dict[str, Any]) -> list[tuple[float, float]]:
    """Every (learning rate, weight decay) of the card, in order."""
    return [(float(lr), float(decay)) for lr in settings["lr"] for decay in settings["weight_decay"]]


def table(settings: dict[str, Any]) -> dict[str, str]:
    """The recipe in the words of a paper's table, for people."""
    rates = "/".join(f"{lr:g}" for lr in settings["lr"])
    rule = "" if settings["lr_rule"] == "absolute" else f" x {settings['lr_rule']}"
    head = f", head {settings['head_lr']:g}" if settings["head_lr"] is not None else ""
    kind, *more = settings["schedule"].split("-")
    counted = (", the warmup counted" if "whole" in more else "") + (", by epoch" if "epoch" in more else "")
    how = {
        "cosine": f"cosine to {settings['min_lr']:g}{counted}",
        "linear": f"linear to {settings['min_lr']:g}",
        "steps": f"x{settings['gamma']:g} at {', '.join(f'{epoch:g}' for epoch in settings['milestones'])}",
        "constant": "constant",
    }[kind]
    crops = {
        "resized": f"random resized crop from {settings['least_area']:g} of the area",
        "padded": "random crop, padded",
    }
    crop = crops.get(settings["crop"], "the evaluation transform")
    long = f"{settings['iterations']:,} iterations" if settings["iterations"] else f"{settings['epochs']:g}"
    momentum = f" {settings['momentum']:g}{' Nesterov' if settings['nesterov'] else ''}"
    return {
        "epochs": long,
        "batch": f"{settings['batch']:,}",
        "optimiser": "AdamW .9/.999" if settings["optimiser"] == "adamw" else f"SGD{momentum}",
        "learning rate": f"{rates}{rule}{head}",
        "schedule": how,
        "warmup": f"{settings['warmup']:g}",
        "weight decay": "/".join(f"{decay:g}" for decay in settings["weight_decay"]),
        "layer decay": f"{settings['layer_decay']:g}",
        "drop path": f"{settings['drop_path']:g}",
        "mixup/cutmix": f"{settings['mixup']:g}/{settings['cutmix']:g}",
        "smoothing": f"{settings['smoothing']:g}",
        "augmentation": f"{crop}{', flip' if settings['flip'] else ''}"
        + (f", {settings['auto_augment']}" if settings["auto_augment"] else ""),
        "erasing": f"{settings['erasing']:g}",
        "pool": {"mean": "mean of the patch tokens, new norm", "cls": "class token", "pooler": "BERT's pooler"}.get(
            settings["pool"], "pooled"
        ),
    }
