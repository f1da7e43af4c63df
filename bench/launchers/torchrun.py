"""Several processes of one host share a run's forward passes; the numbers are then computed by the process that asked.

Each process begins with its own shards of the feature store and helps the others when it is done; nothing is sent
between them but files. A shard's content does not depend on who makes it, so the record is that of one process. A
process that fails costs nothing but time: what it left is made by whoever comes next.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

import torch

from bench.errors import BenchError

if TYPE_CHECKING:
    from bench.progress import Progress
    from bench.request import Request

PROCESSES = "BENCH_PROCESSES"
"""Environment variable: processes to start; without it one a GPU, or two where there is none."""


def fill(
    request: Request,
    *,
    device: str,
    batch: int | None,
    workers: int | None,
    trust: bool,
    progress: Progress,
) -> None:
    """Fill the feature store with all that ``request`` reads, by several processes that torchrun looks after."""
    count = processes()
    if count == 1:
        progress.say("torchrun: one process is as good as none: the run goes on in this one")
        return
    asked = json.dumps({"device": device, "batch": batch, "workers": workers, "trust": trust})
    with tempfile.TemporaryDirectory(prefix="bench-torchrun-") as logs:
        command = [
            sys.executable, "-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={count}",
            # What they print would mix with ours; it is looked at when one of them fails.
            "--redirects=3", f"--log-dir={logs}", "-m", "bench.launchers.sharing", request.model_dump_json(), asked,
        ]  # fmt: skip
        # torchrun gives processes one thread each where nothing is said; ours are to compute as this one would.
        threads = {"OMP_NUM_THREADS": os.environ.get("OMP_NUM_THREADS", str(torch.get_num_threads()))}
        progress.say(f"torchrun: {count} processes share the forward passes")
        with open(Path(logs) / "agent", "wb") as told:
            agent = subprocess.Popen(command, env={**os.environ, **threads}, stdout=told, stderr=told)
            try:
                code = agent.wait()
            except KeyboardInterrupt:
                agent.terminate()
                agent.wait()
                raise
        if code:
            said = _last_words(Path(logs))
            progress.warn(f"torchrun: a process failed ({said}); what it left to do is done here")


def processes() -> int:
    """How many processes to start."""
    given = os.environ.get(PROCESSES)
    if given is None:
        return torch.cuda.device_count() or 2
    if not given.isdecimal() or int(given) < 1:
        raise BenchError(f"{PROCESSES}={given} is no number of processes")
    return int(given)


def _last_words(logs: Path) -> str:
    """The last line of the first process that said anything on stderr, else of torchrun itself."""
    for path in [*sorted(logs.rglob("stderr.log")), logs / "agent"]:
        lines = [line for line in path.read_text(encoding="utf-8", errors="replace").splitlines() if line.strip()]
        if lines:
            return lines[-1][:300]
    return "it said nothing"
