"""Where a run happened: software, hardware, memory."""

from __future__ import annotations

import functools
import os
import platform
import resource
import sys
from importlib.metadata import PackageNotFoundError, version
from typing import Any

from bench._version import __version__

LIBRARIES = (
    *("torch", "torchvision", "timm", "faiss-gpu", "faiss-cpu", "numpy", "scipy", "scikit-learn", "pillow"),
    *("onnxruntime", "open-clip-torch", "transformers"),
)


def libraries() -> dict[str, str]:
    """Installed versions of the libraries that can move a number."""
    return {name: found for name in LIBRARIES if (found := _installed(name)) is not None}


@functools.cache
def _installed(name: str) -> str | None:
    """Its version; what a process has imported does not change, and every run of a sweep asks."""
    try:
        return version(name)
    except PackageNotFoundError:
        return None


def environment(device: str) -> dict[str, Any]:
    """The ``environment`` of a Record. Memory in MiB."""
    import psutil
    import torch

    found: dict[str, Any] = {
        "bench": __version__,
        "python": platform.python_version(),
        "platform": platform.platform(),
        "processor": processor(),
        "cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
        "threads": torch.get_num_threads(),
        "memory_mb": psutil.virtual_memory().total // 2**20,
        "device": device,
        "libraries": libraries(),
    }
    if device.startswith("cuda"):
        found["gpu"] = torch.cuda.get_device_name(device)
        found["cuda"] = torch.version.cuda
    return found


def peak_memory_mb(device: str) -> dict[str, int]:
    """Peak resident memory of this process, of its largest worker, and of the accelerator, in MiB."""
    # Linux counts ru_maxrss in KiB, macOS in bytes.
    unit = 2**20 if sys.platform == "darwin" else 2**10
    peak = {
        "process": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // unit,
        "largest_worker": resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss // unit,
    }
    if device.startswith("cuda"):
        import torch

        peak["device"] = torch.cuda.max_memory_allocated(device) // 2**20
    return peak


def processor() -> str:
    """The processor's own name, empty where the system does not tell."""
    try:
        with open("/proc/cpuinfo", encoding="utf-8") as lines:
            for line in lines:
                if line.startswith("model name"):
                    return line.partition(":")[2].strip()
    except OSError:
        pass
    return platform.processor() or platform.machine()
