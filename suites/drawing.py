"""Predictions drawn on their images, as PNG for a model's page."""

from __future__ import annotations

import colorsys
import io
from collections.abc import Iterable, Sequence

import numpy as np
from PIL import Image, ImageDraw

DRAWN = 4
"""Images of a test split that are drawn."""
LONGEST = 640
"""Pixels of the longer side of a drawing."""


def palette(n: int) -> np.ndarray:
    """uint8 [n, 3]: colours that neighbouring numbers do not share."""
    hues = [(0.61803398875 * i) % 1 for i in range(n)]
    return np.array(
        [[round(255 * v) for v in colorsys.hsv_to_rgb(h, 0.75, 0.95)] for h in hues], dtype=np.uint8
    ).reshape(n, 3)


def chosen(n: int) -> list[int]:
    """The images that are drawn, at even distances."""
    return evenly(n, DRAWN)


def evenly(n: int, most: int) -> list[int]:
    """At most ``most`` of the numbers 0 to n - 1, at even distances."""
    count = min(n, most)
    return [i * n // count for i in range(count)]


def captions(files: Iterable[str]) -> dict[str, str]:
    """What a page says below the drawings among ``files``: a measurement's ``details["figures"]``."""
    drawn = [name for name in files if name.startswith("drawn-") and name.endswith(".png")]
    said = "prediction left, annotation right"
    return {name: f"test image {name.removeprefix('drawn-').removesuffix('.png')}, {said}" for name in drawn}


def segmentation_png(image: Image.Image, predicted: np.ndarray, truth: np.ndarray, classes: int) -> bytes:
    """The image with the prediction over it, beside the image with the truth over it."""
    colours = palette(classes)
    sides = []
    for labels in (predicted, truth):
        over = Image.fromarray(np.where(labels[..., None] >= 0, colours[np.maximum(labels, 0)], 0).astype(np.uint8))
        sides.append(_small(Image.blend(image, over, 0.55)))
    return _png(_beside(sides))


def detection_png(
    image: Image.Image,
    predicted: Sequence[tuple[Sequence[float], int, float]],
    truth: Sequence[tuple[Sequence[float], int]],
    names: Sequence[str],
) -> bytes:
    """Boxes (left, top, width, height) with class and score, beside those of the truth."""
    colours = palette(len(names))
    scale = _scale(image)
    sides = []
    for rows in (predicted, [(box, label, None) for box, label in truth]):
        side = _small(image)
        pen = ImageDraw.Draw(side)
        for box, label, score in rows:
            left, top, width, height = (value * scale for value in box)
            colour = tuple(int(v) for v in colours[label])
            pen.rectangle((left, top, left + max(width, 1), top + max(height, 1)), outline=colour, width=2)
            text = names[label] if score is None else f"{names[label]} {score:.2f}"
            pen.text((left + 3, top + 2), text.encode("ascii", "replace").decode(), fill=colour)
        sides.append(side)
    return _png(_beside(sides))


def _scale(image: Image.Image) -> float:
    return min(1.0, LONGEST / max(image.size))


def _small(image: Image.Image) -> Image.Image:
    scale = _scale(image)
    size = (max(1, round(image.width * scale)), max(1, round(image.height * scale)))
    return image.convert("RGB").resize(size, Image.Resampling.BILINEAR)


def _beside(sides: Sequence[Image.Image]) -> Image.Image:
    width = sum(side.width for side in sides) + 4 * (len(sides) - 1)
    whole = Image.new("RGB", (width, max(side.height for side in sides)), "white")
    left = 0
    for side in sides:
        whole.paste(side, (left, 0))
        left += side.width + 4
    return whole


def _png(image: Image.Image) -> bytes:
    stream = io.BytesIO()
    image.save(stream, format="PNG", optimize=True)
    return stream.getvalue()
