"""Cost: what a forward pass of the frozen network takes: parameters, FLOPs, time and memory on a named device."""

from __future__ import annotations

import dataclasses
import platform
import time
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from bench.card import digest_of
from bench.errors import BenchError
from bench.featureset import ArrayFeatureSet
from bench.options import Allowed, count
from bench.suite import Needs, engine_of

if TYPE_CHECKING:
    import torch

    from bench.backbone import Backbone
    from bench.card import Card
    from bench.protocol import Protocol
    from bench.record import Measurement
    from bench.suite import Task

CONFIDENCE = 0.95
TOKENS = 128
"""Of the text that the cost of a text encoder is measured on."""


class Cost:
    """Five numbers; the headline is the throughput. No data are read: the images are random."""

    name = "cost"
    default = "cost/standard@1"
    options: ClassVar[dict[str, Allowed]] = {
        "batch": count(most=100_000),
        # 0: that of the network's own transform.
        "size": count(0, most=100_000),
        "warmup": count(0, most=1000),
        # An interval of a median needs six.
        "repeats": count(6, most=10_000),
    }

    def needs(self, protocol: Protocol, card: Card) -> Needs:
        return Needs(splits=(), backbone=True)

    def evaluate(self, task: Task) -> Iterator[Measurement]:
        import torch

        from bench.device import forward_mode

        backbone = task.backbone
        if backbone is None:
            raise BenchError("suite 'cost' runs the network itself: it cannot be computed from stored features")
        device = torch.device(task.device)
        if not getattr(backbone, "live", False):
            backbone.to(device)
        parts = _parameters(backbone)
        device = parts[0].device if parts else torch.device(getattr(backbone, "device", device))
        shape = image_shape(task.card, task.settings["size"])
        one = made_up(task.card, shape, task.seed).to(device)
        many = one.repeat(task.settings["batch"], *[1] * len(shape))
        where = {
            "device": device_name(device),
            **({"threads": torch.get_num_threads()} if device.type == "cpu" else {}),
        }
        task = on_random_images(task, shape)
        image = {"tokens" if task.card.family == "text" else "image": "x".join(map(str, shape[1:]))}
        with forward_mode(device, task.protocol.precision), task.progress.stage("cost", 4, "parts") as stage:
            yield self._counted(task, "parameters", parameter_count(backbone, task.card), image)
            if parts:  # torch counts the operations of its own modules alone
                yield self._counted(task, "gflops", flops(backbone, one) / 1e9, image)
            stage.advance(2)
            yield self._timed(task, "latency_ms", backbone, one, {"batch": 1, **where})
            stage.advance()
            peak = _PeakMemory(device)
            yield self._timed(task, "images_per_second", backbone, many, {"batch": len(many), **where})
            yield self._counted(task, "peak_memory_mb", peak.read(), {"batch": len(many), **where}, peak.note)
            stage.advance()

    def _counted(
        self, task: Task, metric: str, value: float, settings: dict[str, Any], note: str = "counted, not sampled"
    ) -> Measurement:
        return task.measure(
            metric, value, n=1, engine=engine_of("torch"), unit="", higher_is_better=False, split="synthetic",
            interval_note=note, settings=settings,
        )  # fmt: skip

    def _timed(
        self, task: Task, metric: str, backbone: Backbone, images: torch.Tensor, settings: dict[str, Any]
    ) -> Measurement:
        """The median of repeated passes with its distribution-free interval (order statistics)."""
        from scipy.stats import quantile_test

        seconds = timed(backbone, images, task.settings["warmup"], task.settings["repeats"])
        rate = metric == "images_per_second"
        values = len(images) / seconds if rate else 1e3 * seconds
        bounds = quantile_test(values, q=float(np.median(values)), p=0.5).confidence_interval(CONFIDENCE)
        low, high = float(bounds.low), float(bounds.high)
        known = bool(np.isfinite([low, high]).all())
        return task.measure(
            metric, float(np.median(values)), n=len(values), engine=engine_of("torch"), unit="", higher_is_better=rate,
            split="synthetic", headline=rate, interval=(low, high) if known else None,
            interval_method="order statistics of the median" if known else None,
            interval_note=None if known else "too few repeats for an interval of the median", settings=settings,
            details={"fastest": float(values.max() if rate else values.min())},
        )  # fmt: skip


