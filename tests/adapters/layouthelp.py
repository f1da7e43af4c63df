"""Small networks with fixed weights, for tests of names and layouts."""

from __future__ import annotations

import re
import zlib
from collections.abc import Iterable
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import timm
import torch
from torch import Tensor, nn

import bench

_Module = TypeVar("_Module", bound=nn.Module)

# Values that networks compute themselves.
_OWN = ("periods", "relative_coords_table", "attn_mask")


def values(name: str, shape: Iterable[int]) -> Tensor:
    """The same numbers for the same name everywhere: what training might leave in a tensor of that kind."""
    size = tuple(shape)
    drawn = np.random.Generator(np.random.Philox(zlib.crc32(name.encode()))).standard_normal(size, np.float32)
    last = name.rpartition(".")[2]
    if len(size) > 1:
        drawn /= np.sqrt(np.prod(size[1:]))
    elif last == "running_var":
        drawn = 1 + 0.1 * np.abs(drawn)
    elif last == "weight":
        drawn = 1 + 0.1 * drawn
    else:
        drawn *= 0.1
    return torch.from_numpy(np.asarray(drawn, np.float32))


def filled(network: _Module) -> _Module:
    """``network`` with `values` in all its parameters and float buffers, in eval mode."""
    with torch.no_grad():
        for name, tensor in network.state_dict().items():
            if tensor.is_floating_point() and not name.endswith(_OWN):
                tensor.copy_(values(name, tensor.shape))
    return network.eval()


def images(size: int, n: int = 2) -> Tensor:
    """float32 [n, 3, size, size]."""
    return values("images", (n, 3, size, size)) * float(np.sqrt(3 * size * size))


def close(ours: Tensor, theirs: Tensor) -> bool:
    """Whether two outputs are equal to float32's noise, relative to the largest value."""
    return ours.shape == theirs.shape and float((ours - theirs).abs().max()) <= 3e-5 * float(theirs.abs().max())


def timm_network(name: str, **arguments: Any) -> nn.Module:
    """timm's network ``name`` without a classifier, `filled`."""
    network = filled(timm.create_model(name, pretrained=False, num_classes=0, **arguments))
    return network.requires_grad_(False)


def renamed(tensors: dict[str, Tensor], *rules: tuple[str, str]) -> dict[str, Tensor]:
    """The floating-point ``tensors`` by the first of ``rules`` (pattern, new name) that matches."""
    out = {}
    for name, tensor in tensors.items():
        if tensor.is_floating_point() and not name.endswith("rope.periods"):
            found = next((m.expand(theirs) for ours, theirs in rules if (m := re.fullmatch(ours, name))), name)
            out[found] = tensor
    return out


def split(tensors: dict[str, Tensor], joined: str, parts: tuple[str, str, str]) -> dict[str, Tensor]:
    """``joined`` (a pattern whose group 1 stays) cut into three tensors."""
    out = {}
    for name, tensor in tensors.items():
        if found := re.fullmatch(joined, name):
            out |= {found.expand(part): piece for part, piece in zip(parts, tensor.chunk(3), strict=True)}
        else:
            out[name] = tensor
    return out


def loaded(tensors: Any, tmp_path: Path, architecture: str, **arguments: Any) -> Any:
    """The Backbone of a file ``weights.pth`` with ``tensors``, as ``architecture`` with ``arguments``."""
    torch.save(tensors, tmp_path / "weights.pth")
    inside = ", ".join(f"{name}={value!r}" for name, value in arguments.items())
    return bench.load(tmp_path / "weights.pth", arch=f"{architecture}({inside})")


def saved(model: Any, folder: Path, *, std: float = 0.05) -> Path:
    """``folder`` with a model of transformers as it saves itself, its parameters drawn anew with deviation ``std``."""
    torch.manual_seed(0)
    for parameter in model.parameters():
        nn.init.normal_(parameter, std=std)
    model.eval().save_pretrained(folder)
    return folder
