"""Arguments of an architecture that a checkpoint's shapes settle: class count, input size, place of the final norm."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from adapters.architecture import Architecture, Outline
from bench.errors import BenchError

Shapes = Mapping[str, Sequence[int]]


def adapted(architecture: Architecture, shapes: Shapes, prefix: str) -> Architecture:
    """``architecture`` with the class count, input size and norm that ``shapes`` under ``prefix`` have.

    What the user gave as an argument stays. Without a classifier in the file the network gets none.
    """
    outline = architecture.outline()
    inside = {key[len(prefix) :]: shape for key, shape in shapes.items() if key.startswith(prefix)}
    wanted = {**_classes(outline, inside), **_input_size(outline, inside), **_final_norm(outline, inside)}
    wanted = {key: value for key, value in wanted.items() if key not in dict(architecture.arguments)}
    if not wanted:
        return architecture
    try:
        changed = architecture.with_arguments(**wanted)
        changed.outline()
    except BenchError:  # not every architecture takes every argument; the misfit is then reported as it is
        classes = {"num_classes": wanted["num_classes"]} if "num_classes" in wanted else {}
        return architecture.with_arguments(**classes)
    return changed


def _classes(outline: Outline, inside: Shapes) -> dict[str, Any]:
    if not outline.classifier:
        return {}
    found = {tuple(inside.get(f"{name}.weight", ()))[:1] for name in outline.classifier}
    expected = [outline.everything.get(f"{name}.weight") for name in outline.classifier]
    widths = [inside.get(f"{name}.weight", ())[1:] for name in outline.classifier]
    fits = all(e is not None and tuple(e[1:]) == tuple(w) for e, w in zip(expected, widths, strict=True))
    if len(found) == 1 and fits and (count := next(iter(found))):
        return {"num_classes": int(count[0])}
    return {"num_classes": 0}


def _input_size(outline: Outline, inside: Shapes) -> dict[str, Any]:
    theirs, ours = inside.get("pos_embed"), outline.needed.get("pos_embed")
    patch = outline.needed.get("patch_embed.proj.weight")
    if theirs is None or ours is None or patch is None or len(theirs) != 3 or tuple(theirs) == tuple(ours):
        return {}
    # The class token's position is in the table where the two lengths differ from a square by the same number.
    extra = ours[1] - math.isqrt(ours[1]) ** 2
    side = math.isqrt(max(theirs[1] - extra, 0))
    if theirs[2] != ours[2] or side == 0 or side * side + extra != theirs[1]:
        return {}
    return {"img_size": side * int(patch[-1])}


def _final_norm(outline: Outline, inside: Shapes) -> dict[str, Any]:
    """Fine-tuned transformers normalise after averaging (``fc_norm``), pretrained ones before (``norm``)."""
    before, after = "norm.weight", "fc_norm.weight"
    if after in inside and before not in inside and before in outline.needed and after not in outline.needed:
        return {"global_pool": "avg", "fc_norm": True}
    if before in inside and after not in inside and after in outline.needed and before not in outline.needed:
        return {"global_pool": "token"}
    return {}
