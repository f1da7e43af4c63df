"""``openclip:NAME/TAG``, ``openclip:NAME?weights=FILE``, ``openclip:FOLDER``: models of open_clip, with their texts."""

from __future__ import annotations

import logging
import math
import os
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from adapters import reader
from adapters.clip_text import ClipTextTower, open_clip
from adapters.network import hub_from_cache, offline
from adapters.openclip_backbone import backbone_of
from adapters.options import refuse
from adapters.unfilled import without_random_init
from adapters.weightsets import answers, preference, weight_sets
from bench.backbone import Backbone, weight_digest
from bench.card import Card, Coverage, Transform
from bench.data.choices import with_choices
from bench.errors import BenchError, brief
from bench.files import at_home
from bench.registry import nearest
from bench.texttower import TextTower

_WEIGHTS = ("open_clip_model.safetensors", "open_clip_pytorch_model.safetensors", "open_clip_pytorch_model.bin")


def load(rest: str, *, arch: str | None = None, weights_key: str | None = None, trust: bool = False) -> Backbone:
    """The image tower of an open_clip model, with its text tower beside it.

    ``NAME/TAG``: released weights, downloaded once; ``NAME?weights=FILE``: a checkpoint of that configuration;
    ``FOLDER``: one with ``open_clip_config.json`` and the weights. Raises `BenchError` for unknown names, weights that
    cannot be had, and any tensor that is missing, left over or of another shape.
    """
    refuse("openclip", arch=arch)
    path, choices = with_choices("openclip", rest, ("weights",))
    library = open_clip()
    if at_home(path).is_dir():
        if choices:
            raise BenchError(f"openclip:{brief(path)} is a folder with weights of its own: leave ?weights out")
        return _folder(library, at_home(path), rest, weights_key, trust)
    name, _, tag = path.partition("/")
    if library.get_model_config(name) is None:
        raise BenchError(f"open_clip has no model '{brief(name)}'{nearest(name, library.list_models())}")
    tags = library.list_pretrained_tags_by_model(name)
    if "weights" in choices:
        if tag:
            raise BenchError(f"openclip:{brief(rest)} gives a tag and a file: one of them")
        file = at_home(choices["weights"])
        if not file.exists():
            raise BenchError(f"there is no file {file}")
        return _built(library, name, file, rest, _agreed(library, name, tags), weights_key, trust)
    if tag not in tags:
        listed = nearest(tag, tags) if tag else f": write openclip:{name}/TAG; there are: {', '.join(tags)}"
        missing = f"no weights '{brief(tag)}' for" if tag else "several weights of"
        if not tags:
            missing, listed = "no weights for", f": give a checkpoint as openclip:{name}?weights=FILE"
        raise BenchError(f"open_clip has {missing} {name}{listed}")
    config = library.get_pretrained_cfg(name, tag)
    return _built(library, name, _download(library, name, tag, config), rest, config, weights_key, trust, tag=tag)


def _agreed(library: Any, name: str, tags: list[str]) -> dict[str, Any]:
    """The preprocessing that all released weights of ``name`` share: what a file of that configuration takes."""
    keys = ("mean", "std", "interpolation", "resize_mode", "quick_gelu")
    every = [library.get_pretrained_cfg(name, tag) for tag in tags]
    found = {key: {repr(config.get(key)) for config in every} for key in keys}
    return {key: every[0].get(key) for key in keys if every and len(found[key]) == 1} | {
        "disagree": [key for key in keys[:4] if len(found[key]) > 1]
    }


def _download(library: Any, name: str, tag: str, config: Mapping[str, Any]) -> Path:
    """The file of released weights, from the cache or downloaded."""
    hub = str(config.get("hf_hub") or "")
    place = hub or str(config.get("url") or "an unknown place")
    cached = Path(os.path.expanduser("~/.cache/clip")) / str(config.get("url") or "").rpartition("/")[2]
    try:
        if not hub and offline() and not cached.is_file():
            raise BenchError("BENCH_OFFLINE is set and the file is not in open_clip's cache")
        with hub_from_cache():
            return Path(library.download_pretrained(config))
    except Exception as error:  # the hub's client and urllib have no common base
        reason = next((line for line in str(error).splitlines() if line.strip()), type(error).__name__)
        if hub and offline():
            reason = "BENCH_OFFLINE is set and it is not in the hub's local cache"
        raise BenchError(
            f"the weights of openclip:{name}/{tag} cannot be had from {place} ({reason.rstrip('.')[:200]}): run once "
            f"where that can be reached, or give the file as openclip:{name}?weights=FILE"
        ) from error


