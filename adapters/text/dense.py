"""The dense layers that a folder of sentence-transformers puts after its pooling."""

from __future__ import annotations

from pathlib import Path
from typing import cast

import torch
from torch import Tensor, nn

from adapters import reader
from adapters.jsonfile import read_json
from bench.errors import BenchError

_ACTIVATIONS: dict[str, type[nn.Module]] = {
    kind.__name__: kind for kind in (nn.Identity, nn.Tanh, nn.ReLU, nn.GELU, nn.SiLU, nn.Sigmoid)
}
"""By the last part of the name that the folder gives: none of its code is imported."""
_WIDEST = 1 << 16


class Dense(nn.Module):
    """activation(W x + b) of the pooled feature, float32 [B, in] -> [B, out]."""

    def __init__(self, weight: Tensor, bias: Tensor | None, activation: str) -> None:
        super().__init__()
        self.linear = nn.Linear(weight.shape[1], weight.shape[0], bias=bias is not None)
        self.linear.load_state_dict({"weight": weight.float()} | ({} if bias is None else {"bias": bias.float()}))
        self.activation = _ACTIVATIONS[activation]()

    def forward(self, pooled: Tensor) -> Tensor:
        found: Tensor = self.activation(self.linear(pooled))
        return found

    def describe(self) -> str:
        """As in the card's ``feature``: ``dense 768 tanh``."""
        kind = type(self.activation).__name__.lower()
        return f"dense {self.linear.out_features}" + ("" if kind == "identity" else f" {kind}")


class Unit(nn.Module):
    """Rows of length one; a zero row stays."""

    def forward(self, pooled: Tensor) -> Tensor:
        return nn.functional.normalize(pooled, dim=1)

    def describe(self) -> str:
        """As in the card's ``feature``."""
        return "L2"


def dense_of(folder: Path, where: str, width: int, *, trust: bool = False) -> Dense:
    """The layer in the sub-folder ``where``: its ``config.json`` and weights, both complete, for ``width`` inputs.

    Raises `BenchError` where a tensor is missing, left over, not finite or of another shape than the configuration
    says (law 1), and for an activation or an input that is not carried out here.
    """
    place = folder / where
    path = place / "config.json"
    if not path.is_file():
        raise BenchError(
            f"{folder} lacks {where}/config.json, which describes a dense layer of its feature: copy it too"
        )
    config = read_json(path, dict)
    for key in ("module_input_name", "module_output_name"):
        if config.get(key) not in (None, "sentence_embedding"):
            raise BenchError(f"{path} puts its dense layer at '{config[key]}', and here it follows the pooling")
    activation = str(config.get("activation_function", "Tanh")).rpartition(".")[2]
    if activation not in _ACTIVATIONS:
        raise BenchError(
            f"{path} asks for the activation '{activation[:60]}', and here {', '.join(_ACTIVATIONS)} are known"
        )
    content = reader.read(place, trust=trust).content
    tensors = {name: t for name, t in content.items() if isinstance(t, Tensor)} if isinstance(content, dict) else {}
    shape = (config.get("out_features"), config.get("in_features"))
    if not all(isinstance(n, int) and 0 < n <= _WIDEST for n in shape):
        raise BenchError(f"{path} states no in_features and out_features of a dense layer")
    wanted: dict[str, tuple[int, ...]] = {"linear.weight": cast(tuple[int, int], shape)}
    if config.get("bias", True):
        wanted["linear.bias"] = (cast(int, shape[0]),)
    for name, size in wanted.items():
        if name not in tensors or tuple(tensors[name].shape) != size:
            given = f"has it as {list(tensors[name].shape)}" if name in tensors else "lacks it"
            raise BenchError(
                f"{path} describes {name} {list(size)}, and the layer's weight file {given}: not of one model"
            )
    if left := sorted(set(tensors) - set(wanted)):
        raise BenchError(f"{place} holds tensors without a place in its dense layer, such as {left[0]}")
    if any(not torch.isfinite(tensors[name]).all() for name in wanted):
        raise BenchError(f"the weights of {place} have NaN or infinite values: the file is damaged")
    if shape[1] != width:
        raise BenchError(f"{path} takes {shape[1]} numbers, and the module before it gives {width}: not of one model")
    return Dense(tensors["linear.weight"], tensors.get("linear.bias"), activation)
