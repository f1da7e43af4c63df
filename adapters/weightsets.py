"""The weight sets of a container: every mapping of names to tensors that lies somewhere inside it."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple, TypeGuard

from torch import Tensor, nn

from adapters.unpickling import Opaque

_DEPTH = 8
_NO_WEIGHTS = re.compile(
    r"(?i)(?:optim\w*|\w*optimizer\w*|\w*scaler\w*|\w*sched\w*|amp|rng\w*|\w*rng_state\w*|exp_avg\w*|momentum_buffer|"
    r"loops|callbacks|hyper_parameters|hparams\w*|args|config|cfg|opt|loss|losses|dino_loss|ibot_patch_loss|meta|"
    r"grads?|gradients|momentum|velocity|m|v|mu|nu)"
)

# Which weights a method's official evaluation reads, where one file has several. Lower is preferred.
_PREFERRED = re.compile(r"teacher\w*|target_encoder|\w*_?ema|ema_\w*|averaged?_model|swa\w*")
_SECONDARY = re.compile(
    r"student\w*|context_encoder|encoder_k|key_encoder|\w*momentum\w*|target|target_\w+|\w*_target|\w+_teacher_old"
)
_SAYING = re.compile(rf"{_PREFERRED.pattern}|{_SECONDARY.pattern}|encoder_q|online\w*|base_encoder")
_WRAPPERS = re.compile(r"(?<![^.])(?:_orig_mod|_fsdp_wrapped_module|_checkpoint_wrapped_module)\.")
_LONGEST = 1000
_HOLLOW = {"sparse": "sparse", "meta_tensor": "meta", "qtensor": "quantised", "nested": "nested"}


class WeightSet(NamedTuple):
    """A named set of tensors; ``key`` is the way to it inside the container, ``""`` at the top."""

    key: str
    tensors: dict[str, Tensor]
    hollow: dict[str, str] = {}  # noqa: RUF012 - never changed
    """Names of tensors without dense values, and what they are: ``sparse``, ``meta``, ``quantised``."""


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
            if isinstance(value, Mapping | Opaque | nn.Module):
                _walk(value, (*path, str(index)), found)
        return
    if isinstance(node, Opaque):
        node = _module(node)
    elif isinstance(node, nn.Module):  # of a file that is trusted
        node = node.state_dict()
    if not isinstance(node, Mapping):
        return
    named = _unwrapped({n: value for n, value in node.items() if isinstance(n, str) and len(n) <= _LONGEST})
    tensors = {name: value for name, value in named.items() if isinstance(value, Tensor)}
    hollow = {name: kind for name, value in named.items() if (kind := _hollow(value))}
    if hollow or any(value.is_floating_point() and value.ndim > 0 for value in tensors.values()):
        found.append(WeightSet(".".join(path), tensors, hollow))
    for name, value in named.items():
        nested = isinstance(value, Mapping | list | tuple | Opaque | nn.Module)
        if nested and not _NO_WEIGHTS.fullmatch(name):
            _walk(value, (*path, name), found)


def _unwrapped(named: dict[str, Any]) -> dict[str, Any]:
    """Names without the parts that compiling, sharding and recomputing modules put in, where they stay different."""
    plain = {_WRAPPERS.sub("", name): value for name, value in named.items()}
    return plain if len(plain) == len(named) else named


def _module(thing: Opaque) -> dict[str, object] | None:
    """The tensors of a pickled `torch.nn.Module` by their names in its state_dict; None for another object."""
    if not _is_module(thing):
        return None
    found: dict[str, object] = {}
    seen: set[int] = set()
    waiting = [("", thing)]
    while waiting:
        prefix, here = waiting.pop()
        if id(here) in seen or len(prefix) > 2000:
            continue
        seen.add(id(here))
        passing = here.state.get("_non_persistent_buffers_set")
        passing = passing if isinstance(passing, set | list | tuple) else ()
        for part in ("_parameters", "_buffers"):
            own = here.state.get(part)
            for name, value in own.items() if isinstance(own, Mapping) else ():
                if isinstance(name, str) and name not in passing:
                    found[prefix + name] = value
        inner = here.state["_modules"]
        waiting += [(f"{prefix}{n}.", one) for n, one in inner.items() if isinstance(n, str) and _is_module(one)]
    return found


def _is_module(thing: object) -> TypeGuard[Opaque]:
    return (
        isinstance(thing, Opaque)
        and isinstance(thing.state, Mapping)
        and isinstance(thing.state.get("_parameters"), Mapping)
        and isinstance(thing.state.get("_modules"), Mapping)
    )


def _hollow(value: object) -> str | None:
    """What a tensor is of which the file holds no dense values; None for anything else."""
    if isinstance(value, Tensor):
        return "meta" if value.is_meta else None
    if not isinstance(value, Opaque) or value.module != "torch._utils":
        return None
    return next((word for part, word in _HOLLOW.items() if part in value.name), None)


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
    """Whether ``--weights-key wanted`` means the set called ``name``: the whole label or consecutive parts of it.

    A dot is the file's top level.
    """
    if wanted == ".":
        return not name
    parts, asked = name.split("."), wanted.strip(".").split(".")
    return any(parts[i : i + len(asked)] == asked for i in range(len(parts) - len(asked) + 1))


def shortened(names: Sequence[str]) -> list[str]:
    """The shortest ``--weights-key`` that means each of ``names`` and no other, ``.`` for the top level.

    Among equally short ones a part that says which weights they are comes first, then an outer one.
    """
    return [_shortest(name, [other for other in names if other != name]) for name in names]


def _shortest(name: str, others: Sequence[str]) -> str:
    if not name:
        return "."
    parts = name.split(".")
    runs = [parts[i : i + n] for n in range(1, len(parts) + 1) for i in range(len(parts) - n + 1)]
    runs.sort(key=lambda run: (len(run), not any(_SAYING.fullmatch(part) for part in run)))
    return next(
        (key for run in runs if (key := ".".join(run)) and not any(answers(other, key) for other in others)), name
    )


def averaged(name: str) -> bool:
    """Whether a label says that its weights are a running average of others."""
    return any(
        re.fullmatch(r"\w*_?ema|ema_\w*|averaged?_model|swa\w*|\w*momentum\w*|encoder_k", part)
        for part in name.split(".")
    )
