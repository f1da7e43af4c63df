"""Extraction against the bare forward of the same network on images that are already decoded, and decoding alone.

    python benchmarks/extraction.py [--images 512] [--rounds 5] [--arch tf_efficientnet_lite0] [--threads N]

Each round runs every contender once, one after the other, so that whatever else the machine does falls on all of them;
the ratios are medians over rounds. Beside images per second of wall time there is processor time per image (this
process and its workers): on a machine that others use too it is the figure to trust, with ``--threads 1`` (idle threads
spin).
"""

from __future__ import annotations

import argparse
import io
import os
import platform
import resource
import statistics
import tempfile
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from bench.backbone import Backbone, freeze, weight_digest
from bench.card import Card, Transform
from bench.cpu import cpu_pass
from bench.dataset import fingerprint_of
from bench.device import choose, forward_mode
from bench.extract import CPU_BATCH, extract
from bench.loader import Decoder, decode, default_workers
from bench.progress import Progress
from bench.transform import apply

SIDE = 224


class Network(Backbone):
    """A timm architecture with random weights: speed does not depend on them."""

    def __init__(self, architecture: str) -> None:
        super().__init__()
        import timm

        torch.manual_seed(0)
        self.net = timm.create_model(architecture, pretrained=False, num_classes=0)
        self.card = Card(
            name=architecture,
            spec=f"timm:{architecture}",
            architecture=architecture,
            family="cnn",
            dims={"pooled": int(self.net.num_features)},
            feature="avg",
            transform=Transform(resize=None, crop=SIDE),
            weight_digest=weight_digest(self.state_dict()),
        )
        freeze(self)

    def features(self, images: Tensor) -> dict[str, Tensor]:
        return {"pooled": self.net(images)}

    def pyramid(self, images: Tensor) -> list[Tensor]:
        raise NotImplementedError


class Pictures:
    """Noise pictures: in memory at the input size, or as JPEG files' bytes of a photo's size."""

    name, split, classes, class_ids = "pictures", "train", ("one",), (0,)

    def __init__(self, n: int, *, jpeg: bool) -> None:
        rng = np.random.default_rng(0)
        self.labels = np.zeros(n, dtype=np.int64)
        self.ids = [str(i) for i in range(n)]
        self.fingerprint = fingerprint_of([(bytes([jpeg]), n)])
        self.jpeg = jpeg
        if jpeg:
            # Smooth noise has about the bits per pixel of a photo.
            small = rng.integers(0, 256, (50, 38, 3), dtype=np.uint8)
            stream = io.BytesIO()
            Image.fromarray(small).resize((500, 375), Image.Resampling.BICUBIC).save(stream, "JPEG", quality=90)
            self.content = stream.getvalue()
        else:
            self.pixels = rng.integers(0, 256, (64, SIDE, SIDE, 3), dtype=np.uint8)

    def __len__(self) -> int:
        return len(self.labels)

    def image(self, index: int) -> Image.Image:
        if self.jpeg:
            return Image.open(io.BytesIO(self.content)).convert("RGB")
        return Image.fromarray(self.pixels[index % len(self.pixels)])


def bare(network: Network, images: list[Tensor], device: torch.device) -> float:
    """Images per second of a plain loop over batches that lie in memory."""
    start = time.perf_counter()
    with forward_mode(device, "fp32"):
        for batch in images:
            network.features(batch.to(device, non_blocking=True))["pooled"].cpu()
    return sum(map(len, images)) / (time.perf_counter() - start)


def whole(network: Network, pictures: Pictures, device: torch.device, workers: int) -> float:
    """Images per second of `extract`, from pictures to a store on disk."""
    with tempfile.TemporaryDirectory() as folder:
        os.environ["BENCH_CACHE"] = folder
        start = time.perf_counter()
        extract(
            network, pictures, ["pooled"], device=device, workers=workers, progress=Progress(io.StringIO(), quiet=True)
        )
        return len(pictures) / (time.perf_counter() - start)


def decoding(pictures: Pictures, workers: int, batch: int) -> float:
    """Images per second of decoding and the usual transform alone."""
    from functools import partial

    decoder = Decoder(pictures, partial(apply, Transform()), (3, SIDE, SIDE))
    batches = [range(i, min(i + batch, len(pictures))) for i in range(0, len(pictures), batch)]
    start = time.perf_counter()
    for _ in decode(decoder, batches, workers=workers, size=batch):
        pass
    return len(pictures) / (time.perf_counter() - start)


def processor_time() -> float:
    """Seconds of processor of this process and of its workers that have ended."""
    usages = (resource.getrusage(resource.RUSAGE_SELF), resource.getrusage(resource.RUSAGE_CHILDREN))
    return sum(usage.ru_utime + usage.ru_stime for usage in usages)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=512)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--arch", default="tf_efficientnet_lite0")
    parser.add_argument("--device", default="auto")
    parser.add_argument("--workers", default="0,1,2")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    device = choose(options.device)
    network = Network(options.arch).to(device)
    pictures, jpegs = Pictures(options.images, jpeg=False), Pictures(options.images, jpeg=True)
    size = CPU_BATCH if device.type == "cpu" else 256
    assert network.card.transform is not None
    images = [
        torch.stack([apply(network.card.transform, pictures.image(i)) for i in range(a, min(a + size, len(pictures)))])
        for a in range(0, len(pictures), size)
    ]
    counts = [int(count) for count in options.workers.split(",")]
    rates: dict[str, list[float]] = {}
    costs: dict[str, list[float]] = {}

    def note(name: str, contender: Callable[..., float], *arguments: Any) -> None:
        before = processor_time()
        rate = contender(*arguments)
        cost = 1000 * (processor_time() - before) / options.images
        rates.setdefault(name, []).append(rate)
        costs.setdefault(name, []).append(cost)
        print(f"  {name}: {rate:,.1f} images/s, {cost:.2f} ms of processor per image", flush=True)

    bare(network, images[:1], device)
    for round_ in range(options.rounds):
        print(f"round {round_ + 1}")
        note("bare, as torch is", bare, network, images, device)
        with cpu_pass(network, device):
            bare(network, images[:1], device)
            note("bare", bare, network, images, device)
        for count in counts:
            note(f"extract, {count} workers", whole, network, pictures, device, count)
        for count in (1, 2):
            note(f"decode, {count} workers", decoding, jpegs, count, size)
    print(f"\n{platform.machine()}, {os.cpu_count()} CPUs, {device}, torch {torch.__version__}, {options.arch}")
    print(f"{options.threads} threads, load average {os.getloadavg()[0]:.1f}")
    print(f"default workers {default_workers(device)}, batch {size}")
    for name, values in rates.items():
        print(f"{name}: median {statistics.median(values):,.1f} images/s, {statistics.median(costs[name]):.2f} ms")

    def ratio(name: str, to: str) -> str:
        wall = statistics.median(a / b for a, b in zip(rates[name], rates[to], strict=True))
        processor = statistics.median(b / a for a, b in zip(costs[name], costs[to], strict=True))
        return f"{wall:.2f} by wall time, {processor:.2f} by processor time"

    for count in counts:
        print(f"extract with {count} workers / bare: {ratio(f'extract, {count} workers', 'bare')}")
    print(f"bare / bare, as torch is: {ratio('bare', 'bare, as torch is')}")
    print(f"decode, 2 workers / 1: {ratio('decode, 2 workers', 'decode, 1 workers')}")
    print(f"peak memory {resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024:,.0f} MB")


if __name__ == "__main__":
    main()
