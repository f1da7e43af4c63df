"""``imagecorruptions:KIND-SEVERITY,SPEC``: the fifteen corruptions of ImageNet-C made of any set of images.

By the library of that name (`imagecorruptions-imaug`, the maintained one of Michaelis et al. 2019, arXiv 1907.07484),
which carries Hendrycks & Dietterich's code and strengths to images of every size from 32 pixels up. The published
images of ImageNet-C were made at 224 pixels and kept as JPEG: numbers on these are a variant of their own, and no mCE.
"""

from __future__ import annotations

import contextlib
import hashlib
import threading
from importlib.metadata import PackageNotFoundError, version
from typing import TYPE_CHECKING

import numpy as np

from bench.data.corrupted import Way, splits_of
from bench.data.robustness import CORRUPTIONS
from bench.dataset import DecodeError, Splits
from bench.errors import BenchError

if TYPE_CHECKING:
    from PIL import Image

SMALLEST = 32
"""Pixels of a side, below which the library takes no image."""
LIBRARIES = ("imagecorruptions-imaug", "scikit-image")
"""Their versions belong to the fingerprint: they make the images."""

_DRAWING = threading.Lock()
"""The library draws from NumPy's one generator."""


def open_imagecorruptions(rest: str) -> Splits:
    """The splits of SPEC, the test split corrupted, the training split as it is.

    Raises `BenchError` as `bench.data.corrupted` does, and where the library is not installed or the images are too
    small for it.
    """
    try:
        found = "|".join(f"{name} {version(name)}" for name in LIBRARIES)
        import imagecorruptions  # noqa: F401
    except (PackageNotFoundError, ImportError) as error:
        raise BenchError(
            f"imagecorruptions: needs the library ({error}): pip install 'bench-representations[corruptions]', or use "
            f"corrupted:KIND-SEVERITY,SPEC, which has eight of the fifteen kinds"
        ) from None
    splits = splits_of(Way("imagecorruptions", found, tuple(CORRUPTIONS), corrupt), rest)
    with contextlib.suppress(DecodeError):
        # The first one tells, before any work, of sets whose images are all of one size.
        splits.test.image(0)
    return splits


def corrupt(image: Image.Image, kind: str, severity: int, seed: int = 0) -> Image.Image:
    """``image`` as RGB, corrupted: ``kind`` of `CORRUPTIONS`, ``severity`` 1 to 5; what is random depends on ``seed``.

    Raises `BenchError` for an image that is too small, and for one that the library fails on.
    """
    from imagecorruptions import corrupt as made
    from PIL import Image as Pillow

    if min(image.size) < SMALLEST:
        raise BenchError(
            f"imagecorruptions: takes images from {SMALLEST} x {SMALLEST} pixels up, and one is {image.width} x "
            f"{image.height}: use corrupted:KIND-SEVERITY,SPEC"
        )
    source = hashlib.sha256(f"{kind}|{severity}|{seed}".encode()).digest()
    number = int.from_bytes(source[:4], "little")
    # Two kinds take a seed; without one they would draw from the operating system.
    own = {"seed": number} if kind in ("glass_blur", "impulse_noise") else {}
    pixels = np.asarray(image.convert("RGB"))
    with _DRAWING:
        state = np.random.get_state()
        try:
            np.random.seed(number)
            return Pillow.fromarray(made(pixels, severity=severity, corruption_name=kind, **own))
        except Exception as error:
            raise BenchError(
                f"imagecorruptions: {kind} fails on an image of {image.width} x {image.height} pixels "
                f"({type(error).__name__}: {error}): use another kind, or corrupted:KIND-SEVERITY,SPEC"
            ) from error
        finally:
            np.random.set_state(state)
