"""An architecture by name, with the arguments that a checkpoint's shapes ask for; its tensors without its memory."""

from __future__ import annotations

import ast
import functools
import re
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import nn

from adapters import networks
from adapters.networks.network import Network
from adapters.timm_backbone import classifier_names as timm_classifier
from adapters.timm_backbone import create
from adapters.unfilled import without_random_init
from bench.errors import BenchError

# Arguments of ours and the layer norms whose epsilon they are: all, the one before the classifier, and those of a Swin
# transformer's blocks with the final one (its patches are embedded and merged by norms of their own).
_EPSILONS = {"norm_eps": r".*", "head_norm_eps": r"head\..*", "block_norm_eps": r"layers\.\d+\.blocks\.\d+\..*|norm"}


@dataclass(frozen=True)
class Architecture:
    """``vit_small_patch16_224``, ``vit_small_patch16_224(num_heads=12)`` or ``torchvision:resnet50``."""

    name: str
    arguments: tuple[tuple[str, Any], ...] = field(default=())

    @classmethod
    def parse(cls, text: str) -> Architecture:
        """Read what a user writes after ``--arch``. Refuses arguments that are no plain values."""
        if text != text.strip():
            raise BenchError(f"--arch '{text}': leave out the spaces around the name")
        match = re.fullmatch(r"([\w.:/-]+)\s*(?:\((.*)\))?", text, re.DOTALL)
        if match is None:
            raise BenchError(f"--arch {text}: write a name, or a name with arguments such as vit_base(num_heads=12)")
        name, inside = match[1], match[2]
        try:
            call = ast.parse(f"f({inside or ''})", mode="eval").body
            assert isinstance(call, ast.Call)
            arguments = tuple((str(k.arg), _hashable(ast.literal_eval(k.value))) for k in call.keywords)
        except (SyntaxError, ValueError, AssertionError, RecursionError):
            raise BenchError(f"--arch {text}: the arguments must be plain values, e.g. num_heads=12") from None
        if call.args or any(key == "None" for key, _ in arguments):
            raise BenchError(f"--arch {text}: every argument needs its name, e.g. num_heads=12")
        return cls(name, arguments)

    def with_arguments(self, **more: Any) -> Architecture:
        return Architecture(self.name, tuple(sorted({**dict(self.arguments), **more}.items())))

    def __str__(self) -> str:
        inside = ", ".join(f"{key}={value!r}" for key, value in self.arguments if key != "num_classes")
        return f"{self.name}({inside})" if inside else self.name

    @property
    def torchvision(self) -> bool:
        return self.name.startswith("torchvision:")

    @property
    def ours(self) -> bool:
        """Whether it is in `adapters.networks`."""
        return self.name in networks.TABLE

    def build(self) -> nn.Module:
        """The network with unspecified weights. Raises `BenchError` for an unknown name or impossible arguments."""
        arguments = dict(self.arguments)
        # timm's BEiT has no such argument, and no network without that norm.
        bare = self.name.startswith("beit") and not arguments.get("final_norm", True)
        if self.name.startswith("beit"):
            arguments.pop("final_norm", None)
        epsilons = {option: arguments.pop(option) for option in _EPSILONS if option in arguments}
        # timm's first Swin has GELU in its definition.
        activation = arguments.pop("act_layer", None) if self.name.startswith("swin_") else None
        try:
            if self.torchvision:
                from adapters.torchvision_models import build

                network = build(self.name.removeprefix("torchvision:"), **arguments)
            elif self.ours:
                network = networks.build(self.name, **arguments)
            else:
                network = create(self.name, pretrained=False, **arguments)
            if activation is not None:
                _set_activation(network, activation)
        except NotImplementedError:
            raise
        except (TypeError, ValueError, AssertionError, RuntimeError, LookupError, ArithmeticError) as error:
            why = f"nothing is called {error}" if isinstance(error, KeyError) else error
            raise BenchError(f"--arch {self}: the architecture cannot be made so: {why}") from error
        if bare:
            network.norm = nn.Identity()
        _set_epsilons(network, **epsilons)
        return network

    def outline(self) -> Outline:
        """Names and shapes of the tensors, without building them."""
        return _outline(self)

    def heads(self) -> int | None:
        """Attention heads of its first block, where it is a plain transformer."""
        return _heads(self)

    def behaviour(self) -> str:
        """What the network computes, as text: two architectures of equal tensors and text are one under two names."""
        return _behaviour(self)