def timed(backbone: Backbone, images: torch.Tensor, warmup: int, repeats: int) -> np.ndarray:
    """Seconds float64 [repeats] of a forward pass each, after ``warmup`` that do not count.

    Raises `BenchError` where the batch does not fit into memory.
    """
    from bench.device import is_out_of_memory, synchronize

    seconds = np.empty(repeats)
    try:
        for i in range(-warmup, repeats):
            synchronize(images.device)
            start = time.perf_counter()
            backbone.features(images)
            synchronize(images.device)
            if i >= 0:
                seconds[i] = time.perf_counter() - start
    except (RuntimeError, MemoryError) as error:
        if not is_out_of_memory(error):
            raise
        raise BenchError(
            f"a batch of {len(images)} images does not fit into the memory of {images.device}: set cost.batch lower"
        ) from None
    return seconds


def flops(backbone: Backbone, images: torch.Tensor) -> float:
    """Floating-point operations of one forward pass of the backbone, two for every multiply-add (torch's counter)."""
    from torch.utils.flop_counter import FlopCounterMode

    counter = FlopCounterMode(display=False)
    with counter:
        backbone.features(images)
    return float(counter.get_total_flops())


def made_up(card: Card, shape: tuple[int, ...], seed: int) -> torch.Tensor:
    """One input, float32 [1, *shape]: noise for a network of images; for a text encoder tokens without padding."""
    import torch

    if card.family != "text":
        return torch.randn(1, *shape, generator=torch.Generator().manual_seed(seed))
    rows = torch.ones(1, *shape)
    rows[:, 2] = 0
    return rows


def image_shape(card: Card, size: int) -> tuple[int, ...]:
    """Channels, height and width (frames before them for video) of what the network's transform gives.

    Of a text encoder three rows of ``size`` tokens (0: 128, as GLUE is read, or all that it takes).
    """
    if card.family == "text":
        most = card.transform.crop if card.transform is not None else None
        return (3, size or min(TOKENS, most if isinstance(most, int) else TOKENS))
    crop = size or (card.transform.crop or card.transform.resize if card.transform is not None else None)
    if crop is None:
        raise BenchError(f"'{card.name}' has no transform that says its input size: give one with --set cost.size=224")
    height, width = (crop, crop) if isinstance(crop, int) else crop
    return (3, height, width)


def device_name(device: torch.device) -> str:
    """The processor's or the GPU's own name."""
    import torch

    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    from bench.environment import processor

    return processor() or platform.machine()


class _PeakMemory:
    """MiB at the highest point from now on: of the GPU's allocations, or of this whole process on a CPU."""

    def __init__(self, device: torch.device) -> None:
        import torch

        self._device = device
        if device.type == "cuda":
            torch.cuda.reset_peak_memory_stats(device)
            self.note = "the highest allocation, weights included; counted, not sampled"
        else:
            self.note = "of the whole process, libraries included; counted, not sampled"

    def read(self) -> float:
        from bench.environment import peak_memory_mb

        peak = peak_memory_mb(str(self._device))
        return float(peak["device"] if self._device.type == "cuda" else peak["process"])


def _parameters(backbone: Backbone) -> list[torch.nn.Parameter]:
    module = getattr(backbone, "module", backbone)
    return list(module.parameters())


def parameter_count(backbone: Backbone, card: Card) -> float:
    """Parameters as the card counts them (classifier left out), of a live module all it has."""
    return float(card.parameters or sum(p.numel() for p in _parameters(backbone)))


def on_random_images(task: Task, shape: tuple[int, ...]) -> Task:
    """The task with a data set of one random image: what every measurement of it is on."""
    described = "x".join(map(str, shape))
    synthetic = ArrayFeatureSet(
        {}, np.zeros(1, dtype=np.int64), dataset=f"random {described}", split="synthetic",
        fingerprint=f"sha256:{digest_of(['random images', list(shape)])}",
    )  # fmt: skip
    return dataclasses.replace(task, data={"synthetic": synthetic})
