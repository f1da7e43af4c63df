"""Folders that timm writes for the hub: ``config.json`` names the architecture, its arguments and the transform."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any, NamedTuple

from pydantic import ValidationError

from adapters.jsonfile import read_json
from adapters.timm_backbone import transform_from
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
    return Stated(f"{name}({inside})" if inside else name, _transform(path, config.get("pretrained_cfg")))


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
