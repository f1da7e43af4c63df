"""One training of a suite's task: what every dense suite asks of the loop in the same way."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from bench.errors import BenchError
from bench.loader import default_workers
from suites.training.length import Length
from suites.training.loop import Trained, train
from suites.training.schedule import Kind, Schedule

if TYPE_CHECKING:
    from bench.suite import Task
    from suites.training.feed import Collate, Samples

CHECKPOINTS = 20
"""A training is kept so many times at least on its way."""


def train_task(
    task: Task,
    model: nn.Module,
    optimiser: torch.optim.Optimizer,
    samples: Samples,
    *,
    name: str,
    fingerprint: str,
    kind: Kind,
    start: float,
    milestones: tuple[int, ...] = (),
    collate: Collate | None = None,
) -> Trained:
    """Train ``model`` on ``samples`` as the task's settings ``iterations``, ``batch``, ``lr`` and ``warmup`` say.

    ``start``: the learning rate of the first iteration, as a share of the highest. ``fingerprint``: that of the data,
    part of what an interrupted training is known by. The warmup is never longer than half the iterations. Batch norms
    in train mode take their statistics over all processes.
    """
    settings, device = task.settings, torch.device(task.device)
    iterations, rate = settings["iterations"], settings["lr"]
    return train(
        model,
        optimiser,
        samples,
        length=Length.of(len(samples), settings["batch"], iterations=iterations),
        schedule=Schedule(
            kind, rate, iterations, warmup=min(settings["warmup"], iterations // 2), start=rate * start,
            milestones=milestones,
        ),
        device=device,
        progress=task.progress,
        precision=task.protocol.precision,
        seed=task.seed,
        name=name,
        folder=task.folder,
        identity=[task.protocol.id, task.card.weight_digest, fingerprint],
        micro=task.batch,
        workers=default_workers(device) if task.workers is None else task.workers,
        collate=collate,
        every=max(1, iterations // CHECKPOINTS),
        sync=True,
    )  # fmt: skip


def scaled_transform(task: Task) -> Any:
    """The sizes, mean and deviation of the network's transform; a callable is refused: the suite scales images itself,
    and has to know how the network wants them coloured."""
    from bench.card import Transform

    own = task.card.transform
    if own is not None and own.custom is not None:
        raise BenchError(
            f"suite '{task.protocol.suite}' scales images itself, and this model's transform is a callable: "
            f"give bench.wrap a transform of sizes, mean and std"
        )
    return own or Transform()
