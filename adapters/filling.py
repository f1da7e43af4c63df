"""A network from a file's tensors, each moved once, so that both together never take twice the memory."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from adapters import values
from adapters.architecture import Architecture, Outline
from adapters.networks.network import Network
from adapters.unfilled import without_parameters, without_random_init
from bench.errors import BenchError


def filled(architecture: Architecture, outline: Outline, tensors: dict[str, Tensor], file: str) -> nn.Module:
    """``architecture`` with ``tensors`` by their names in it; ``tensors`` is emptied on the way.

    Raises `BenchError` for values that no network has, and where a parameter would stay without a value.
    """
    network = _unfilled(architecture)
    places = network.state_dict(keep_vars=True)
    values.check_kinds(tensors, places, file)
    given = set(tensors)
    found = values.Findings()
    with torch.no_grad():
        for name in list(tensors):
            place = places[name]
            tensor = tensors.pop(name)
            moved = torch.empty(place.shape, dtype=place.dtype).copy_(tensor)
            del tensor
            found.add(name, moved)
            if isinstance(place, nn.Parameter):
                _put(network, name, moved)
            else:
                place.copy_(moved)
    found.refuse(file)
    # Only counters and tables that the architecture computes itself may keep the values they were made with.
    # A classifier that the file lacks is not used; other parameters outside ``needed`` do not exist.
    heads = tuple(f"{name}." for name in outline.classifier) if isinstance(network, Network) else ()
    unfilled = [name for name in outline.needed if name not in given]
    for name, parameter in list(network.named_parameters()):
        if name in given:
            continue
        if parameter.numel() and name not in unfilled and not name.startswith(heads):
            unfilled.append(name)
        # Zeros, for an unused classifier is part of the weight digest.
        _put(network, name, torch.zeros(parameter.shape, dtype=parameter.dtype))
    if unfilled:
        raise BenchError(
            f"{file}: {', '.join(unfilled[:4])} would keep random values: this architecture cannot be used"
        )
    return network


def _unfilled(architecture: Architecture) -> nn.Module:
    """The network without memory for its parameters; with it, where building or a buffer needs their values."""
    try:
        with without_parameters():
            network = architecture.build()
        if not any(buffer.is_meta for buffer in network.buffers()):
            return network
    except (NotImplementedError, BenchError):  # what reading a tensor without memory, or mixing it with others, ends in
        pass
    with without_random_init():
        return architecture.build()


def _put(network: nn.Module, name: str, tensor: Tensor) -> None:
    way, _, last = name.rpartition(".")
    network.get_submodule(way).register_parameter(last, nn.Parameter(tensor, requires_grad=False))
