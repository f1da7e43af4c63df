"""Parameter groups: which layer a parameter belongs to, its learning rate's scale, and whether it decays."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, NamedTuple

from bench.errors import BenchError

if TYPE_CHECKING:
    from torch import nn
    from torch.nn import Parameter

_BLOCK = re.compile(r"blocks\.(\d+)\.")
_TOKENS = ("cls_token", "dist_token", "reg_token", "register_tokens", "pos_embed", "mask_token")
_BEFORE = ("patch_embed.", "norm_pre.", *_TOKENS)
"""What a plain transformer has before its first block."""
_MERGING = re.compile(r"layers\.(\d+)\.downsample\.")


class Layers(NamedTuple):
    """The layer of every parameter of a network, 0 the first."""

    of: dict[str, int]
    last: int
    """Of the final norm; a head put on top belongs there too, so that its rate is not scaled."""


def layers_of(network: nn.Module) -> Layers:
    """The layers that layer decay counts.

    A plain transformer of L blocks: 0 the embeddings (class token, positions, patches), i + 1 block i, L + 1 the final
    norm and everything after it, also a table of positions that all blocks share (BEiT's and MAE's
    ``get_layer_id_for_vit``). Any other timm network: as timm groups its parameters, but the final norm in the last
    layer with the head, and a Swin's patch merging with the block before it: both as SimMIM's ``get_swin_layer`` has
    them. Refused for a network that does not say how it is layered.
    """
    names = [name for name, _ in network.named_parameters()]
    numbers = [int(match[1]) for name in names if (match := _BLOCK.match(name))]
    plain = bool(numbers) and any(name.startswith("patch_embed.") for name in names)
    if plain and not any(re.match(r"(stages|layers|blocks\.\d+\.\d+)\b", name) for name in names):
        depth = max(numbers) + 1
        return Layers({name: _plain(name, depth) for name in names}, depth + 1)
    matcher = getattr(network, "group_matcher", None)
    if matcher is None:
        raise BenchError(
            f"the network {type(network).__name__} does not say which layers it has, so their learning rates cannot "
            f"decay: use a timm architecture, or a layer decay of 1"
        )
    from timm.models import group_parameters

    of: dict[str, int] = group_parameters(network, matcher(coarse=False), reverse=True)
    heads = [of[name] for name in names if _is_head(network, name)]
    # Without a classifier nothing is in the head's layer: it comes after all that is there.
    last = min(heads) if heads else max(of.values()) + 1
    for name in names:
        if (match := _MERGING.match(name)) and (first := f"layers.{match[1]}.blocks.0.norm1.weight") in of:
            # timm counts it with the block that comes next, of the stage that it stands in.
            of[name] = of[first] - 1
    return Layers({name: last if _is_final_norm(name) else min(of[name], last) for name in names}, last)


def _plain(name: str, depth: int) -> int:
    if match := _BLOCK.match(name):
        return int(match[1]) + 1
    return 0 if name.startswith(_BEFORE) else depth + 1


def _is_head(network: nn.Module, name: str) -> bool:
    classifier = (getattr(network, "pretrained_cfg", None) or {}).get("classifier") or ()
    prefixes = (classifier,) if isinstance(classifier, str) else tuple(classifier)
    return any(name.startswith(f"{prefix}.") for prefix in prefixes)


def _is_final_norm(name: str) -> bool:
    return name.startswith(("norm.", "fc_norm."))


def is_undecayed(network: nn.Module, name: str, parameter: Parameter) -> bool:
    """Whether weight decay passes a parameter by: vectors and scalars, and what the architecture says itself (class
    token, positions)."""
    said: Callable[[], Any] | None = getattr(network, "no_weight_decay", None)
    names = set(said()) if callable(said) else set()
    return parameter.ndim <= 1 or name in names or name.rpartition(".")[2] in {*_TOKENS, "relative_position_bias_table"}


def grouped(
    parts: list[tuple[nn.Module, float]], *, weight_decay: float, layer_decay: float = 1.0, undecayed: bool = True
) -> list[dict[str, Any]]:
    """Groups for an optimiser over ``parts``, each a network and a factor of its learning rate.

    The first part is the trunk: its layer ``id`` of L + 1 has the scale ``layer_decay ** (L + 1 - id)``; the others
    (new norm, head) are at the last layer. ``undecayed``: vectors, class token and positions have no weight decay.
    Parameters without gradients are left out. Each group has ``lr_scale``, ``weight_decay`` and ``params``.
    """
    groups: dict[tuple[float, float], dict[str, Any]] = {}
    for number, (part, factor) in enumerate(parts):
        layers = layers_of(part) if number == 0 and layer_decay != 1.0 else None
        for name, parameter in part.named_parameters():
            if not parameter.requires_grad:
                continue
            scale = factor * (layer_decay ** (layers.last - layers.of[name]) if layers is not None else 1.0)
            decay = 0.0 if undecayed and is_undecayed(part, name, parameter) else weight_decay
            group = groups.setdefault((scale, decay), {"lr_scale": scale, "weight_decay": decay, "params": []})
            group["params"].append(parameter)
    return list(groups.values())
