"""`bench demo`: the whole way on the built-in data, on two real encoders, without a network."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from bench.progress import Progress
    from bench.record import Record

MODELS = ("demo:efficientnet-lite0", "demo:mobilenetv2")
STUDENT, TEACHER, PLAIN = "demo:trio-kd", "demo:trio-teacher", "demo:trio-plain"


def walk(runs: Path, out: Path, *, device: str, progress: Progress, show: Callable[[Record], None]) -> None:
    """Evaluate the demo encoders and a distilled student on the demo images, then publish the ledger to ``out``."""
    from bench.api import run
    from bench.registry import resolve

    steps = len(MODELS) + 2
    for number, model in enumerate(MODELS, 1):
        command = f"bench run --model {model} --suite knn,linear --data demo --runs {runs}"
        progress.say(f"[{number}/{steps}] {command}")
        show(run(model, ["knn", "linear"], "demo", runs=runs, device=device, progress=progress))
    settings = {"agreement.baseline": PLAIN, "agreement.splits": "test"}
    options = " ".join(f"--set {key}={value}" for key, value in settings.items())
    progress.say(
        f"[{steps - 1}/{steps}] bench run --model {STUDENT} --teacher {TEACHER} --suite agreement,similarity {options} "
        f"--data demo --runs {runs}"
    )
    show(
        run(
            STUDENT, ["agreement", "similarity"], "demo", teacher=TEACHER, settings=settings, runs=runs, device=device,
            progress=progress,
        )
    )  # fmt: skip
    progress.say(
        "one student and its plain twin only say that these two networks differ or do not: what distillation gains "
        "shows over training seeds (docs/teacher-and-student.md)"
    )
    progress.say(f"[{steps}/{steps}] bench publish --runs {runs} --out {out}")
    progress.say(str(resolve("reports", "site")(runs, out)))
    progress.say("next: bench run --model YOUR.pth --arch resnet50 --suite knn,linear --data imagefolder:YOUR_FOLDER")
