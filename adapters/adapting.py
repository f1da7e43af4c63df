"""Arguments of an architecture that a checkpoint's shapes settle: class count, input size, place of the final norm."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from torch import Tensor

from adapters import windowed
from adapters.architecture import Architecture, Outline
from adapters.layout import Layout
from bench.errors import BenchError

Shapes = Mapping[str, Sequence[int]]


def adapted(
    architecture: Architecture, tensors: Mapping[str, Tensor], shapes: Shapes, prefix: str, layout: Layout
) -> Architecture:
    """``architecture`` with the class count, input size and tokens that ``tensors``, of ``shapes``, have under
    ``prefix``, and with what ``layout`` knows of it (heads, epsilon).

    What the user gave as an argument stays. Without a classifier in the file the network gets none.
    """
    outline = architecture.outline()
    inside = {key[len(prefix) :]: shape for key, shape in shapes.items() if key.startswith(prefix)}
    wanted = {
        **_classes(architecture, outline, inside, layout),
        **_input_size(outline, inside),
        **windowed.windows(architecture.name, outline.needed, inside),
        **(windowed.pretrained_windows(tensors, prefix) if windowed.version(architecture.name) == 2 else {}),
        **_class_token(outline, inside),
        **layout.arguments(architecture.name),
        **_final_norm(architecture.name, outline, inside, layout),
    }
    wanted = {key: value for key, value in wanted.items() if key not in dict(architecture.arguments)}
    if "num_heads" in wanted and wanted["num_heads"] == architecture.heads():
        del wanted["num_heads"]  # its own number is not worth a word
    own = windowed.said(architecture.name, outline.needed)
    wanted = {key: value for key, value in wanted.items() if key not in own or own[key] != value}
    if not wanted:
        return architecture
    try:
        changed = architecture.with_arguments(**wanted)
        changed.outline()
    except BenchError:  # not every architecture takes every argument; the misfit is then reported as it is
        classes = {"num_classes": wanted["num_classes"]} if "num_classes" in wanted else {}
        return architecture.with_arguments(**classes)
    return changed


def _classes(architecture: Architecture, outline: Outline, inside: Shapes, layout: Layout) -> dict[str, Any]:
    if not outline.classifier or "none" in outline.classifier:
        return {}
    if not layout.classifier and not architecture.ours:
        return {"num_classes": 0}
    found = {tuple(inside.get(f"{name}.weight", ()))[:1] for name in outline.classifier}
    expected = [outline.everything.get(f"{name}.weight") for name in outline.classifier]
    widths = [inside.get(f"{name}.weight", ())[1:] for name in outline.classifier]
    fits = all(e is not None and tuple(e[1:]) == tuple(w) for e, w in zip(expected, widths, strict=True))
    if len(found) == 1 and fits and (count := next(iter(found))):
        return {"num_classes": int(count[0])}
    return {} if architecture.ours else {"num_classes": 0}


def _input_size(outline: Outline, inside: Shapes) -> dict[str, Any]:
    theirs, ours = inside.get("pos_embed"), outline.needed.get("pos_embed")
    patch = outline.needed.get("patch_embed.proj.weight")
    if theirs is None or ours is None or patch is None or len(theirs) != 3 or tuple(theirs) == tuple(ours):
        return {}
    # What the architecture has beyond a square grid is its class token's position, unless the file has no such token.
    extra = ours[1] - math.isqrt(ours[1]) ** 2 if "cls_token" in inside else 0
    side = math.isqrt(max(theirs[1] - extra, 0))
    if theirs[2] != ours[2] or side == 0 or side * side + extra != theirs[1]:
        return {}
    return {"img_size": side * int(patch[-1])}


def _class_token(outline: Outline, inside: Shapes) -> dict[str, Any]:
    if "cls_token" in outline.needed and "cls_token" not in inside and "pos_embed" in inside:
        return {"class_token": False, "global_pool": "avg", "fc_norm": False}
    return {}


def _final_norm(name: str, outline: Outline, inside: Shapes, layout: Layout) -> dict[str, Any]:
    """Fine-tuned transformers normalise after averaging (``fc_norm``), pretrained ones before (``norm``)."""
    before, after = "norm.weight", "fc_norm.weight"
    beit = name.startswith("beit")
    if beit and layout.norm_optional and before not in inside and after not in inside:
        return {"final_norm": False, "global_pool": "token"}
    if not {before, after} & set(outline.needed):
        return {}
    if after in inside and before not in inside:
        return (
            {"global_pool": "avg"}
            if beit
            else {}
            if after in outline.needed
            else {"global_pool": "avg", "fc_norm": True}
        )
    if before in inside and after not in inside and before not in outline.needed:
        return {"global_pool": "token"}
    return {}
