"""Launchers: where the runs of a request are carried out. `local` is this process and has no row."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

from bench.errors import BenchError
from bench.registry import nearest

TABLE = {
    "torchrun": "several processes of this host share the forward passes, one GPU each",
    "ray": "runs as tasks on a Ray cluster, with retries",
    "slurm": "runs as jobs of a Slurm cluster, through submitit",
}
NAMES = ("local", *TABLE)


class Place(NamedTuple):
    """Where and with what a run is carried out: what its numbers do not depend on."""

    runs: Path
    device: str = "auto"
    batch: int | None = None
    workers: int | None = None
    trust: bool = False


def check(launcher: str) -> None:
    """Refuse an unknown launcher, with the names there are."""
    if launcher not in NAMES:
        raise BenchError(f"unknown launcher '{launcher}'{nearest(launcher, list(NAMES))}")
