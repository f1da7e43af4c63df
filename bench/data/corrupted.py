"""``corrupted:KIND-SEVERITY,SPEC``: any set of images, its test images corrupted as they are read, by torchvision.

Eight kinds that follow corruptions of ImageNet-C (Hendrycks & Dietterich 2019) with strengths of the same kind, but not
its images: those were made by other code at one size, and numbers on these are a variant of their own. They need no
further library and take images of any size; `bench.data.imagecorruptions` has all fifteen.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from bench.data.opening import open_data
from bench.dataset import Dataset, Splits
from bench.errors import BenchError
from bench.modality import modality_of
from bench.registry import nearest

if TYPE_CHECKING:
    from PIL import Image

VERSION = 1
"""Of how images are corrupted: part of the fingerprint."""
SIDE = 224
"""Strengths in pixels are those for images of this many; smaller images get less."""
SEVERITIES = (1, 2, 3, 4, 5)
STRENGTHS: dict[str, tuple[float, ...]] = {
    "gaussian_noise": (0.08, 0.12, 0.18, 0.26, 0.38),  # deviation, of 0..1
    "gaussian_blur": (1, 2, 3, 4, 6),  # deviation, pixels
    "brightness": (1.2, 1.4, 1.6, 1.8, 2.0),  # factor
    "contrast": (0.4, 0.3, 0.2, 0.1, 0.05),  # factor
    "saturate": (0.6, 0.4, 0.2, 0.1, 0.0),  # factor
    "elastic_transform": (20, 40, 60, 80, 100),  # alpha, at a smoothing of 5 pixels
    "pixelate": (0.6, 0.5, 0.4, 0.3, 0.25),  # share of the side
    "jpeg_compression": (25, 18, 15, 10, 7),  # quality
}
"""Kind -> its strength at each severity."""
WAYS = ("corrupted", "imagecorruptions")
"""The SPECs that corrupt another one."""


class Way(NamedTuple):
    """A way to corrupt: how a SPEC names it, and what its images depend on."""

    name: str
    version: str
    kinds: Sequence[str]
    corrupt: Callable[[Image.Image, str, int, int], Image.Image]
    """(image, kind, severity 1 to 5, seed) -> the image as RGB."""


def open_corrupted(rest: str) -> Splits:
    """The splits of SPEC, the test split corrupted, the training split as it is.

    Raises `BenchError` for an unknown kind or severity, for texts, and for sets whose images carry boxes or masks.
    """
    return splits_of(Way("corrupted", str(VERSION), tuple(STRENGTHS), corrupt), rest)


def splits_of(way: Way, rest: str) -> Splits:
    """What ``way`` makes of ``KIND-SEVERITY,SPEC``."""
    what, comma, spec = rest.partition(",")
    kind, _, severity = what.rpartition("-")
    if not comma or not spec or kind not in way.kinds or severity not in map(str, SEVERITIES):
        raise BenchError(
            f"{way.name}: '{rest[:80]}' is no corruption with a severity of a data set: write "
            f"{way.name}:gaussian_noise-3,demo, severities 1 to 5{nearest(kind or what, list(way.kinds))}"
        )
    if spec.partition(":")[0] in WAYS:
        raise BenchError(f"{way.name}:{rest[:80]} corrupts what is corrupted: give a plain data set")
    train, test = open_data(spec)
    if modality_of(test) != "image" or hasattr(test, "instances") or hasattr(test, "mask"):
        raise BenchError(f"{way.name}:{rest[:80]} is for images with labels of the whole image, and {test.name} is not")
    return Splits(train, Corrupted(test, way, kind, int(severity)))


class Corrupted:
    """The samples of ``dataset``, each image corrupted; the same image every time, whoever reads it."""

    def __init__(self, dataset: Dataset, way: Way, kind: str, severity: int) -> None:
        self._dataset = dataset
        self._way, self._kind, self._severity = way, kind, severity
        self.name = f"{dataset.name}-{kind}-{severity}"
        self.split = dataset.split
        self.modality = modality_of(dataset)
        self.classes = dataset.classes
        self.class_ids = dataset.class_ids
        self.labels: np.ndarray = dataset.labels

    def __len__(self) -> int:
        return len(self._dataset)

    @property
    def ids(self) -> Sequence[str]:
        return self._dataset.ids

    @property
    def fingerprint(self) -> str:
        strength = STRENGTHS[self._kind][self._severity - 1] if self._way.name == "corrupted" else self._severity
        text = f"{self._way.name}|{self._way.version}|{self._kind}|{strength}|{self._dataset.fingerprint}"
        return f"sha256:{hashlib.sha256(text.encode()).hexdigest()}"

    def image(self, index: int) -> Any:
        return self._way.corrupt(self._dataset.image(index), self._kind, self._severity, index)


def corrupt(image: Image.Image, kind: str, severity: int, seed: int = 0) -> Image.Image:
    """``image`` as RGB, corrupted: ``kind`` of `STRENGTHS`, ``severity`` 1 to 5; what is random depends on ``seed``."""
    import torch

    source = hashlib.sha256(f"{kind}|{severity}|{seed}".encode()).digest()
    # torchvision draws from the global generator, which is not ours to advance.
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(int.from_bytes(source[:7]))
        made: Image.Image = _KINDS[kind](image.convert("RGB"), STRENGTHS[kind][severity - 1])
        return made


def _scale(image: Image.Image) -> float:
    return min(image.size) / SIDE


def _noise(image: Image.Image, deviation: float) -> Any:
    from torchvision.transforms.v2 import functional as f

    return f.to_pil_image(f.gaussian_noise(f.to_dtype(f.pil_to_tensor(image), scale=True), sigma=deviation))


def _blur(image: Image.Image, deviation: float) -> Any:
    from torchvision.transforms.v2 import functional as f

    # By the root of the side: in proportion nothing of it would be left of small images. At 32 pixels it is 0.38 to
    # 2.3, where CIFAR-10-C has 0.4 to 1.
    sigma = max(deviation * _scale(image) ** 0.5, 0.1)
    # Reflected margins are at most as wide as the image.
    radius = max(1, min(round(3 * sigma), min(image.size) - 1))
    if min(image.size) < 2:
        return image
    return f.gaussian_blur(image, [2 * radius + 1] * 2, [sigma] * 2)


def _adjusted(name: str) -> Callable[[Image.Image, float], Any]:
    def adjust(image: Image.Image, factor: float) -> Any:
        from torchvision.transforms.v2 import functional as f

        return getattr(f, f"adjust_{name}")(image, factor)

    return adjust


def _elastic(image: Image.Image, alpha: float) -> Any:
    from torchvision.transforms.v2 import ElasticTransform

    if min(image.size) < 4:
        return image
    scale = _scale(image)
    # torchvision's kernel of 8 sigma + 1 must be narrower than the image.
    sigma = min(max(5 * scale, 0.5), (min(image.size) - 2) / 8 if min(image.size) > 6 else 0.25)
    return ElasticTransform(alpha=alpha * scale, sigma=sigma)(image)


def _pixelate(image: Image.Image, share: float) -> Any:
    from PIL import Image as Pillow

    small = image.resize(
        (max(1, round(image.width * share)), max(1, round(image.height * share))), Pillow.Resampling.BOX
    )
    return small.resize(image.size, Pillow.Resampling.NEAREST)


def _jpeg(image: Image.Image, quality: float) -> Any:
    from torchvision.transforms.v2 import functional as f

    return f.jpeg(image, int(quality))


_KINDS: dict[str, Callable[[Image.Image, float], Any]] = {
    "gaussian_noise": _noise,
    "gaussian_blur": _blur,
    "brightness": _adjusted("brightness"),
    "contrast": _adjusted("contrast"),
    "saturate": _adjusted("saturation"),
    "elastic_transform": _elastic,
    "pixelate": _pixelate,
    "jpeg_compression": _jpeg,
}
