"""One training in several processes of this host: each takes its share of every batch, and this one waits.

The processes get the training as a file, join a group of their own (NCCL between GPUs, Gloo between CPUs), and leave a
finished checkpoint, which the caller takes over like an interrupted one's.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import torch

from bench.errors import BenchError

VARIABLE = "BENCH_PROCESSES"
"""Environment variable: processes that share a training; without it, as many as torchrun started here, or one."""
PATIENCE = 60.0
"""Seconds that processes have to write what they have when they are asked to stop."""


def asked() -> int:
    """How many processes the user wants. Raises `BenchError` for what is no number."""
    # Started by torchrun, whose other processes only help with forward passes, this one shares trainings as widely.
    started = os.environ.get("LOCAL_WORLD_SIZE", "1") if "TORCHELASTIC_RUN_ID" in os.environ else "1"
    given = os.environ.get(VARIABLE, started)
    if not given.isdecimal() or int(given) < 1:
        raise BenchError(f"{VARIABLE}={given} is no number of processes")
    return int(given)


def share(job: dict[str, Any], count: int, device: torch.device, name: str) -> None:
    """Have ``count`` processes carry out ``job`` (the arguments of `suites.training.loop.train`).

    Raises `BenchError` when one of them refuses or dies; all of them are ended then.
    """
    if device.type == "cuda" and torch.cuda.device_count() < count:
        raise BenchError(
            f"{name}: {VARIABLE}={count} asks for a GPU each, and there are {torch.cuda.device_count()}: lower it"
        )
    with tempfile.TemporaryDirectory(prefix="bench-training-") as place:
        folder = Path(place)
        # One pickle, so that the optimiser still holds the parameters of the module.
        torch.save(job, folder / "job.pt")
        environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
        environment["OMP_NUM_THREADS"] = str(max(1, torch.get_num_threads() // count))
        processes = []
        try:
            for rank in range(count):
                with open(folder / f"said-{rank}", "wb") as said:
                    command = [sys.executable, "-m", "suites.training.worker", place, str(rank), str(count)]
                    # A session of their own: Ctrl-C reaches them once, from here. Rank 0 shows the progress.
                    processes.append(
                        subprocess.Popen(
                            command, env=environment, start_new_session=True, stdout=said,
                            stderr=None if rank == 0 else said,
                        )
                    )  # fmt: skip
            _wait(processes)
        except BaseException as error:
            _stop(processes, signal.SIGINT if isinstance(error, KeyboardInterrupt) else signal.SIGTERM)
            raise
        codes = [process.returncode for process in processes]
        if any(codes):
            _stop(processes, signal.SIGTERM)
            refusals = [path.read_text() for path in sorted(folder.glob("refusal-*"))]
            if refusals:
                raise BenchError(refusals[0])
            rank = next(rank for rank, code in enumerate(codes) if code)
            lines = (folder / f"said-{rank}").read_text(errors="replace").strip().splitlines() or ["see above"]
            raise BenchError(
                f"{name}: process {rank} of {count} ended with code {codes[rank]} ({lines[-1][:200]}); what was "
                f"finished is kept: run the same command again"
            )


def _wait(processes: list[subprocess.Popen[bytes]]) -> None:
    """Until all are done or one has failed: the others would wait for it for ever."""
    while any(process.poll() is None for process in processes):
        if any(process.returncode for process in processes):
            _stop(processes, signal.SIGTERM)
            return
        time.sleep(0.05)


def _stop(processes: list[subprocess.Popen[bytes]], number: signal.Signals) -> None:
    for process in processes:
        if process.poll() is None:
            process.send_signal(number)
    deadline = time.monotonic() + PATIENCE
    for process in processes:
        try:
            process.wait(max(0.1, deadline - time.monotonic()))
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
