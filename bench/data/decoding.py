"""Decoding one image as every published pipeline does: PIL, converted to RGB, EXIF orientation left alone."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import BinaryIO

from PIL import Image, UnidentifiedImageError

from bench.dataset import DecodeError

EXTENSIONS = frozenset({".jpg", ".jpeg", ".png", ".ppm", ".bmp", ".pgm", ".tif", ".tiff", ".webp", ".gif"})


def decode(source: Path | BinaryIO, name: str) -> Image.Image:
    """The RGB image in a file or stream; `DecodeError` naming ``name`` when it is damaged, empty or no image.

    Truncated files are not completed with gray, and images too large to be real (PIL's bomb limit) are refused.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            with Image.open(source) as image:
                if image.mode in ("I;16", "I;16B", "I;16L", "I"):
                    # PIL clips 16-bit gray to 255 on conversion; keep the upper byte instead.
                    return image.point(lambda value: value / 256).convert("L").convert("RGB")
                return image.convert("RGB")
    except FileNotFoundError:
        raise
    except UnidentifiedImageError:
        raise DecodeError(name, "not an image, or its head is damaged") from None
    except Exception as error:
        raise DecodeError(name, str(error) or type(error).__name__) from None
