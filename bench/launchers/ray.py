"""Runs as tasks on a Ray cluster: an existing one (``RAY_ADDRESS``), else one started on this machine.

The feature store, the ledger, data and checkpoints are on a file system that all nodes share. A task whose worker dies
is tried again elsewhere and goes on from the store and the journal; a record appears once.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

from bench.errors import BenchError
from bench.job import Job, Outcome, do

if TYPE_CHECKING:
    from bench.progress import Progress

RETRIES = 3
"""Further tries of a task whose worker died."""
PASSED_ON = ("BENCH_CACHE", "BENCH_CACHE_GB", "BENCH_DATA", "BENCH_OFFLINE", "PYTHONPATH", "OMP_NUM_THREADS")
"""Variables of this process that the tasks see too."""


def each(jobs: Sequence[Job], progress: Progress) -> Iterator[tuple[int, Outcome]]:
    """(number of the job, its outcome) as they end. Raises `BenchError` without Ray or without a cluster."""
    try:
        import ray
    except ImportError:
        raise BenchError("--launcher ray needs Ray: pip install 'ray[default]'") from None
    # Ray reports its use to its makers unless told otherwise.
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    address = os.environ.get("RAY_ADDRESS")
    started = not ray.is_initialized()
    if started:
        try:
            ray.init(address=address, log_to_driver=False, logging_level="ERROR", configure_logging=False)
        except (ConnectionError, RuntimeError, ValueError) as error:
            where = f"the cluster at RAY_ADDRESS={address}" if address else "a cluster on this machine"
            raise BenchError(f"Ray could not reach or start {where}: {str(error).splitlines()[0]}") from None
    try:
        nodes = [node for node in ray.nodes() if node["Alive"]]
        gpus = ray.cluster_resources().get("GPU", 0)
        progress.say(f"ray: {len(nodes)} node{'s' if len(nodes) != 1 else ''}, {len(jobs)} tasks")
        # A GPU each where there are any; on processors alone a task takes as many as the run would on its own.
        wants: dict[str, Any] = {"num_gpus": 1, "num_cpus": 1} if gpus else {"num_cpus": 1}
        task = ray.remote(max_retries=RETRIES, retry_exceptions=False, **wants)(do)
        variables = {name: os.environ[name] for name in PASSED_ON if name in os.environ}
        waiting = {task.options(runtime_env={"env_vars": variables}).remote(job): i for i, job in enumerate(jobs)}
        while waiting:
            done, _ = ray.wait(list(waiting), num_returns=1)
            for reference in done:
                number = waiting.pop(reference)
                try:
                    outcome: Outcome = ray.get(reference)
                except ray.exceptions.RayError as error:
                    lost = str(error).strip().splitlines()[0]
                    outcome = Outcome(None, reason=f"lost by Ray after {RETRIES} further tries: {lost}")
                yield number, outcome
    finally:
        if started:
            ray.shutdown()
