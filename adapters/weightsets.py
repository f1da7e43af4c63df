"""The weight sets of a container: every mapping of names to tensors that lies somewhere inside it."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, NamedTuple

from torch import Tensor

_DEPTH = 8
_NO_WEIGHTS = re.compile(
    r"(?i)(?:optim\w*|\w*optimizer\w*|\w*scaler\w*|\w*sched\w*|amp|rng\w*|\w*rng_state\w*|exp_avg\w*|momentum_buffer|"
    r"loops|callbacks|hyper_parameters|hparams\w*|args|config|cfg|opt|loss|losses|dino_loss|ibot_patch_loss|meta)"
)

# Which weights a method's official evaluation reads, where one file has several. Lower is preferred.
_PREFERRED = re.compile(r"teacher\w*|target_encoder|\w*_?ema|ema_\w*|averaged?_model|swa\w*")
_SECONDARY = re.compile(
    r"student\w*|context_encoder|encoder_k|key_encoder|\w*momentum\w*|target|target_\w+|\w*_target|\w+_teacher_old"
)


class WeightSet(NamedTuple):
    """A named set of tensors; ``key`` is the way to it inside the container, ``""`` at the top."""

    key: str
    tensors: dict[str, Tensor]


def weight_sets(content: Any) -> list[WeightSet]:
    """All weight sets of a container's content, the outer ones first; optimiser state and the like left out."""
    found: list[WeightSet] = []
    _walk(content, (), found)
    return found


def _walk(node: Any, path: tuple[str, ...], found: list[WeightSet]) -> None:
    if len(path) > _DEPTH:
        return
    if isinstance(node, list | tuple):
        for index, value in enumerate(node[:64]):
            if isinstance(value, Mapping):
                _walk(value, (*path, str(index)), found)
        return
    if not isinstance(node, Mapping):
        return
    tensors = {name: value for name, value in node.items() if isinstance(name, str) and isinstance(value, Tensor)}
    if any(value.is_floating_point() and value.ndim > 0 for value in tensors.values()):
        found.append(WeightSet(".".join(path), tensors))
    for name, value in node.items():
        if isinstance(name, str) and isinstance(value, Mapping | list | tuple) and not _NO_WEIGHTS.fullmatch(name):
            _walk(value, (*path, name), found)


def label(key: str, prefix: str) -> str:
    """How a weight set and the prefix inside it are called together, e.g. ``state_dict.module.encoder_q``."""
    return ".".join(part for part in (key, prefix.rstrip(".")) if part)


def preference(name: str) -> int:
    """Rank of a weight set's label, 0 best: EMA and teacher weights, then plain ones, then their counterparts."""
    parts = name.split(".")
    if any(_SECONDARY.fullmatch(part) and not _PREFERRED.fullmatch(part) for part in parts):
        return 2
    return 0 if any(_PREFERRED.fullmatch(part) for part in parts) else 1


def answers(name: str, wanted: str) -> bool:
    """Whether ``--weights-key wanted`` means the set called ``name``: the whole label or consecutive parts of it."""
    parts, asked = name.split("."), wanted.strip(".").split(".")
    return any(parts[i : i + len(asked)] == asked for i in range(len(parts) - len(asked) + 1)) or wanted in ("", ".")