@functools.lru_cache(maxsize=64)
def _heads(architecture: Architecture) -> int | None:
    with torch.device("meta"):
        network = architecture.build()
    blocks = getattr(network, "blocks", None)
    first = blocks[0] if isinstance(blocks, nn.ModuleList | nn.Sequential) and len(blocks) else None
    count = getattr(getattr(first, "attn", None), "num_heads", None)
    return count if isinstance(count, int) else None


@functools.lru_cache(maxsize=64)
def _behaviour(architecture: Architecture) -> str:
    with torch.device("meta"):
        network = architecture.build()
    traits = (
        "num_heads", "scale", "global_pool", "num_prefix_tokens", "no_embed_class", "fused_attn", "window_size",
        "pretrained_window_size", "shift_size",
    )  # fmt: skip
    parts = [
        f"{name} {trait}={getattr(part, trait)}"
        for name, part in network.named_modules()
        for trait in traits
        if isinstance(getattr(part, trait, None), int | float | str | tuple)
    ]
    return "\n".join([repr(network), *parts])


def _set_epsilons(network: nn.Module, **epsilons: float) -> None:
    """Epsilons of the layer norms that `_EPSILONS` has a pattern for."""
    for name, part in network.named_modules():
        for option, epsilon in epsilons.items():
            if isinstance(part, nn.LayerNorm) and re.fullmatch(_EPSILONS[option], name):
                part.eps = epsilon


def _set_activation(network: nn.Module, name: str) -> None:
    """The activation, by timm's name, of every perceptron of a timm network."""
    from timm.layers import Mlp, create_act_layer

    for part in network.modules():
        if isinstance(part, Mlp):
            part.act = create_act_layer(name) or nn.Identity()


@dataclass(frozen=True)
class Outline:
    """Names and shapes of a network's tensors. ``needed`` must come from a checkpoint (law 1); ``optional`` may."""

    needed: dict[str, torch.Size]
    optional: dict[str, torch.Size]
    classifier: tuple[str, ...]
    """Module names of the classifier."""

    @property
    def everything(self) -> dict[str, torch.Size]:
        return {**self.needed, **self.optional}


@functools.lru_cache(maxsize=256)
def _outline(architecture: Architecture) -> Outline:
    try:
        # On the meta device nothing is allocated or computed.
        with torch.device("meta"):
            network = architecture.build()
    except NotImplementedError:  # a few compute their widths with tensors
        with without_random_init():
            network = architecture.build()
    if architecture.torchvision:
        from adapters.torchvision_backbone import classifier_name

        classifier: tuple[str, ...] = (classifier_name(network),)
    elif isinstance(network, Network):
        classifier = (network.head_name,)
    else:
        classifier = timm_classifier(network)
    heads = tuple(f"{name}." for name in classifier)
    needed: dict[str, torch.Size] = {}
    optional: dict[str, torch.Size] = {}
    for name, tensor in network.state_dict().items():
        stateful = tensor.is_floating_point() and not name.endswith("relative_coords_table")
        (needed if stateful and not name.startswith(heads) else optional)[name] = tensor.shape
    return Outline(needed, optional, classifier)


def _hashable(value: Any) -> Any:
    """A plain value with tuples for lists. Raises ValueError for mappings and sets, which no argument is."""
    if isinstance(value, dict | set):
        raise ValueError
    return tuple(map(_hashable, value)) if isinstance(value, list | tuple) else value
