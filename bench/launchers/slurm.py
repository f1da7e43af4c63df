"""Runs as jobs of a Slurm cluster, through submitit; its logs go to ``RUNS/.slurm``.

The feature store, the ledger, data and checkpoints are on a file system that all nodes share. ``BENCH_SLURM`` holds
the parameters of the jobs (``partition=gpu,timeout_min=600,gpus_per_node=1``); ``BENCH_SLURM_CLUSTER=local`` runs
them as processes of this machine, to try a sweep without a cluster.
"""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

from bench.errors import BenchError
from bench.job import Job, Outcome, do

if TYPE_CHECKING:
    from bench.progress import Progress

PARAMETERS = "BENCH_SLURM"
CLUSTER = "BENCH_SLURM_CLUSTER"
EVERY = 1.0
"""Seconds between looks at the jobs."""


def each(jobs: Sequence[Job], progress: Progress) -> Iterator[tuple[int, Outcome]]:
    """(number of the job, its outcome) as they end. Raises `BenchError` without submitit or without Slurm."""
    try:
        import submitit
    except ImportError:
        raise BenchError("--launcher slurm needs submitit: pip install submitit") from None
    cluster = os.environ.get(CLUSTER, "slurm")
    if cluster not in ("slurm", "local"):
        raise BenchError(f"{CLUSTER}={cluster}: it is slurm or local")
    if cluster == "slurm" and shutil.which("sbatch") is None:
        raise BenchError("--launcher slurm finds no sbatch here: start it on a machine of the cluster")
    try:
        executor = submitit.AutoExecutor(folder=jobs[0].runs / ".slurm", cluster=cluster)
        executor.update_parameters(**{"name": "bench", "timeout_min": 24 * 60, **parameters()})
        with executor.batch():
            sent = [executor.submit(do, job) for job in jobs]
    except (TypeError, ValueError, NameError, submitit.core.utils.FailedJobError) as error:
        raise BenchError(f"{PARAMETERS}: the jobs could not be handed in: {error}") from None
    progress.say(f"slurm: {len(sent)} jobs handed in ({', '.join(job.job_id for job in sent[:5])}...)")
    left = dict(enumerate(sent))
    while left:
        ended = [number for number, job in left.items() if job.done()]
        for number in ended:
            job = left.pop(number)
            failure = job.exception()
            if failure is None:
                yield number, job.result()
            else:
                said = str(failure).strip().splitlines()
                why = said[-1] if said else type(failure).__name__
                yield (
                    number,
                    Outcome(None, reason=f"job {job.job_id} ({job.state}): {why}; its logs: {job.paths.folder}"),
                )
        if not ended:
            time.sleep(EVERY)


def parameters() -> dict[str, Any]:
    """What ``BENCH_SLURM`` says: ``name=value`` pairs, whole numbers as such."""
    found: dict[str, Any] = {}
    for pair in filter(None, os.environ.get(PARAMETERS, "").split(",")):
        name, separator, value = pair.partition("=")
        if not separator or not name.strip():
            raise BenchError(f"{PARAMETERS} takes name=value,name=value, not '{pair}'")
        found[name.strip()] = int(value) if value.strip().isdecimal() else value.strip()
    return found
