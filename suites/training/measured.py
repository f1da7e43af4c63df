"""What a training will take, measured before it starts: images at once, memory, images per second."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from bench.device import is_out_of_memory, synchronize
from bench.errors import BenchError
from suites.training import ranks
from suites.training.length import Length
from suites.training.schedule import Schedule

LARGEST = {"cuda": 256, "cpu": 64}
"""Images at once that are tried first."""


@dataclass(frozen=True)
class Estimate:
    """The measured needs of one step."""

    micro: int
    """Images that go through the network at once."""
    memory: int
    """Bytes: weights, gradients, optimiser, average, activations of ``micro`` images."""
    rate: float
    """Images per second of this process, the waiting for their making left out."""
    making: float
    """Seconds that making one image takes in one process."""
    device: torch.device

    def images_per_second(self, workers: int) -> float:
        """With ``workers`` processes that make images beside the network; with none it waits for each."""
        if workers == 0:
            return 1 / (1 / self.rate + self.making)
        return min(self.rate, workers / max(self.making, 1e-9))


def estimate(
    step: Callable[[Any], Tensor],
    model: nn.Module,
    optimiser: torch.optim.Optimizer,
    make: Callable[[int], Any],
    *,
    device: torch.device,
    micro: int,
    multiple: int,
    chosen: bool,
    average: bool,
    noun: str = "images",
) -> Estimate:
    """The largest number of images at once, up to ``micro`` by halving, that the device holds, and what it takes.

    ``step(batch)`` runs forward and backward; ``make(count)`` gives a batch on the device. The module's gradients and
    buffers are afterwards what they were. ``chosen``: the user said ``micro``, so it is not halved but refused.
    Raises `BenchError` when not even the smallest step fits.
    """
    buffers = {name: value.clone() for name, value in model.named_buffers()}
    fixed = _fixed(model, optimiser, average)
    smallest = max(2, multiple)
    making = time.perf_counter()
    few = make(min(smallest, micro))
    making = (time.perf_counter() - making) / min(smallest, micro)
    try:
        per_image = _activations(step, few, model) / min(smallest, micro)
        synchronize(device)
        while True:
            need = fixed + round(per_image * micro)
            room = room_of(device)
            if need - _held(model) <= room:
                try:
                    batch = make(micro)
                    begun = time.perf_counter()
                    step(batch)
                    synchronize(device)
                    seconds = time.perf_counter() - begun
                    return Estimate(micro, need, micro / max(seconds, 1e-9), making, device)
                except (RuntimeError, MemoryError) as error:
                    if not is_out_of_memory(error):
                        raise
            if chosen or micro <= smallest:
                raise BenchError(
                    f"a training step of {micro} {noun} needs about {gigabytes(need)} and {device} has "
                    f"{gigabytes(room + _held(model))} for it: take a smaller network"
                    f"{' or image size' if noun == 'images' else ''}, "
                    f"{'a smaller --batch, ' if chosen and micro > 1 else ''}or a device with more memory"
                )
            micro = max(smallest, micro // 2)
            if device.type == "cuda":
                torch.cuda.empty_cache()
    except (RuntimeError, MemoryError) as error:
        if not is_out_of_memory(error):
            raise
        raise BenchError(
            f"{device} has not the memory for a training step of {min(smallest, micro)} {noun} (about "
            f"{gigabytes(fixed)} before any activation): take a smaller network or a device with more memory"
        ) from error
    finally:
        with torch.no_grad():
            for name, value in model.named_buffers():
                value.copy_(buffers[name])
        for parameter in model.parameters():
            parameter.grad = None


def plan_line(
    name: str,
    length: Length,
    schedule: Schedule,
    optimiser: torch.optim.Optimizer,
    precision: str,
    found: Estimate,
    workers: int,
    noun: str = "images",
) -> str:
    """What is about to happen: iterations, total batch, learning rate, memory, hours at the measured rate."""
    batch = f"{length.batch:,} {noun}"
    if length.batch < length.asked:
        batch += f" (not {length.asked:,}: there are {length.samples:,} to train on)"
    at_once = f", {found.micro} at once" if found.micro < length.batch else ""
    world = f" on each of {ranks.world()} processes" if ranks.world() > 1 else ""
    rate = found.images_per_second(workers) * ranks.world()
    return (
        f"{name}: {length.iterations:,} iterations ({length.epochs:.4g} epochs) of {batch}{at_once}{world}, "
        f"learning rate {schedule.peak:.4g}, {type(optimiser).__name__}, {precision}, "
        f"about {gigabytes(found.memory)} on {found.device}, "
        f"{hours(length.iterations * length.batch / rate)} at {rate:.3g} {noun}/s"
    )


def gigabytes(size: float) -> str:
    return f"{size / 1e9:.1f} GB" if size >= 1e9 else f"{size / 1e6:.0f} MB"


def hours(seconds: float) -> str:
    """``2.3 h``, ``4 min`` or ``50 s``."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"


def room_of(device: torch.device) -> int:
    """Bytes that may still be taken: of the GPU, or of the host within its control group."""
    if device.type == "cuda":
        free, _ = torch.cuda.mem_get_info(device)
        return int(free + torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device))
    import psutil

    room = int(psutil.virtual_memory().available)
    group = Path("/sys/fs/cgroup")
    try:
        limit = (group / "memory.max").read_text().strip()
        if limit.isdigit():
            room = min(room, int(limit) - int((group / "memory.current").read_text()))
    except (OSError, ValueError):
        pass  # no control group of this kind
    return max(0, room)


def _fixed(model: nn.Module, optimiser: torch.optim.Optimizer, average: bool) -> int:
    learned = sum(p.numel() * p.element_size() for p in model.parameters() if p.requires_grad)
    defaults = optimiser.defaults
    copies = 2 if "betas" in defaults else 1 if defaults.get("momentum", 0) else 0
    return _held(model) * (2 if average else 1) + learned * (1 + copies)


def _held(model: nn.Module) -> int:
    return sum(t.numel() * t.element_size() for t in (*model.parameters(), *model.buffers()))


def _activations(step: Callable[[Any], Tensor], batch: Any, model: nn.Module) -> int:
    """Bytes that autograd keeps between forward and backward, weights left out."""
    weights = {p.untyped_storage().data_ptr() for p in model.parameters()}
    kept: dict[int, int] = {}

    def note(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in weights:
            kept[storage.data_ptr()] = storage.nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(note, lambda tensor: tensor):
        step(batch)
    return sum(kept.values())
