"""Job: one run as a launcher sends it to where it is carried out, and what came of it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from bench import interruption
from bench.errors import BenchError
from bench.request import Request

if TYPE_CHECKING:
    from bench.progress import Progress


@dataclass(frozen=True)
class Job:
    """Everything that a process elsewhere needs; paths are absolute, folders are shared between the machines."""

    request: Request
    runs: Path
    device: str = "auto"
    batch: int | None = None
    workers: int | None = None
    trust: bool = False


class Outcome(NamedTuple):
    """The record's run, or why there is none."""

    run: str | None
    new: bool = True
    """False: the ledger had the record of this very plan."""
    reason: str | None = None


def do(job: Job, progress: Progress | None = None, launcher: str = "local") -> Outcome:
    """Carry out the job in this process. A failure is an outcome too: the jobs after it are not to blame."""
    from bench.api import carry_out

    present = set(job.runs.glob("*.json")) if job.runs.is_dir() else set()
    try:
        record = carry_out(
            job.request, runs=job.runs, device=job.device, batch=job.batch, workers=job.workers, trust=job.trust,
            progress=progress, reuse=True, launcher=launcher,
        )  # fmt: skip
    except BenchError as error:
        interruption.check()
        return Outcome(None, reason=str(error))
    except Exception as error:
        interruption.check()
        return Outcome(None, reason=f"a defect in bench, not in your input: {type(error).__name__}: {error}")
    return Outcome(record.run, new=job.runs / f"{record.run}.json" not in present)
