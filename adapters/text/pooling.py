"""Pooling: how a folder of sentence-transformers makes one feature of a text's tokens, or what stands in."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor, nn

from adapters.jsonfile import read_json
from adapters.text.dense import Dense, Unit, dense_of
from bench.errors import BenchError

_MODES = {
    "pooling_mode_cls_token": "cls",
    "pooling_mode_mean_tokens": "mean",
    "pooling_mode_max_tokens": "max",
}
_WORDS = {"cls": "cls", "mean": "mean", "max": "max"}


class Pooling(nn.Module):
    """``modes`` of the tokens side by side, then the modules that follow: dense layers, length one."""

    def __init__(
        self, modes: Sequence[str] = ("mean",), after: Sequence[Dense | Unit] = (), *, stated: bool = False
    ) -> None:
        super().__init__()
        self.modes = tuple(modes)
        self.after = nn.ModuleList(after)
        self.stated = stated
        """Whether the folder says so."""

    def forward(self, hidden: Tensor, mask: Tensor) -> Tensor:
        """[B, D] of ``hidden`` [B, L, D]; ``mask`` [B, L] is 1 where there is a token."""
        parts = [_pooled(hidden, mask, mode) for mode in self.modes]
        pooled = parts[0] if len(parts) == 1 else torch.cat(parts, dim=1)
        for module in self.after:
            pooled = module(pooled)
        return pooled

    def width(self, tokens: int) -> int:
        """Numbers of the feature, for tokens of that width."""
        layers = [module for module in self.after if isinstance(module, Dense)]
        return layers[-1].linear.out_features if layers else tokens * len(self.modes)

    def describe(self) -> str:
        """The card's ``feature``: ``mean, dense 512 tanh, L2``."""
        return ", ".join(["+".join(self.modes), *(cast("Dense | Unit", module).describe() for module in self.after)])


def mean(hidden: Tensor, mask: Tensor) -> Tensor:
    """[B, D]: the mean over a text's tokens, special ones included (Sentence-BERT's)."""
    weight = mask.unsqueeze(-1).to(hidden.dtype)
    return (hidden * weight).sum(dim=1) / weight.sum(dim=1).clamp(min=1)


def pooling_of(folder: Path, width: int, *, trust: bool = False) -> Pooling:
    """What ``modules.json`` and the modules' own configurations say of tokens [B, L, width]; without them their mean.

    Raises `BenchError` for a module, an order or a mode that is not carried out here.
    """
    path = folder / "modules.json"
    if path.is_file():
        modes: tuple[str, ...] | None = None
        after: list[Dense | Unit] = []
        for number, module in enumerate(read_json(path, list)):
            kind = str(module.get("type", "")).rpartition(".")[2] if isinstance(module, dict) else ""
            if kind == "Pooling" and modes is None and not after:
                modes = _modes(folder, _inside(folder, module, kind))
                width *= len(modes)
            elif kind == "Normalize":
                after.append(Unit())
            elif kind == "Dense" and modes is not None:
                layer = dense_of(folder, _inside(folder, module, kind), width, trust=trust)
                after.append(layer)
                width = layer.linear.out_features
            elif kind != "Transformer" or number > 0:
                raise BenchError(
                    f"{path} has a module '{kind or str(module)[:80]}' in a place where it is not read here: give the "
                    f"folder of the encoder alone, or one of Transformer, Pooling, Dense and Normalize in that order"
                )
        return Pooling(modes or ("mean",), after, stated=modes is not None)
    for child in sorted(folder.glob("*_Pooling")):
        if (child / "config.json").is_file():
            return Pooling(_modes(folder, child.name), stated=True)
    return Pooling()


def _inside(folder: Path, module: dict[str, Any], kind: str) -> str:
    """The name of a module's sub-folder."""
    where = str(module.get("path", ""))
    if Path(where).name != where or where in ("", ".."):
        raise BenchError(
            f"{folder / 'modules.json'} names a {kind} at '{where[:80]}', which is no sub-folder of its folder"
        )
    return where


def _modes(folder: Path, where: str) -> tuple[str, ...]:
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
