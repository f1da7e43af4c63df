"""Which weight files bring a text tower beside the image tower, and how it is read when it is asked for."""

from __future__ import annotations

import functools
from collections.abc import Collection
from pathlib import Path

from bench.backbone import Backbone

_FILES = ("OpenAI CLIP", "open_clip")
_FOLDERS = {"Hugging Face CLIP": "clip", "Hugging Face SigLIP": "siglip"}


def attach(backbone: Backbone, path: Path, layout: str, label: str, names: Collection[str], *, trust: bool) -> None:
    """Give ``backbone`` the text tower of the file or folder that it came from, where there is one.

    ``label``: the weight set with its prefix; ``names``: ``set/tensor`` of all that is there.
    """
    if layout in _FILES and any(name.endswith("token_embedding.weight") for name in names):
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
