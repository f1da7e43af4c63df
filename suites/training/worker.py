"""One of the processes that share a training: `suites.training.processes` starts it with the training as a file."""

from __future__ import annotations

import os
import sys
import threading
import time
import traceback
from pathlib import Path

import torch
import torch.distributed as dist

from bench.errors import BenchError
from bench.progress import Progress
from suites.training.loop import train


def work(place: str, rank: int, count: int) -> None:
    """What one of the processes does."""
    threading.Thread(target=_follow, args=(os.getppid(),), daemon=True).start()
    folder = Path(place)
    code = 1
    try:
        # Our own file, in a folder that only this user can read.
        job = torch.load(folder / "job.pt", map_location="cpu", weights_only=False)
        device = torch.device("cuda", rank) if job["device"].startswith("cuda") else torch.device("cpu")
        if device.type == "cuda":
            torch.cuda.set_device(device)
        backend = "nccl" if device.type == "cuda" else "gloo"
        dist.init_process_group(backend, init_method=f"file://{folder / 'meeting'}", rank=rank, world_size=count)
        progress = Progress(quiet=job.pop("quiet") or rank > 0)
        train(**{**job, "device": device}, progress=progress)
        dist.barrier()
        dist.destroy_process_group()
        code = 0
    except BenchError as refusal:
        (folder / f"refusal-{rank}").write_text(str(refusal))
    except KeyboardInterrupt:
        code = 130
    except BaseException:
        traceback.print_exc()
    sys.stdout.flush()
    sys.stderr.flush()
    # The threads of the group abort an orderly end now and then.
    os._exit(code)


def _follow(parent: int) -> None:
    # Whoever started us may be killed outright: training on alone would meet the next run at the same checkpoint.
    while os.getppid() == parent:
        time.sleep(0.5)
    os._exit(1)


if __name__ == "__main__":
    work(sys.argv[1], int(sys.argv[2]), int(sys.argv[3]))
