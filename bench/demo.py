"""`bench demo`: the whole way on the built-in data, on two real encoders, without a network."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from bench.progress import Progress
    from bench.record import Record

MODELS = ("demo:efficientnet-lite0", "demo:mobilenetv2")


def walk(runs: Path, out: Path, *, device: str, progress: Progress, show: Callable[[Record], None]) -> None:
    """Evaluate the demo encoders by kNN and linear probe on the demo images, then publish the ledger to ``out``."""
    from bench.api import run
    from bench.registry import resolve

    for number, model in enumerate(MODELS, 1):
        command = f"bench run --model {model} --suite knn,linear --data demo --runs {runs}"
        progress.say(f"[{number}/{len(MODELS) + 1}] {command}")
        show(run(model, ["knn", "linear"], "demo", runs=runs, device=device, progress=progress))
    progress.say(f"[{len(MODELS) + 1}/{len(MODELS) + 1}] bench publish --runs {runs} --out {out}")
    progress.say(str(resolve("reports", "site")(runs, out)))
    progress.say("next: bench run --model YOUR.pth --arch resnet50 --suite knn,linear --data imagefolder:YOUR_FOLDER")
