"""Pooling: how a folder of sentence-transformers makes one feature of a text's tokens, or what stands in."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from adapters.jsonfile import read_json
from bench.errors import BenchError

_MODES = {
    "pooling_mode_cls_token": "cls",
    "pooling_mode_mean_tokens": "mean",
    "pooling_mode_max_tokens": "max",
}
_WORDS = {"cls": "cls", "mean": "mean", "max": "max"}


@dataclass(frozen=True)
class Pooling:
    """``modes`` side by side, then to length one where ``unit``."""

    modes: tuple[str, ...] = ("mean",)
    unit: bool = False
    stated: bool = False
    """Whether the folder says so."""

    def __call__(self, hidden: Tensor, mask: Tensor) -> Tensor:
        """[B, D] of ``hidden`` [B, L, D]; ``mask`` [B, L] is 1 where there is a token."""
        parts = [_pooled(hidden, mask, mode) for mode in self.modes]
        pooled = parts[0] if len(parts) == 1 else torch.cat(parts, dim=1)
        return torch.nn.functional.normalize(pooled, dim=1) if self.unit else pooled

    def describe(self) -> str:
        """The card's ``feature``."""
        return "+".join(self.modes) + (", L2" if self.unit else "")


def mean(hidden: Tensor, mask: Tensor) -> Tensor:
    """[B, D]: the mean over a text's tokens, special ones included (Sentence-BERT's)."""
    weight = mask.unsqueeze(-1).to(hidden.dtype)
    return (hidden * weight).sum(dim=1) / weight.sum(dim=1).clamp(min=1)


def pooling_of(folder: Path) -> Pooling:
    """What ``modules.json`` and the pooling's own configuration say; without them the mean of the tokens.

    Raises `BenchError` for a module or a mode that is not carried out here.
    """
    path = folder / "modules.json"
    if path.is_file():
        modules = read_json(path, list)
        found, unit = None, False
        for number, module in enumerate(modules):
            kind = str(module.get("type", "")).rpartition(".")[2] if isinstance(module, dict) else ""
            if kind == "Pooling":
                found = _modes(folder, str(module.get("path", "")))
            elif kind == "Normalize":
                unit = True
            elif kind != "Transformer" or number > 0:
                raise BenchError(
                    f"{path} ends in a module '{kind or module}', which is not read here: give the folder of the "
                    f"encoder alone, with Transformer, Pooling and Normalize"
                )
        return Pooling(found, unit, stated=True) if found else Pooling(unit=unit)
    for child in sorted(folder.glob("*_Pooling")):
        if (child / "config.json").is_file():
            return Pooling(_modes(folder, child.name), stated=True)
    return Pooling()


def _modes(folder: Path, where: str) -> tuple[str, ...]:
    if Path(where).name != where or where in ("", ".."):
        raise BenchError(f"{folder / 'modules.json'} names a pooling at '{where[:80]}', which is no sub-folder of it")
    path = folder / where / "config.json"
    if not path.is_file():
        raise BenchError(f"{folder} lacks {where}/config.json, which says how its tokens are pooled: copy it too")
    config: dict[str, Any] = read_json(path, dict)
    if isinstance(config.get("pooling_mode"), str):
        modes, other = [config["pooling_mode"]], []
    else:
        on = [name for name, value in config.items() if name.startswith("pooling_mode_") and value is True]
        modes = [_MODES[name] for name in on if name in _MODES]
        other = [name for name in on if name not in _MODES]
    other += [mode for mode in modes if mode not in _WORDS]
    if other or not modes:
        raise BenchError(
            f"{path} pools by {', '.join(other) or 'nothing'}, and here the class token, the mean and the maximum are "
            f"known: give a folder that pools by one of these"
        )
    return tuple(modes)


def _pooled(hidden: Tensor, mask: Tensor, mode: str) -> Tensor:
    if mode == "cls":
        return hidden[:, 0]
    if mode == "mean":
        return mean(hidden, mask)
    return hidden.masked_fill(mask.unsqueeze(-1) == 0, torch.finfo(hidden.dtype).min).amax(dim=1)
