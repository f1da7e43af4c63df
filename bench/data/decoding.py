"""Decoding one image as every published pipeline does: PIL, converted to RGB, EXIF orientation left alone."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import BinaryIO

import numpy as np
from PIL import Image, UnidentifiedImageError

from bench.dataset import DecodeError

_WIDE = frozenset({"I", "F", "I;16", "I;16B", "I;16L", "I;16N"})
EXTENSIONS = frozenset({".jpg", ".jpeg", ".png", ".ppm", ".bmp", ".pgm", ".tif", ".tiff", ".webp", ".gif"})


def decode(source: Path | BinaryIO, name: str) -> Image.Image:
    """The RGB image in a file or stream; `DecodeError` naming ``name`` when it is damaged, empty or no image.

    Palettes, gray, CMYK and images with transparency become RGB by PIL's ``convert``; 16-bit gray keeps its upper
    byte (PIL would clip it to white), and other wide pixels, whose range nobody knows, are refused. The orientation
    that EXIF states is left alone, as in the published pipelines; of an animation, the first frame counts. Truncated
    files are not completed with gray, and images beyond PIL's bomb limit (179 million pixels) are refused.
    Raises OSError when the file itself cannot be opened or read.
    """
    try:
        with warnings.catch_warnings():
            # Between half the limit and the limit PIL warns; a worker process has nobody to warn.
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)
            with Image.open(source) as image:
                image.load()
                return _rgb(image)
    except Exception as error:
        if isinstance(error, OSError) and error.errno is not None:
            raise
        # PIL's own sentence for this names the stream by its address in memory.
        unknown = "not an image, or its head is damaged"
        reason = unknown if isinstance(error, UnidentifiedImageError) else str(error) or type(error).__name__
        raise DecodeError(name, reason) from None


def _rgb(image: Image.Image) -> Image.Image:
    if image.mode not in _WIDE:
        return image.convert("RGB")
    if not image.mode.startswith("I;16") and image.format != "PNG":
        raise ValueError(f"pixels of mode {image.mode} have no agreed range: store them in 8 or 16 bits")
    # The upper byte. Mode I is how some versions of PIL read 16-bit PNG.
    return Image.fromarray((np.asarray(image) >> 8).astype(np.uint8)).convert("RGB")
