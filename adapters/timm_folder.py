"""Folders that timm writes for the hub: ``config.json`` names the architecture, its arguments and the transform."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any, NamedTuple

from pydantic import ValidationError

from adapters.jsonfile import read_json
from adapters.papers import Paper, of_tag
from adapters.timm_backbone import transform_from
from adapters.timm_models import method_of
from bench.card import Transform
from bench.errors import BenchError, brief

# Arguments of `timm.create_model` that are about files, and not about the network.
_FILES = frozenset((
    "pretrained", "checkpoint_path", "pretrained_cfg", "pretrained_cfg_overlay", "cache_dir", "scriptable",
    "exportable", "no_jit", "num_classes",
))  # fmt: skip
_NAME = re.compile(r"[A-Za-z]\w*")


class Stated(NamedTuple):
    """What the folder says of its network."""

    arch: str
    """As ``--arch`` would take it."""
    transform: Transform | None
    method: str | None = None
    """The pretraining, of one of timm's own releases as it is on the hub."""
    paper: Paper | None = None
    """That pretraining's own evaluation."""


def stated(folder: Path) -> Stated | None:
    """What ``folder`` says, None for a folder that is not timm's or names an architecture that timm has not.

    Raises `BenchError` for arguments and transforms that cannot be.
    """
    path = folder / "config.json"
    config = read_json(path) if folder.is_dir() and path.is_file() else None
    if not isinstance(config, dict) or not isinstance(config.get("architecture"), str):
        return None
    if config.get("model_type", "timm_wrapper") != "timm_wrapper":
        return None
    from timm.models import is_model

    name = config["architecture"].partition(".")[0]
    if not _NAME.fullmatch(name) or not is_model(name):
        return None
    given = config.get("model_args") or {}
    if not isinstance(given, dict) or not all(_NAME.fullmatch(str(key)) for key in given):
        raise BenchError(f"{path} states arguments of {name} that are none: give its own config.json")
    arguments = {key: value for key, value in given.items() if key not in _FILES}
    for key, value in arguments.items():
        if not _plain(value):
            raise BenchError(f"{path} states {brief(key)} = {brief(repr(value))}, which is no plain value")
    inside = ", ".join(f"{key}={value!r}" for key, value in arguments.items())
    arch = f"{name}({inside})" if inside else name
    found = Stated(arch, _transform(path, config.get("pretrained_cfg")))
    return found._replace(**_released(name, config, found.transform))


def _released(name: str, config: dict[str, Any], transform: Transform | None) -> dict[str, Any]:
    """Method and evaluation of a folder that is one of timm's releases: its tag, its transform, no classifier."""
    from timm.data import resolve_data_config
    from timm.models import get_pretrained_cfg, is_model_pretrained

    own = config.get("pretrained_cfg")
    tag = own.get("tag") if isinstance(own, dict) else None
    if not isinstance(tag, str) or config.get("num_classes") or not is_model_pretrained(f"{name}.{tag}"):
        return {}
    known = get_pretrained_cfg(f"{name}.{tag}").to_dict()
    if transform is None or transform != transform_from(resolve_data_config({}, pretrained_cfg=known)):
        return {}
    method = method_of(known)
    return {"method": method, "paper": of_tag(method, name, tag, transform)}


def _plain(value: Any) -> bool:
    if isinstance(value, list):
        return len(value) <= 64 and all(_plain(one) for one in value)
    if isinstance(value, str):
        return len(value) <= 200
    return value is None or (isinstance(value, int | float) and abs(value) <= 1 << 20)


def _transform(path: Path, config: Any) -> Transform | None:
    if not isinstance(config, dict) or "input_size" not in config:
        return None
    from timm.data import resolve_data_config

    try:
        return transform_from(resolve_data_config({}, pretrained_cfg=config))
    except (ValueError, TypeError, OverflowError, KeyError, ZeroDivisionError, IndexError) as error:
        first = error.errors()[0]["msg"] if isinstance(error, ValidationError) else str(error).partition("\n")[0]
        raise BenchError(f"{path} states an input transform that cannot be: {first}") from None
