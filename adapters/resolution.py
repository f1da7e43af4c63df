"""``NAME@SIZE``: a named network with its transform at another input size."""

from __future__ import annotations

import copy
import re

from bench.backbone import Backbone
from bench.errors import BenchError
from bench.transform import resized

LARGEST = 4096
"""The largest input size in pixels: beyond it a single image takes gigabytes."""


def split(rest: str) -> tuple[str, int | None]:
    """``name@96`` -> (``name``, 96); without a suffix (``name``, None). Refuses a size that is no whole number."""
    name, separator, size = rest.rpartition("@")
    if not separator:
        return rest, None
    if not re.fullmatch(r"[0-9]{1,5}", size) or int(size) < 1:
        raise BenchError(f"'{rest}': what follows the @ is the input size in pixels, e.g. {name}@224, not '{size}'")
    if int(size) > LARGEST:
        raise BenchError(f"'{rest}': inputs of {int(size):,} pixels are too large, {LARGEST:,} are the most")
    return name, int(size)


def at(backbone: Backbone, size: int | None) -> Backbone:
    """``backbone`` with its transform at ``size``; the name and a note say so. Refuses a size it cannot take."""
    if size is None:
        return backbone

    card = backbone.card
    if card.transform is None:
        raise BenchError(f"'{card.name}' has no image transform: @{size} makes no sense for it")
    transform = resized(card.transform, size)
    crop = card.transform.crop
    own = crop if isinstance(crop, int) else "x".join(map(str, crop)) if crop else "its own size"
    note = f"evaluated at {size} pixels instead of {own}, on request"
    backbone.card = card.model_copy(
        update={"name": f"{card.name}@{size}", "transform": transform, "notes": [*card.notes, note]}
    )
    try:
        _try(backbone, size)
    except (RuntimeError, AssertionError, ValueError) as error:
        raise BenchError(f"architecture '{card.architecture}' cannot take images of {size} pixels: {error}") from error
    return backbone


def _try(backbone: Backbone, size: int) -> None:
    """Run the network at ``size``, by shapes alone where it can, for large images take memory and time."""
    import torch

    with torch.no_grad():
        try:
            copy.deepcopy(backbone).to("meta").features(torch.empty(1, 3, size, size, device="meta"))
        except NotImplementedError:
            backbone.features(torch.zeros(1, 3, size, size))
