"""Sending: jobs and single runs, carried out where a launcher says."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from importlib import import_module
from typing import TYPE_CHECKING

from bench import api
from bench.errors import BenchError
from bench.job import Job, do
from bench.launchers import Place, check
from bench.ledger import read
from bench.ranks import device_of, of_torchrun

if TYPE_CHECKING:
    from bench.job import Outcome
    from bench.progress import Progress
    from bench.record import Record
    from bench.request import Request


def sent(
    launcher: str, jobs: Sequence[Job], progress: Progress, begins: Callable[[int], None] = lambda number: None
) -> Iterator[tuple[int, Outcome]]:
    """Carry out ``jobs`` where ``launcher`` says; (number, outcome) as they end.

    ``begins`` is told the number of each that starts in this process.
    """
    check(launcher)
    if launcher in ("local", "torchrun"):
        for number, job in enumerate(jobs):
            begins(number)
            yield number, do(job, progress, launcher)
    elif jobs:
        yield from import_module(f"bench.launchers.{launcher}").each(jobs, progress)


def record_of(
    launcher: str, request: Request, place: Place, progress: Progress, expect: Record | None = None
) -> Record | None:
    """The record of one run, wherever it is carried out; None in a process that torchrun started to help another one.

    ``expect``: the record that the run repeats. Raises `BenchError` for what the run refuses, and for a process of
    torchrun's that was not told so: each would make a record of its own.
    """
    check(launcher)
    runs, device, batch, workers, trust = place
    ranks = of_torchrun()
    if ranks is not None:
        if launcher != "torchrun":
            raise BenchError("started by torchrun: add --launcher torchrun, or every process makes a record of its own")
        if ranks.rank:
            api.share(request, ranks, device=device, batch=batch, workers=workers, trust=trust)
            return None
        device, launcher = device_of(device, ranks), "local"
    if launcher in ("local", "torchrun"):
        return api.carry_out(
            request, runs=runs, device=device, batch=batch, workers=workers, trust=trust, launcher=launcher,
            ranks=ranks, progress=progress, expect=expect,
        )  # fmt: skip
    if expect is not None:
        raise BenchError(f"--from holds a run to its record in this process: --launcher {launcher} cannot go with it")
    job = Job(request.anywhere(), runs.absolute(), device=device, batch=batch, workers=workers, trust=trust)
    [(_, outcome)] = sent(launcher, [job], progress)
    if outcome.run is None:
        raise BenchError(str(outcome.reason))
    return read(runs / f"{outcome.run}.json")
