"""Which weight files bring a text tower beside the image tower, and how it is read when it is asked for."""

from __future__ import annotations

import functools
import re
from collections.abc import Collection
from pathlib import Path

from bench.backbone import Backbone
from bench.errors import BenchError
from bench.texttower import TextTower

_FILES = ("OpenAI CLIP", "open_clip")
_OPEN_CLIP = ("open_clip", "open_clip SigLIP", "open_clip on timm")
# Texts of CLIP's own design lie beside ``visual``, those of any other under ``text``.
_TEXTS = re.compile(r"(?:.*[./])?token_embedding\.weight")
_OTHER_TEXTS = re.compile(r"(?:.*[./])?text\..*")
_FOLDERS = {"Hugging Face CLIP": "clip", "Hugging Face SigLIP": "siglip"}


def attach(backbone: Backbone, path: Path, layout: str, label: str, names: Collection[str], *, trust: bool) -> None:
    """Give ``backbone`` the text tower of the file or folder that it came from, where there is one.

    ``label``: the weight set with its prefix; ``names``: ``set/tensor`` of all that is there.
    """
    if layout in _OPEN_CLIP and any(_OTHER_TEXTS.fullmatch(name) for name in names):
        remedy = _remedy(path, layout)
        backbone.text_source = functools.partial(_refuse, remedy)
        backbone.card = backbone.card.model_copy(update={"notes": [*backbone.card.notes, remedy]})
        return
    if layout in _FILES and any(_TEXTS.fullmatch(name) for name in names):
        from adapters.clip_text import tower_of_checkpoint

        quick = layout == "OpenAI CLIP" or "quickgelu" in backbone.card.architecture
        backbone.text_source = functools.partial(tower_of_checkpoint, path, label, quick=quick, trust=trust)
        kind = "CLIP, by open_clip"
    elif layout in _FOLDERS and path.is_dir() and any("/text_model." in name for name in names):
        from adapters.hf_text import tower_of_folder

        kind = _FOLDERS[layout]
        backbone.text_source = functools.partial(tower_of_folder, path, kind, trust=trust)
        kind = f"Hugging Face {'CLIP' if kind == 'clip' else 'SigLIP'}, by transformers"
    else:
        return
    backbone.card = backbone.card.model_copy(update={"text": kind})


def _remedy(path: Path, layout: str) -> str:
    example = "ViT-B-16-SigLIP" if layout == "open_clip SigLIP" else "convnext_base"
    return (
        f"its texts are read by open_clip alone, which has their design: openclip:NAME?weights={path} with open_clip's "
        f"own NAME of it, such as {example}"
    )


def _refuse(remedy: str) -> TextTower:
    raise BenchError(f"the checkpoint's text tower is not CLIP's own: {remedy}")