def _folder(library: Any, folder: Path, spec: str, weights_key: str | None, trust: bool) -> Backbone:
    if not (folder / "open_clip_config.json").is_file():
        raise BenchError(f"openclip:{folder} is a folder without open_clip_config.json: give its checkpoint as a path")
    from adapters.folders import inside

    weights = next((name for name in _WEIGHTS if (folder / name).is_file()), None)
    if weights is None:
        raise BenchError(f"openclip:{folder} holds none of {', '.join(_WEIGHTS)}")
    return _built(library, f"local-dir:{folder}", inside(folder, weights), spec, {}, weights_key, trust)


def _built(
    library: Any,
    name: str,
    file: Path,
    spec: str,
    config: Mapping[str, Any],
    weights_key: str | None,
    trust: bool,
    tag: str = "",
) -> Backbone:
    """The model ``name`` filled from ``file``, every tensor (law 1)."""
    container = reader.read(file, trust=trust)
    label, tensors = _tensors(file, container.content, weights_key)
    notes = []
    quick = bool(config.get("quick_gelu")) or "input_resolution" in tensors
    if quick:
        notes.append("activation QuickGELU, as these weights were trained")
    model = _empty(library, name, quick)
    filled = _fill(library, model, tensors, file, name)
    visual = model.visual
    transform = _transform(library.get_model_preprocess_cfg(model), config, notes, name)
    shown = name.removeprefix("local-dir:").rstrip("/").rpartition("/")[2] if name.startswith("local-dir:") else name
    digest = weight_digest(model.state_dict())
    card = Card(
        name=f"{shown}-{tag}" if tag else shown if name.startswith("local-dir:") else file.stem,
        spec=f"openclip:{spec}",
        method="siglip" if model.logit_bias is not None else "clip",
        architecture=f"openclip:{shown}{'+quickgelu' if quick and 'quickgelu' not in shown else ''}",
        family="module",
        dims={},
        feature="",
        transform=transform,
        parameters=sum(p.numel() for p in visual.parameters()),
        weight_digest="",
        container=container.kind,
        layout="open_clip",
        weights_key=tag or label or None,
        coverage=Coverage(filled=filled, total=filled),
        text=f"open_clip, {type(model).__name__}",
        hazards=container.hazards,
        notes=notes,
    )
    width = _width(model)
    backbone, projection = backbone_of(visual, card, width)
    # The digest is that of the whole model: texts are half of what zero-shot numbers come from.
    backbone.card = backbone.card.model_copy(
        update={"weight_digest": digest, "parameters": card.parameters, "classes": None}
    )
    scale = math.exp(float(model.logit_scale.detach()))

    def tower() -> TextTower:
        return ClipTextTower(model, model.encode_text, _tokenizer(library, name), projection, scale, digest)

    backbone.text_source = tower
    return backbone


def _tensors(file: Path, content: Any, weights_key: str | None) -> tuple[str, dict[str, Tensor]]:
    """(label, tensors) of the weight set that holds both towers: the average of the weights before the weights."""
    found = []
    for weights in weight_sets(content):
        own = {name.removeprefix("_orig_mod.").removeprefix("module."): t for name, t in weights.tensors.items()}
        if "logit_scale" in own and any(name.startswith("visual.") for name in own):
            found.append((weights.key, own))
    asked = [pair for pair in found if weights_key is None or answers(pair[0], weights_key)]
    if not asked:
        there = f"; it has {', '.join(key or '.' for key, _ in found)}" if found else ""
        wanted = f" called '{weights_key}'" if weights_key is not None else ""
        raise BenchError(f"{file} holds no weights of open_clip's names{wanted} (visual.*, logit_scale){there}")
    return min(asked, key=lambda pair: preference(pair[0]))


def _empty(library: Any, name: str, quick: bool) -> Any:
    """The model without weights; towers of other libraries are built without theirs."""
    level = logging.root.manager.disable
    try:
        with hub_from_cache(), without_random_init(), warnings.catch_warnings():
            # That it has no weights yet is meant.
            warnings.simplefilter("ignore")
            logging.disable(logging.WARNING)
            return library.create_model(
                name, load_weights=False, pretrained_image=False, pretrained_text=False, force_quick_gelu=quick
            ).eval()
    except Exception as error:  # timm's, the hub's client's and open_clip's own have no common base
        reason = " ".join(str(error).split())[:200] or type(error).__name__
        raise BenchError(f"open_clip cannot build {name}: {reason}") from error
    finally:
        logging.disable(level)


