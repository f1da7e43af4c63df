"""A tiny network and a tiny data set for the tests of extraction; also importable by their subprocesses."""

from __future__ import annotations

import hashlib
import io
import multiprocessing
import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn

from bench.backbone import Backbone, freeze, weight_digest
from bench.card import Card, Transform
from bench.dataset import DecodeError, fingerprint_of

SIDE = 12


class Tiny(Backbone):
    """A small convolutional network with a classifier; ``pooled`` is ``avg``."""

    def __init__(self, seed: int = 0, width: int = 24, classes: int = 5) -> None:
        super().__init__()
        torch.manual_seed(seed)
        self.body = nn.Sequential(
            nn.Conv2d(3, width, 3, padding=1), nn.GELU(), nn.Conv2d(width, width, 3, stride=2), nn.GELU()
        )
        self.head = nn.Linear(width, classes)
        self.card = Card(
            name="tiny",
            spec="tiny",
            architecture="tiny",
            family="cnn",
            dims={"pooled": width, "avg": width, "logits": classes},
            feature="avg",
            transform=Transform(resize=None, crop=SIDE),
            weight_digest=weight_digest(self.state_dict()),
        )
        freeze(self)

    def features(self, images: Tensor) -> dict[str, Tensor]:
        avg = self.body(images).mean(dim=(2, 3))
        return {"pooled": avg, "avg": avg, "logits": self.head(avg)}

    def pyramid(self, images: Tensor) -> list[Tensor]:
        return [self.body(images)]


class Arrays:
    """A Dataset of seeded noise images.

    ``broken``: samples that cannot be decoded; ``log``: a file that lists decodes; ``delay``: seconds per image.
    """

    name = "noise"

    def __init__(
        self,
        n: int = 100,
        *,
        seed: int = 0,
        split: str = "train",
        broken: tuple[int, ...] = (),
        log: Path | None = None,
        delay: float = 0.0,
    ) -> None:
        rng = np.random.default_rng(seed)
        self.pixels = rng.integers(0, 256, (n, SIDE, SIDE, 3), dtype=np.uint8)
        self.labels = rng.integers(0, 5, n)
        self.classes = tuple("abcde")
        self.class_ids = tuple(range(5))
        self.split = split
        self.broken = broken
        self.log = log
        self.delay = delay
        self.ids = [f"{split}/{i}" for i in range(n)]
        digests = (hashlib.sha256(p.tobytes() + bytes([i in broken])).digest() for i, p in enumerate(self.pixels))
        self.fingerprint = fingerprint_of(zip(digests, (int(y) for y in self.labels), strict=True))

    def __len__(self) -> int:
        return len(self.pixels)

    def image(self, index: int) -> Image.Image:
        time.sleep(self.delay)
        if self.log is not None:
            with open(self.log, "ab", buffering=0) as stream:
                stream.write(f"{index}\n".encode())
        if index in self.broken:
            try:
                return Image.open(io.BytesIO(b"no image"))
            except OSError as error:
                raise DecodeError(f"/data/{self.ids[index]}.png", "cannot identify image file") from error
        return Image.fromarray(self.pixels[index])


def reference(backbone: Backbone, dataset: Arrays, name: str, rows: list[int] | None = None) -> np.ndarray:
    """Features computed one image at a time, by another way than the engine's."""
    from bench.transform import apply

    assert backbone.card.transform is not None
    out = []
    with torch.no_grad():
        for index in range(len(dataset)) if rows is None else rows:
            image = apply(backbone.card.transform, Image.fromarray(dataset.pixels[index]))
            out.append(backbone.features(image[None])[name][0].numpy())
    return np.stack(out)


def extracted(dataset, backbone=None, features=("pooled",), progress=None, **options):
    """`bench.extract.extract` on the CPU without workers unless told."""
    from bench.extract import extract
    from bench.progress import Progress

    options.setdefault("workers", 0)
    progress = progress or Progress(io.StringIO(), quiet=True)
    return extract(backbone or Tiny(), dataset, features, device=torch.device("cpu"), progress=progress, **options)


@contextmanager
def process(work: Callable[[], object]) -> Iterator[multiprocessing.Process]:
    """``work`` in a forked process, killed at the end if it still runs; its output goes nowhere."""

    def run() -> None:
        # A pool of threads does not survive a fork.
        torch.set_num_threads(1)
        with open(os.devnull, "w") as silence:
            os.dup2(silence.fileno(), 2)
            work()

    child = multiprocessing.get_context("fork").Process(target=run)
    child.start()
    try:
        yield child
    finally:
        if child.is_alive():
            child.kill()
        child.join()


def finished(work: Callable[[], object]) -> None:
    """Run ``work`` in a process of its own and wait for its good end."""
    with process(work) as child:
        child.join(60)
        assert child.exitcode == 0


def stored(cache: Path) -> dict[str, bytes]:
    """Every array of the only store under ``cache``, as bytes: shard/name -> content."""
    from safetensors.numpy import load_file

    (folder,) = (cache / "features").iterdir()
    return {
        f"{path.stem}/{name}": array.tobytes()
        for path in sorted(folder.glob("[0-9]*.safetensors"))
        for name, array in load_file(path).items()
    }


def only(cache: Path) -> Path:
    (folder,) = (cache / "features").iterdir()
    return folder


def flip(path: Path, offset: int) -> None:
    content = bytearray(path.read_bytes())
    content[offset] ^= 0x10
    path.write_bytes(bytes(content))


def damage(path: Path, kind: str) -> None:
    size = path.stat().st_size
    if kind == "truncated":
        os.truncate(path, size - 40)
    elif kind == "empty":
        os.truncate(path, 0)
    elif kind == "data":
        flip(path, size - 40)
    elif kind == "header":
        flip(path, path.read_bytes().index(b'"corrupt') - 3)
    elif kind == "length":
        flip(path, 1)
    elif kind == "swapped":
        path.write_bytes(path.with_name("00003.safetensors").read_bytes())