def _fill(library: Any, model: Any, tensors: dict[str, Tensor], file: Path, name: str) -> int:
    """Every tensor of ``model`` from ``tensors``, as open_clip itself renames them. The number of tensors filled."""
    from open_clip.convert import convert_state_dict
    from open_clip.model import convert_to_custom_text_state_dict

    bookkeeping = ("input_resolution", "context_length", "vocab_size")
    own = {key: value for key, value in tensors.items() if key not in bookkeeping}
    own = convert_state_dict(model, own)
    if "positional_embedding" in own and not hasattr(model, "positional_embedding"):
        own = convert_to_custom_text_state_dict(own)
    state = model.state_dict()
    for scalar in ("logit_scale", "logit_bias"):
        if scalar in own and scalar in state and own[scalar].numel() == state[scalar].numel():
            own[scalar] = own[scalar].reshape(state[scalar].shape)
    for stale in ("text.transformer.embeddings.position_ids", "attn_mask", "text.attn_mask"):
        if stale not in state:
            own.pop(stale, None)
    missing = [key for key in state if key not in own]
    left = [key for key in own if key not in state]
    wrong = [key for key in state if key in own and own[key].shape != state[key].shape]
    if missing or left or wrong:
        parts = [f"fills {len(state) - len(missing) - len(wrong)} of {len(state)} tensors of open_clip's {name}"]
        if missing:
            parts.append(f"missing {', '.join(missing[:3])}")
        if wrong:
            theirs, ours = ("x".join(map(str, t[wrong[0]].shape)) for t in (own, state))
            parts.append(f"wrong shape {wrong[0]} (file {theirs}, model {ours})")
        if left:
            parts.append(f"without a place {', '.join(left[:3])}")
        raise BenchError(f"{file} {', '.join(parts)}: give the configuration that it was trained with")
    broken = [key for key, value in own.items() if value.is_floating_point() and not torch.isfinite(value).all()]
    if broken:
        raise BenchError(f"{file} has NaN or infinite values in {', '.join(broken[:3])}: the training diverged")
    model.load_state_dict({key: value.to(state[key].dtype) for key, value in own.items()}, strict=True)
    return len(state)


def _width(model: Any) -> int:
    """Width of the space that images and texts share."""
    projection = getattr(model, "text_projection", None)
    if projection is None:
        projection = getattr(getattr(model, "text", None), "text_projection", None)
    if isinstance(projection, Tensor):
        return int(projection.shape[1])
    if projection is not None:
        return int(projection.out_features)
    return int(getattr(getattr(model, "text", model), "output_dim", 0))


def _transform(own: Mapping[str, Any], config: Mapping[str, Any], notes: list[str], name: str) -> Transform:
    """open_clip's evaluation preprocessing as data. Refuses the kind that pads images."""
    stated = {**own, **{key: config[key] for key in ("mean", "std", "interpolation", "resize_mode") if config.get(key)}}
    if config.get("disagree"):
        notes.append(f"the released weights of {name} differ in {', '.join(config['disagree'])}: open_clip's default")
    size = stated.get("size", 224)
    height, width = (size, size) if isinstance(size, int) else (int(size[0]), int(size[1]))
    mode = stated.get("resize_mode") or "shortest"
    if mode == "longest":
        raise BenchError(f"openclip:{name} pads images to a square, which no transform here does")
    squash = mode == "squash"
    if height != width and not squash:
        raise BenchError(f"openclip:{name} cuts images to {height}x{width} pixels, which no transform here does")
    return Transform(
        resize=(height, width) if squash else height,
        crop=None if squash else height,
        interpolation="bilinear" if stated.get("interpolation") == "bilinear" else "bicubic",
        mean=_three(stated["mean"]),
        std=_three(stated["std"]),
    )


def _three(value: Any) -> tuple[float, float, float]:
    first, second, third = value if isinstance(value, list | tuple) else (value,) * 3
    return float(first), float(second), float(third)


def _tokenizer(library: Any, name: str) -> Any:
    try:
        with hub_from_cache():
            return library.get_tokenizer(name)
    except Exception as error:  # the hub's client and the tokenizers have no common base
        reason = next((line for line in str(error).splitlines() if line.strip()), type(error).__name__)
        raise BenchError(f"the tokenizer of openclip:{name} cannot be had ({reason[:200]})") from error
